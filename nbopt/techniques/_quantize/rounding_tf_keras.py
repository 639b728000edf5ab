"""Train a tf_keras model with the rounding of int8 in place: TF-MOT's `quantize_model`.

LiteRT's converter takes the ranges that were trained from the fake quantizers, which become the file's int8. The other
runtimes get the model without them, and quantize what was trained by their own means, as they do for Keras 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import tensorflow as tf
import tf_keras

from nbopt.draft import Context
from nbopt.errors import ModelError
from nbopt.frameworks._keras_call import model_arguments
from nbopt.frameworks._keras_copy import copy_model
from nbopt.frameworks._keras_dialect import is_graph, name_of, source_of
from nbopt.frameworks._quiet import quiet
from nbopt.frameworks._tf_keras_copy import known_classes, twin
from nbopt.frameworks._tf_keras_tfmot import tfmot
from nbopt.techniques._quantize.calibrating import calibration_batches
from nbopt.techniques._quantize.rounding import range_of_zero

if TYPE_CHECKING:
    from nbopt.techniques.quantize import Quantize

LAYERS = tf_keras.layers
IN_PLACE = False
"""The model that trains is another one: masks of the model before it would be put on the wrong weights."""
BEFORE_NORM = (LAYERS.Conv2D, LAYERS.DepthwiseConv2D, LAYERS.Conv2DTranspose, LAYERS.Dense)
"""Layers that TF-MOT takes together with the BatchNorm after them; it knows no other BatchNorm."""

Range = tuple[float, float]
_trained: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()


def with_rounding(model: Any, context: Context, options: Quantize) -> tuple[Any, Callable[[Any], Any], tuple[str, ...]]:
    """Return a model with TF-MOT's fake quantizers; see `rounding_torch.with_rounding`.

    Raises:
        MissingExtra: TF-MOT is not installed.
        ModelError: TF-MOT does not take the model.
    """
    quantization = tfmot("qat of tf_keras models").quantization.keras
    if not is_graph(model) or any(isinstance(layer, tf_keras.Model) for layer in model.layers):
        raise ModelError(
            "a functional or Sequential model without models in it, as TF-MOT takes for qat",
            f"{type(model).__name__} {model.name!r}",
            "--method static, or put the layers of the inner models into one",
        )
    rounded = {layer.name for layer in model.layers if _supports(layer)}
    plain = [layer.name for layer in model.layers if layer.weights and layer.name not in rounded]
    if not any(layer.weights for layer in model.layers if layer.name in rounded):
        raise ModelError(
            "dense layers or convolutions in two dimensions, whose rounding TF-MOT can train",
            "none in this model",
            "--method static, or --method dynamic for recurrent layers",
        )
    batches, notes = calibration_batches(context, options)

    def annotated(layer: Any) -> Any:
        made = twin(layer)
        return quantization.quantize_annotate_layer(made) if layer.name in rounded else made

    try:
        with quiet(), known_classes(model):
            marked = tf_keras.models.clone_model(model, clone_function=annotated)
            marked.set_weights(model.get_weights())
            made = quantization.quantize_apply(marked)
    except (ValueError, RuntimeError, TypeError, KeyError, AttributeError) as error:
        told = (str(error).strip().splitlines() or [""])[0]
        raise ModelError(
            "a model that TF-MOT can quantize", f"{type(error).__name__}: {told}"[:300], "--method static"
        ) from error
    for layer in made.layers:
        layer.trainable = model.get_layer(_name_of(layer)).trainable if _name_of(layer) in _names(model) else True
    _set_ranges(made, model, batches)
    if plain:
        notes = (*notes, f"trained without rounding in {', '.join(plain[:4])}{', ...' if plain[4:] else ''}")

    def finish(trained: Any) -> Any:
        """Return the model without fake quantizers, and remember the one with them for LiteRT."""
        _round_weights(trained)
        bare = copy_model(model)
        _put_weights(bare, trained)
        _trained[bare] = trained
        return bare

    return made, finish, (*notes, "trained with TF-MOT's fake quantizers")


def with_ranges(model: Any) -> Any:
    """Return the model with the fake quantizers that a model was trained with, None where there is none."""
    return _trained.get(model)


def fake_quantized(model: Any) -> bool:
    """Tell whether a model holds TF-MOT's fake quantizers."""
    return bool(list(_wrappers(model)))


def _supports(layer: Any) -> bool:
    """Tell whether TF-MOT takes a layer, so that its weights are found again afterwards (it splits separable ones)."""
    from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import (
        default_8bit_quantize_registry as registry,
    )

    if isinstance(layer, LAYERS.BatchNormalization):
        if len(layer._inbound_nodes) != 1 or not hasattr(layer.input, "_keras_history"):
            return False
        before, _ = source_of(layer.input)
        linear = getattr(getattr(before, "activation", None), "__name__", "linear") == "linear"
        return isinstance(before, BEFORE_NORM) and linear and _supports(before)
    return bool(registry.Default8BitQuantizeRegistry().supports(layer))


def _wrappers(model: Any) -> Iterable[Any]:
    from tensorflow_model_optimization.python.core.quantization.keras.quantize_wrapper import QuantizeWrapper

    return (layer for layer in model.layers if isinstance(layer, QuantizeWrapper))


def _name_of(layer: Any) -> str:
    return str(layer.layer.name if hasattr(layer, "quantize_config") and hasattr(layer, "layer") else layer.name)


def _names(model: Any) -> set[str]:
    return {layer.name for layer in model.layers}


def _set_ranges(made: Any, plain: Any, batches: list[Any]) -> None:
    """Give every fake quantizer the range that its values have, before the first step.

    TF-MOT starts each at -6 to 6 and moves it by a thousandth a step: what a short training ends with is mostly that.
    """
    ranges, before = _ranges(plain, batches)
    for layer in made.layers:
        if hasattr(layer, "quantizer_vars"):  # of the input
            source, _ = source_of(layer.input)
            _assign(layer.quantizer_vars, ranges.get(source.name))
    for wrapper in _wrappers(made):
        name = wrapper.layer.name
        _assign(getattr(wrapper, "_output_quantizer_vars", None), ranges.get(name))
        for activation in getattr(wrapper, "_quantize_activations", ()):
            _assign(getattr(activation, "_post_activation_vars", None), ranges.get(name))
            _assign(getattr(activation, "_pre_activation_vars", None), before.get(name))
    _round_weights(made)


def _assign(variables: Mapping[str, Any] | None, found: Range | None) -> None:
    if variables and found is not None:
        scale, zero = range_of_zero(*found)
        variables["min_var"].assign(-zero * scale)
        variables["max_var"].assign((255 - zero) * scale)


def _round_weights(model: Any) -> None:
    """Bring the ranges of the weights to what the weights are: TF-MOT does it within a step, before they change."""
    for wrapper in _wrappers(model):
        for weight, quantizer, variables in wrapper._weight_vars:
            quantizer(weight, True, weights=variables)


def _ranges(model: Any, batches: list[Any]) -> tuple[dict[str, Range], dict[str, Range]]:
    """Return the extremes of each layer's output, and of what its activation function is given."""
    single = [x for x in model.layers if len(x._inbound_nodes) == 1 and hasattr(x.output, "dtype")]
    outputs = {x.name: x.output for x in single if x.output.dtype.is_floating}
    # Those of a Sequential model are not among its layers.
    outputs |= {source_of(tensor)[0].name: tensor for tensor in model.inputs if tensor.dtype.is_floating}
    active = [x for x in single if x.name in outputs and isinstance(x, BEFORE_NORM)]
    probe = tf_keras.Model(model.inputs, {"made": outputs, "given": {x.name: x.input for x in active}})
    made: dict[str, Range] = {}
    before: dict[str, Range] = {}
    for batch in batches:
        values = probe(model_arguments(model, batch), training=False)
        for name, value in values["made"].items():
            _widen(made, name, value)
        for layer in active:
            own, layer.activation = layer.activation, tf_keras.activations.linear
            try:
                _widen(before, layer.name, layer(values["given"][layer.name]))
            finally:
                layer.activation = own
    return made, before


def _widen(ranges: dict[str, Range], name: str, value: Any) -> None:
    low, high = ranges.get(name, (np.inf, -np.inf))
    ranges[name] = min(low, float(tf.reduce_min(value))), max(high, float(tf.reduce_max(value)))


def _put_weights(bare: Any, trained: Any) -> None:
    """Copy the weights of a model with fake quantizers into one without, layer by layer and by name.

    Raises:
        ModelError: TF-MOT has made other layers of some.
    """
    made = {_name_of(layer): layer for layer in trained.layers}
    for layer in bare.layers:
        known = {(name_of(v), tuple(v.shape)): v for v in made[layer.name].weights} if layer.name in made else {}
        for variable in layer.weights:
            source = known.get((name_of(variable), tuple(variable.shape)))
            if source is None:
                raise ModelError(
                    "layers that TF-MOT keeps", f"{layer.name}, of which it makes others", "--method static"
                )
            variable.assign(source)
