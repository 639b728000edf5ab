"""Keras 3 on TensorFlow: copy, run, count, and what its losses and layers say of the output."""

from __future__ import annotations

import contextlib
import logging
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nbopt.batches import Inputs
from nbopt.errors import DataError, ModelError, OptionError
from nbopt.frameworks import Exported, Fitting, OutputKind, Signature, Stepping
from nbopt.frameworks._primary import passed_over, primary_output
from nbopt.training import TrainingPlan, TrainingRecord

_forwards: weakref.WeakKeyDictionary[Any, tuple[Any, Callable[[Any], Any]]] = weakref.WeakKeyDictionary()


class KerasFramework:
    """Do for `keras.Model` what techniques need. `nbopt.frameworks.keras` is imported once keras is."""

    name = "keras"
    family = "keras"
    native_runtime = "keras"

    def owns(self, model: Any) -> bool:
        """Tell whether `model` is a `keras.Model`.

        Raises:
            ModelError: It is one, but on a backend other than TensorFlow, or without weights yet.
        """
        keras = sys.modules.get("keras")
        if keras is None or not isinstance(model, keras.Model):
            return False
        backend = keras.backend.backend()
        if backend != "tensorflow":
            raise ModelError(
                "Keras on its TensorFlow backend",
                f"the {backend} backend",
                'os.environ["KERAS_BACKEND"] = "tensorflow" before the first import of keras, and load the model again',
            )
        self._refuse_unbuilt(model)
        return True

    def _refuse_unbuilt(self, model: Any) -> None:
        if not model.built:
            raise ModelError(
                "a model with weights",
                f"{type(model).__name__} {model.name!r}, which has not been built",
                "train it, or call it once on a batch: model(x)",
            )

    def in_training_mode(self, model: Any) -> bool:
        """Return False: a Keras model is told at each call."""
        return False

    def device(self, model: Any) -> str:
        """Return where the first weight lies: "cpu", or "cuda:0" for the first GPU."""
        from nbopt.frameworks._keras_dialect import raw

        for variable in model.weights:
            kind, _, index = str(raw(variable).device).rpartition("device:")[2].lower().partition(":")
            return f"cuda:{index or 0}" if kind == "gpu" else "cpu"
        return "cpu"

    def float_dtype(self, model: Any) -> str:
        """Return the NumPy name of the dtype that floating inputs should have."""
        from nbopt.frameworks import _keras_call

        return _keras_call.float_dtype(model)

    def clone(self, model: Any) -> Any:
        """Return an independent, uncompiled copy.

        Raises:
            ModelError: It can't be copied, or the copy's outputs differ.
        """
        import tensorflow as tf

        from nbopt.frameworks import _keras_copy

        copied = _keras_copy.copy_model(model)
        probe = _keras_copy.probe(model)
        if probe is None:
            return copied
        try:
            theirs = self.predict(model, probe)
        except tf.errors.InvalidArgumentError:
            return copied  # the model checks its inputs, and made-up ones are not what it is for
        ours = self.predict(copied, probe)
        # A model that gives other outputs each time can't be compared.
        if not _alike(ours, theirs) and _alike(self.predict(model, probe), theirs):
            raise ModelError(
                "a model whose copy gives the same outputs",
                f"outputs that differ by up to {np.max(np.abs(ours - theirs)):.3g}",
                "let get_config() return every argument of the constructor of your own layers",
            )
        return copied

    def predict(self, model: Any, inputs: Inputs) -> np.ndarray[Any, Any]:
        """Return the primary output in evaluation mode for one batch."""
        from nbopt.frameworks import _keras_call

        arguments = _keras_call.model_arguments(model, inputs)
        output = np.asarray(_run(model, arguments))
        # NumPy itself has no bfloat16, and metrics in float16 would overflow.
        return output.astype(np.float32) if output.dtype.name in ("bfloat16", "float16") else output

    def passed_over(self, model: Any, inputs: Inputs) -> str:
        """Return in words which of several outputs is judged, where nothing but its place says so; "" elsewhere."""
        from nbopt.frameworks import _keras_call

        return passed_over(model(_keras_call.model_arguments(model, inputs), training=False))

    def weights(self, model: Any) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
        """Yield each weight and BatchNorm statistic by path; states of random generators are left out."""
        from nbopt.frameworks._keras_dialect import path_of

        for index, variable in enumerate(model.weights):
            yield f"{index}:{path_of(variable)}", variable.numpy()

    def count(self, model: Any) -> tuple[int, int]:
        """Return the number of weights that train or trained, and of those that are not zero.

        BatchNorm's moving statistics are buffers and don't count, as in torch.
        """
        from nbopt.frameworks._keras_dialect import name_of

        total = nonzero = 0
        for variable in model.weights:
            if name_of(variable).startswith(("moving_mean", "moving_variance")):
                continue
            value = variable.numpy()
            total += value.size
            nonzero += int(np.count_nonzero(value))
        return total, nonzero

    def declared_output(self, model: Any, loss: Any) -> OutputKind | None:
        """Return what the last activation or the loss says of the output."""
        from nbopt.frameworks import _keras_losses

        return _keras_losses.declared_output(model, loss)

    def loss(self, model: Any, loss: Any, kind: OutputKind) -> tuple[Any, str]:
        """Return the loss to train with and its plain name: the user's, the compiled one, or an inferred one."""
        from nbopt.frameworks import _keras_losses

        return _keras_losses.loss_for(model, loss, kind)

    def fit(self, model: Any, plan: TrainingPlan, fitting: Fitting) -> TrainingRecord:
        """Train `model` in place by the plan."""
        from nbopt.frameworks import _keras_fit

        self.check_devices(model, plan)
        return _keras_fit.fit(self, model, plan, fitting)

    def check_devices(self, model: Any, plan: TrainingPlan, *, held: bool = False) -> None:
        """Refuse a plan for several devices: TensorFlow's way to those is another one than this loop's.

        `tf.distribute.MirroredStrategy` mirrors variables that are made in its scope, and no others: model, optimizer
        and loop would have to be made there, of the user's layers and functions, which know nothing of it.
        """
        if plan.devices > 1:
            raise OptionError(
                "--devices for a PyTorch model; a Keras model trains on one device here",
                f"--devices {plan.devices} for a Keras model",
                "leave --devices out; or build, compile and fit the model in tf.distribute.MirroredStrategy().scope() "
                "and bind the result",
            )

    def native_halves(self, model: Any) -> tuple[str, ...]:
        """Return the half precisions that the model can be trained in where it lies."""
        from nbopt.frameworks._keras_precision import native_halves

        return native_halves(model)

    def stepping(self, model: Any, plan: TrainingPlan, fitting: Fitting) -> Stepping:
        """Return what makes single steps of a plan, on a copy of the model and the first batch."""
        from nbopt.frameworks import _keras_steps

        return _keras_steps.stepping(self.clone(model), plan, fitting)

    def initialise(self, model: Any, seed: int) -> Any:
        """Draw all weights anew, in place."""
        from nbopt.frameworks import _keras_initial

        return _keras_initial.initialise(model, seed)

    def state(self, model: Any) -> list[np.ndarray[Any, Any]]:
        """Return a copy of all weights, BatchNorm statistics and states of random generators."""
        return [np.array(variable.numpy()) for variable in model.variables]

    def load_state(self, model: Any, state: list[np.ndarray[Any, Any]]) -> None:
        """Put a copy from `state` back into `model`."""
        for variable, value in zip(model.variables, state, strict=True):
            variable.assign(value)

    def exporting(self) -> contextlib.AbstractContextManager[None]:
        """Keep nothing: TensorFlow's converters share no step."""
        return contextlib.nullcontext()

    def export(self, model: Any, signature: Signature, path: Path, form: str) -> Exported:
        """Write the model as "keras", "onnx", "openvino" or "litert"."""
        from nbopt.frameworks import _keras_export

        return _keras_export.export(self, model, signature, path, form)


def _alike(ours: np.ndarray[Any, Any], theirs: np.ndarray[Any, Any]) -> bool:
    return np.allclose(ours, theirs, rtol=1e-4, atol=1e-5, equal_nan=True)


def _run(model: Any, arguments: Any) -> Any:
    """Return the primary output, eagerly where the model's `call` is Python that TensorFlow can't trace."""
    import tensorflow as tf

    from nbopt.frameworks._keras_call import UNTRACEABLE, needs_values

    if not model.run_eagerly:
        logger = tf.get_logger()
        level = logger.level
        # TensorFlow's advice on retracing is about functions that the user writes; each candidate here is a model
        # of its own and must be traced.
        logger.setLevel(logging.ERROR)
        try:
            return _forward(model)(arguments)
        except UNTRACEABLE as error:
            if not needs_values(error):
                raise
        finally:
            logger.setLevel(level)
    return primary_output(model(arguments, training=False))


def _forward(model: Any) -> Callable[[Any], Any]:
    """Return the model as a compiled function in evaluation mode, kept while the model lives.

    Calling a Keras model eagerly costs a millisecond a layer. As with `model.predict`, a change that is neither
    of layers, weights, activations nor dtype policies is not seen by a function that was traced before it.
    """
    import tensorflow as tf

    from nbopt.frameworks._keras_dialect import layers_of, policy_of

    mark = (
        *(id(variable) for variable in model.variables),
        *((id(x), id(policy_of(x)), id(getattr(x, "activation", None))) for x in layers_of(model)),
    )
    kept = _forwards.get(model)
    if kept is not None and kept[0] == mark:
        return kept[1]
    reference = weakref.ref(model)  # the function must not keep its own key alive

    def forward(arguments: Any) -> Any:
        live = reference()
        if live is None:
            raise DataError("a model that still exists")
        return primary_output(live(arguments, training=False))

    function: Callable[[Any], Any] = tf.function(forward, autograph=False, reduce_retracing=True)
    _forwards[model] = (mark, function)
    return function


def retrace(model: Any) -> None:
    """Forget the compiled function of a model, after a change of how its layers compute."""
    _forwards.pop(model, None)


FRAMEWORK = KerasFramework()
