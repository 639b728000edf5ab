"""What is asked of a framework: its weights, their importance, what depends on what, and a smaller model."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from nbopt.batches import Batch, Inputs
from nbopt.draft import Context
from nbopt.errors import DataError
from nbopt.narrowing.widths import Width
from nbopt.progress import silent

Array = np.ndarray[Any, Any]
Masks = Mapping[str, Array]

SCORED_ROWS = 1024
"""Rows of train that gradients are taken on: more change the order of units little."""
RECALIBRATED_ROWS = 2048


class Traced(Protocol):
    """Know what in a model can be made narrower."""

    model: Any
    """The model that was traced: a copy, with layers brought to a form that can be narrowed."""
    widths: Sequence[Width]
    notes: Sequence[str]

    def remove(self, model: Any, going: Mapping[str, Array]) -> Any:
        """Return a copy of `model`, of the traced one's form, without some units.

        Raises:
            ModelError: The smaller model does not run.
        """
        ...


class Lowering(Protocol):
    """Be `nbopt.narrowing._FRAMEWORK`."""

    def prunable_weights(self, model: Any) -> dict[str, Array]:
        """Return the weights of linear, convolution, recurrent and attention layers by name, as float32."""
        ...

    def tables(self, model: Any) -> list[str]:
        """Return the names of the weights of embedding tables, tied ones once."""
        ...

    def input_axes(self, model: Any) -> dict[str, int]:
        """Return, for each prunable weight, the axis along which the layer's inputs lie."""
        ...

    def shapes(self, model: Any) -> dict[str, tuple[int, ...]]:
        """Return the shapes of all that trains, by name."""
        ...

    def layers(self, model: Any) -> list[str]:
        """Return the names of all layers."""
        ...

    def put_zeros(self, model: Any, masks: Masks, kept: dict[str, Any]) -> None:
        """Zero, in place, the weights that masks leave out.

        Args:
            model: The model.
            masks: Which weights stay, by name.
            kept: Where the masks are kept in the framework's form between calls; empty at first.
        """
        ...

    def magnitudes(self, model: Any) -> dict[str, Array]:
        """Return the square of each weight, by name."""
        ...

    def scales(self, model: Any) -> dict[str, Array]:
        """Return the square of each BatchNorm's scale, by name."""
        ...

    def taylor(self, model: Any, loss: Any, batches: Iterator[Batch]) -> dict[str, Array]:
        """Return the mean over batches of (gradient times weight) squared, by name."""
        ...

    def recalibrate(self, model: Any, batches: Iterator[Batch]) -> int:
        """Measure BatchNorm's statistics again, in place; return how many layers that touched."""
        ...

    def sparse_word(self, model: Any) -> str:
        """Return in words whether zeros would be worth a sparse kernel here, "" where nothing was measured."""
        ...

    def lookups(self, model: Any, batches: Iterable[Batch]) -> dict[str, Array]:
        """Return how often each row of each embedding table is looked up, by the layer's name."""
        ...

    def with_shared_rows(self, model: Any, kept: Mapping[str, Array], batch: Batch) -> tuple[Any, dict[str, str]]:
        """Return a copy whose tables hold the rows that stay and one for the rest, and why a table was left whole.

        Args:
            model: It is not changed.
            kept: The rows that stay, by the layer's name.
            batch: On which it is tried whether a table is read by look-ups alone.
        """
        ...

    def trace(self, model: Any, example: Inputs) -> Traced:
        """Find what can be made narrower in a copy of the model, which may then be changed.

        Raises:
            ModelError: Nothing can.
        """
        ...


class InLayers(Protocol):
    """Hold zeros by means of the framework's own tools, in wrappers around layers: what `Holding` does from outside."""

    model: Any
    """The model with the wrappers."""
    note: str

    def pace(self, model: Any, done: float) -> bool:
        """Prune further where the schedule says so; return whether the target is reached."""
        ...

    def hold(self, model: Any) -> None:
        """Put the zeros back that a training step may have filled."""
        ...

    def finish(self, model: Any) -> Any:
        """Return the model without the wrappers."""
        ...


def in_layers(
    lowering: Lowering, model: Any, names: Sequence[str], share: float, schedule: str, rounds: int, ramp: float
) -> tuple[InLayers | None, str]:
    """Return the zeros of some weights held by the framework's own tools, or None and why it does not hold them.

    Args:
        lowering: To the framework; most have no such tool.
        model: The model, which is not changed.
        names: The weights.
        share: What goes in each.
        schedule: How it comes there: "one-shot", "iterative" or "cubic".
        rounds: How often it prunes.
        ramp: Share of the training after which a cubic schedule has ended.
    """
    wrapped = getattr(lowering, "in_layers", None)
    if wrapped is None:
        return None, ""
    found: tuple[InLayers | None, str] = wrapped(model, names, share, schedule, rounds, ramp)
    return found


def lowering_of(context: Context) -> Lowering:
    """Return the lowering to the workload's framework."""
    module: Any = importlib.import_module(f"nbopt.narrowing._{context.workload.framework.name}")
    lowering: Lowering = module.LOWERING
    return lowering


def some_of_train(context: Context, rows: int) -> Iterator[Batch]:
    """Yield the first batches of a pass over train, up to so many rows."""
    train = context.workload.train
    if train is not None:
        yield from train.some(rows, 128, context.rng())


@dataclass(frozen=True)
class Ranking:
    """Say what makes a weight important.

    Args:
        importance: "magnitude", "taylor" or "batchnorm".
        lowering: To the framework.
        context: Whose train rows and loss serve.
    """

    importance: str
    lowering: Lowering
    context: Context

    def __getstate__(self) -> dict[str, Any]:
        """Leave what another process has no use for: the kernel's progress and its measuring."""
        return {**vars(self), "context": replace(self.context, progress=silent, deploy=None)}

    def scores(self, model: Any) -> dict[str, Array]:
        """Return each weight's importance, squared, by name.

        Raises:
            DataError: Train has no labels, or ones that the loss does not take, or gradients on it are not finite.
        """
        if self.importance == "taylor":
            batches = map(_with_labels, some_of_train(self.context, SCORED_ROWS))
            found = self.lowering.taylor(model, self.context.workload.loss, batches)
            if not all(np.isfinite(scores).all() for scores in found.values()):
                raise DataError(
                    "finite gradients on train, which --importance taylor ranks by",
                    f"NaN or infinity on its first {SCORED_ROWS:,} rows",
                    "fill or drop rows with NaN and check the labels, or --importance magnitude",
                )
            return found
        if self.importance == "batchnorm":
            return self.lowering.scales(model)
        return {name: value for name, value in self.lowering.magnitudes(model).items() if not is_added(name)}


def _with_labels(batch: Batch) -> Batch:
    if batch.targets is None:
        raise DataError("labels in train", "batches without", "give (x, y), or a dict with 'labels'")
    return batch


def is_added(name: str) -> bool:
    """Tell whether a weight is added rather than multiplied with, by the name that layers give it.

    How large a bias is tells nothing of how much a unit matters: with biases and BatchNorm's beta among the norms, half
    of the channels of a Fashion-MNIST network cost 9 points after an epoch of fine-tuning; without them it gained one.
    """
    leaf = name.replace("/", ".").rpartition(".")[2]
    return "bias" in leaf or leaf == "beta"
