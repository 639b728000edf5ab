"""Train a Keras 3 model with the rounding of int8 in place.

TF-MOT takes models of tf_keras only (`rounding_tf_keras`), and `model.quantize` of Keras 3 rounds what was trained, for
storage. So the layers of a copy get a `call` that rounds: the model stays what it is, trains with the user's loss, and
every runtime quantizes it afterwards with its own means, to the same grid of weights for each channel.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from nbopt.draft import Context
from nbopt.errors import ModelError
from nbopt.frameworks._keras_call import model_arguments
from nbopt.frameworks._keras_dialect import layers_of
from nbopt.frameworks.keras import retrace
from nbopt.techniques._quantize.calibrating import calibration_batches
from nbopt.techniques._quantize.rounding import FOLLOWING, TINY, revived, weight_levels

if TYPE_CHECKING:
    from nbopt.techniques.quantize import Quantize

global_state = keras.src.backend.common.global_state
LAYERS = keras.layers
TRANSPOSED = (LAYERS.Conv1DTranspose, LAYERS.Conv2DTranspose, LAYERS.Conv3DTranspose)
PLAIN = (LAYERS.Dense, LAYERS.EinsumDense, LAYERS.Conv1D, LAYERS.Conv2D, LAYERS.Conv3D)
DEPTHWISE = (LAYERS.DepthwiseConv1D, LAYERS.DepthwiseConv2D)
SEPARABLE = (LAYERS.SeparableConv1D, LAYERS.SeparableConv2D)
RECURRENT = (LAYERS.RNN, LAYERS.Bidirectional)
IN_PLACE = True
KERNELS = ("_kernel", "kernel", "depthwise_kernel", "pointwise_kernel")


class Rounding:
    """Be the `call` of a layer: round inputs and kernels, and do what the layer does.

    Args:
        layer: The layer.
        axes: For each attribute that holds a kernel, the axes that share a step.
    """

    def __init__(self, layer: Any, axes: dict[str, tuple[int, ...]]) -> None:
        self.layer, self.axes, self.levels = layer, axes, weight_levels()
        self.plain = layer.call
        # Beside the layer and not in it: Keras would save them, and count them as weights.
        self.low, self.high = tf.Variable(0.0, trainable=False), tf.Variable(0.0, trainable=False)
        self.observing = True

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Run the layer."""
        if self.observing:
            self._widen(inputs)
            return self.plain(inputs, *args, **kwargs)
        if _is_training():
            self._widen(inputs)
        held = {name: vars(self.layer)[name] for name in self.axes}
        try:
            for name, variable in held.items():
                # Past Layer.__setattr__, which would track the rounded tensor as a weight.
                vars(self.layer)[name] = _rounded_weights(tf.convert_to_tensor(variable), self.axes[name], self.levels)
            return self.plain(_rounded(inputs, self.low, self.high), *args, **kwargs)
        finally:
            vars(self.layer).update(held)

    def settle(self) -> None:
        """Put the weights on their grid for good."""
        for name, axes in self.axes.items():
            variable = vars(self.layer)[name]
            variable.assign(_rounded_weights(tf.convert_to_tensor(variable), axes, self.levels))

    def moved_to(self, layer: Any) -> Rounding:
        """Return the same for a copy of the layer, with ranges of its own from here on."""
        copied = Rounding(layer, self.axes)
        copied.low.assign(self.low)
        copied.high.assign(self.high)
        copied.observing = self.observing
        return copied

    def _widen(self, inputs: Any) -> None:
        """Bring the range towards that of the inputs; wholly, and never narrower, while it is first taken."""
        x = tf.convert_to_tensor(inputs)
        if not x.dtype.is_floating:
            return
        low, high = (tf.cast(end, tf.float32) for end in (tf.reduce_min(x), tf.reduce_max(x)))
        if self.observing:
            self.low.assign(tf.minimum(self.low, low))
            self.high.assign(tf.maximum(self.high, high))
        else:
            self.low.assign_add(FOLLOWING * (tf.minimum(low, 0.0) - self.low))
            self.high.assign_add(FOLLOWING * (tf.maximum(high, 0.0) - self.high))


def _is_training() -> bool:
    """Tell whether the outermost call that runs is a training one; most layers are not told."""
    context = global_state.get_global_attribute("current_call_ctx")
    return context is not None and bool(context.get_value("training"))


def _rounded_weights(weights: Any, axes: tuple[int, ...], levels: int) -> Any:
    scale = tf.maximum(tf.reduce_max(tf.abs(weights), axes, keepdims=True) / levels, TINY)
    rounded = tf.clip_by_value(tf.round(weights / scale), -levels, levels) * scale
    return weights + tf.stop_gradient(rounded - weights)


def _rounded(x: Any, low: Any, high: Any) -> Any:
    x = tf.convert_to_tensor(x)
    if not x.dtype.is_floating:
        return x
    scale = tf.maximum((high - low) / 255, TINY)
    zero = tf.clip_by_value(tf.round(-low / scale), 0.0, 255.0)
    scale, zero = tf.cast(scale, x.dtype), tf.cast(zero, x.dtype)
    inside = tf.clip_by_value(x, -zero * scale, (255 - zero) * scale)  # no gradient passes where it is cut off
    return inside + tf.stop_gradient(tf.round(inside / scale) * scale - inside)


def with_rounding(model: Any, context: Context, options: Quantize) -> tuple[Any, Callable[[Any], Any], tuple[str, ...]]:
    """Put rounding into a model in place; see `rounding_torch.with_rounding`.

    Raises:
        ModelError: It has no layer whose rounding can be trained.
    """
    roundings = []
    recurrent = [layer for layer in layers_of(model) if isinstance(layer, RECURRENT)]
    inside = {id(part) for layer in recurrent for part in layer._flatten_layers(include_self=False, recursive=True)}
    for layer in layers_of(model):
        axes = _axes(layer) if id(layer) not in inside else {}
        if axes:
            roundings.append(Rounding(layer, axes))
            vars(layer)["call"] = roundings[-1]
    if not roundings:
        raise ModelError(
            "dense layers or convolutions, whose rounding can be trained",
            "none in this model",
            "--method static, or --method dynamic for recurrent layers",
        )
    batches, notes = calibration_batches(context, options)
    for batch in batches:
        model(model_arguments(model, batch), training=False)
    for rounding in roundings:
        rounding.observing = False
    retrace(model)
    outer = [layer.name for layer in recurrent if id(layer) not in inside]
    if outer:
        notes = (*notes, f"trained without rounding in recurrent layers: {', '.join(outer)}")
    before = [norm.moving_variance.numpy() for norm in _norms(model)]
    return model, partial(without_rounding, before=before), notes


def without_rounding(model: Any, before: Sequence[np.ndarray[Any, Any]] = ()) -> Any:
    """Take the rounding out, in place, so that a quantizer which calibrates on what is left finds what was trained.

    Args:
        model: What was trained; its weights stay on their grid.
        before: Variances of each BatchNorm before the training, in the order of the layers; see `revived`.
    """
    for layer in layers_of(model):
        rounding = vars(layer).get("call")
        if isinstance(rounding, Rounding):
            rounding.settle()
            del vars(layer)["call"]
    for norm, variance in zip(_norms(model), before, strict=False):
        norm.moving_variance.assign(revived(norm.moving_variance.numpy(), variance))
    retrace(model)
    return model


def _norms(model: Any) -> list[Any]:
    return [layer for layer in layers_of(model) if isinstance(layer, LAYERS.BatchNormalization)]


def _axes(layer: Any) -> dict[str, tuple[int, ...]]:
    """Return the kernels of a layer with the axes that share a step."""
    if not isinstance(layer, (*PLAIN, *TRANSPOSED, *DEPTHWISE, *SEPARABLE)):
        return {}
    found: dict[str, tuple[int, ...]] = {}
    for name in KERNELS:
        kernel = vars(layer).get(name)
        if not isinstance(kernel, keras.Variable):
            continue
        count = len(kernel.shape)
        channels: tuple[int, ...] = (count - 1,)
        if isinstance(layer, TRANSPOSED):
            channels = (count - 2,)
        elif isinstance(layer, DEPTHWISE) or name == "depthwise_kernel":
            channels = (count - 2, count - 1)
        elif isinstance(layer, LAYERS.EinsumDense):
            terms = re.split(",|->", layer.equation)
            channels = tuple(axis for axis, letter in enumerate(terms[1]) if letter in terms[2])
        found[name] = tuple(axis for axis in range(count) if axis not in channels)
    return found
