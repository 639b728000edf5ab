"""The verbs of torch and Keras that at least two techniques need."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, Literal, Protocol

import numpy as np

from nbopt.batches import Inputs
from nbopt.data import Split
from nbopt.errors import ModelError
from nbopt.frameworks._losses import TrainingLoss
from nbopt.frozen import Leaf
from nbopt.progress import ProgressCallback, silent
from nbopt.training import TrainingPlan, TrainingRecord

OutputKind = Literal[
    "logits",
    "probabilities",
    "log_probabilities",
    "binary_logits",
    "binary_probabilities",
    "multilabel_logits",
    "multilabel_probabilities",
    "regression",
]
"""What a model's output means, and so how it becomes a score."""


@dataclass(frozen=True)
class Signature:
    """Describe a model's inputs for an export.

    Args:
        leaves: An entry for each input; axes that vary are None, the first (batch) always.
        keyed: The model is called with a mapping of inputs, not with positions.
        example: One row of real data, batch of 1.
    """

    leaves: tuple[Leaf, ...]
    keyed: bool
    example: Inputs = field(repr=False)

    @property
    def names(self) -> list[str]:
        """Return the inputs' names in order."""
        return [leaf.name for leaf in self.leaves]


@dataclass(frozen=True)
class Fitting:
    """Say what a training trains against, beside its plan.

    Args:
        split: Training data.
        loss: As `Framework.loss` gave it, before the plan smooths its labels.
        score: Quality of the model on validation; None to validate nothing.
        greater_is_better: Direction of `score`.
        hold: Called with the model after each step (masks that must hold).
        pace: Called with the model and the share of the training that is done, 0 to 1: before the first step, after
            each, and with 1 at the end. It returns whether the model has the form that was asked for; until every
            one does, no state is kept as the best (a half-pruned model is better, and not what was asked for).
        progress: Told after every few steps.
        valid: Data whose loss steers the training, where the plan watches it; None where there is none.
        each_step: Told the loss and the learning rate of each step; training ends where it returns True.
        teach: Blends a step's loss with what the plan's teacher says; the framework puts it there. A caller whose plan
            has no teacher may give its own, in the framework's form: a callable in torch, see `_torch_fit.step_loss`;
            an object like `Lessons` in Keras. None without one.
    """

    split: Split
    loss: Any
    score: Callable[[Any], float] | None = None
    greater_is_better: bool = True
    hold: tuple[Callable[[Any], None], ...] = ()
    pace: tuple[Callable[[Any, float], bool], ...] = ()
    progress: ProgressCallback = silent
    valid: Split | None = None
    each_step: Callable[[float, float], bool] | None = None
    teach: Any = None

    def paced(self, model: Any, done: float) -> bool:
        """Tell each `pace` how far the training is; return whether the model has the form that was asked for."""
        answers = [pace(model, done) for pace in self.pace]  # each is asked, whatever the first one says
        return all(answers)


def trained_on(fitting: Fitting, plan: TrainingPlan) -> Fitting:
    """Return what a training trains against once the plan had its say: the labels smoothed where it asks for that.

    Raises:
        ModelError: The loss has no labels that could be smoothed.
    """
    if not plan.label_smoothing:
        return fitting
    loss: TrainingLoss = fitting.loss
    return replace(fitting, loss=loss.smoothed(plan.label_smoothing))


@dataclass(frozen=True)
class Exported:
    """Say what an export wrote.

    Args:
        path: The file (for OpenVINO the .xml, whose .bin lies beside it).
        batch: Rows that the file takes at a time, None for any number.
        notes: What a reader must know, such as "exported for batch 1 only: REASON".
        holds_model: Of the framework's own form, whether the model itself can be read back, not only what it computes.
    """

    path: Path
    batch: int | None = None
    notes: tuple[str, ...] = ()
    holds_model: bool = True


@dataclass(frozen=True)
class Stepping:
    """Make single training steps of a copy of a model, to be timed.

    Args:
        step: Makes one step, and returns when it is done, on a GPU too.
        memory: Returns the bytes of a step; None where the framework does not tell.
        memory_words: What those bytes are.
    """

    step: Callable[[], None]
    memory: Callable[[], int | None]
    memory_words: str


def no_half(plan: TrainingPlan, error: Exception) -> ModelError:
    """Return the error of a model whose layers have no kernel in a half precision, or mix it with float32."""
    told = f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')[:200]}"
    return ModelError(f"layers that compute in {plan.precision}", told, "leave amp out")


class Framework(Protocol):
    """What nbopt asks of a framework.

    Models passed in are never mutated, except by `fit`, `initialise` and `load_state`.
    """

    name: str
    family: str
    """Whose exporters, runtimes and steps on the file serve it: its own name, or that of one it shares them with."""
    native_runtime: str
    """Runtime on which a user runs the model today: what the baseline is."""

    def owns(self, model: Any) -> bool:
        """Tell whether `model` is of this framework; must not import it."""
        ...

    def in_training_mode(self, model: Any) -> bool:
        """Tell whether calling the model now would drop out or update statistics."""
        ...

    def device(self, model: Any) -> str:
        """Return where the weights lie: "cpu", "cuda:0", "mps"."""
        ...

    def float_dtype(self, model: Any) -> str:
        """Return the NumPy name of the dtype that floating inputs should have."""
        ...

    def clone(self, model: Any) -> Any:
        """Return an independent copy in evaluation mode, weights and architecture."""
        ...

    def predict(self, model: Any, inputs: Inputs) -> np.ndarray[Any, Any]:
        """Return the primary output in evaluation mode for one batch of NumPy inputs."""
        ...

    def passed_over(self, model: Any, inputs: Inputs) -> str:
        """Return in words which of several outputs is judged, where nothing but its place says so; "" elsewhere."""
        ...

    def weights(self, model: Any) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
        """Yield name and value of every parameter and buffer, for hashing and counting."""
        ...

    def count(self, model: Any) -> tuple[int, int]:
        """Return the number of parameters, and of those that are not zero."""
        ...

    def declared_output(self, model: Any, loss: Any) -> OutputKind | None:
        """Return what the loss or the last layer's activation says of the output, None where neither tells."""
        ...

    def loss(self, model: Any, loss: Any, kind: OutputKind) -> tuple[Any, str]:
        """Return the loss to train with (the user's, or inferred from `kind`) and its plain name."""
        ...

    def fit(self, model: Any, plan: TrainingPlan, fitting: Fitting) -> TrainingRecord:
        """Train `model` in place by the plan; on return it is in evaluation mode with the kept state."""
        ...

    def check_devices(self, model: Any, plan: TrainingPlan, *, held: bool = False) -> None:
        """Refuse a plan that can't be carried out on as many devices as it asks for.

        Args:
            model: The model.
            plan: The plan, as far as it is known.
            held: Something changes the weights after each step.

        Raises:
            OptionError: The devices or the framework's means are not there, or something needs one process.
            ModelError: The model can't be copied to several devices.
            MissingExtra: A package that it takes is not installed.
        """
        ...

    def native_halves(self, model: Any) -> tuple[str, ...]:
        """Return the half precisions that a model can be trained in where it lies, "bfloat16" or "float16".

        Of a CPU they are those that the framework has kernels for, whether or not this CPU is fast at them.

        Raises:
            ModelError: The model is not in float32, as mixed precision wants weights to be.
        """
        ...

    def stepping(self, model: Any, plan: TrainingPlan, fitting: Fitting) -> Stepping:
        """Return what makes single steps of a plan, on a copy of the model and the first batch."""
        ...

    def initialise(self, model: Any, seed: int) -> Any:
        """Draw all weights of `model` anew, in place, and return it.

        Raises:
            ModelError: A layer has weights and no way to draw them.
        """
        ...

    def state(self, model: Any) -> Any:
        """Return a copy of all weights and buffers."""
        ...

    def load_state(self, model: Any, state: Any) -> None:
        """Put a copy from `state` back into `model`."""
        ...

    def exporting(self) -> AbstractContextManager[None]:
        """Keep what several exports of one model have in common while the context is open.

        Meanwhile no code but nbopt's changes a model: not each change by a user can be seen from outside.
        """
        ...

    def export(self, model: Any, signature: Signature, path: Path, form: str) -> Exported:
        """Write the model in one form: "torch", "keras", "onnx", "openvino" or "litert".

        Raises:
            ExportError: The model has an operation or control flow that the form can't hold.
        """
        ...


def _found() -> list[str]:
    return [module.name for module in iter_modules(__path__) if not module.name.startswith("_")]


def framework_named(name: str) -> Framework:
    """Return the framework that lives in `nbopt/frameworks/NAME.py`."""
    module = importlib.import_module(f"nbopt.frameworks.{name}")
    framework: Framework = module.FRAMEWORK
    return framework


def framework_of(model: Any) -> Framework:
    """Return the framework of a model, without importing one that the model is not of.

    Keras is asked before torch: a Keras model on the torch backend is a `torch.nn.Module` too.

    Raises:
        ModelError: It is not a model, or is a class instead of an instance.
    """
    for name in sorted(_found()):
        if name in sys.modules:
            framework = framework_named(name)
            if framework.owns(model):
                return framework
    came = f"the class {model.__name__}" if isinstance(model, type) else f"a {type(model).__name__}"
    hint = "call it to make an instance" if isinstance(model, type) else "pass the model object itself"
    if isinstance(model, dict):
        came, hint = "a dict (a state_dict?)", "load it into the model first: model.load_state_dict(...)"
    elif isinstance(model, (str, Path)):
        hint = "load it first: keras.models.load_model(path), or torch.load"
    raise ModelError("a torch.nn.Module, a keras.Model or a tf_keras.Model", came, hint)
