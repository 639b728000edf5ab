"""Kinds of Keras layers and functions, by what they do to channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# Layers that treat each channel by itself and keep the last axis.
PASSING = {
    "Activation", "ReLU", "LeakyReLU", "ELU", "Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D",
    "GaussianNoise", "GaussianDropout", "AlphaDropout", "Identity", "ActivityRegularization", "Rescaling",
    "MaxPooling1D", "MaxPooling2D", "MaxPooling3D", "AveragePooling1D", "AveragePooling2D", "AveragePooling3D",
    "GlobalMaxPooling1D", "GlobalMaxPooling2D", "GlobalMaxPooling3D", "GlobalAveragePooling1D",
    "GlobalAveragePooling2D", "GlobalAveragePooling3D", "ZeroPadding1D", "ZeroPadding2D", "ZeroPadding3D",
    "Cropping1D", "Cropping2D", "Cropping3D", "UpSampling1D", "UpSampling2D", "UpSampling3D",
}  # fmt: skip
# Functions of `keras.ops` that do the same.
PASSING_OPS = {
    "Relu", "Relu6", "Sigmoid", "Tanh", "Silu", "Gelu", "HardSigmoid", "HardSilu", "LeakyRelu", "Elu", "Selu",
    "Softplus", "Cast", "Absolute", "Square", "Sqrt", "Exp", "Negative", "Clip",
}  # fmt: skip
# Layers and functions that work along an axis, and treat each channel by itself where that is not the last.
ALONG = {"Softmax", "LogSoftmax", "Sum", "Mean", "Max", "Min", "Var", "Std", "Flip", "Roll", "Cumsum", "GetItem"}
# Layers and functions that combine equal positions of several tensors.
JOINING = {"Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"}
ELEMENTWISE = {
    "linear", "relu", "relu6", "sigmoid", "tanh", "silu", "swish", "gelu", "elu", "selu", "softplus", "softsign",
    "hard_sigmoid", "hard_silu", "hard_swish", "hard_tanh", "leaky_relu", "exponential", "mish", "celu",
    "log_sigmoid", "squareplus", "soft_shrink", "hard_shrink", "tanh_shrink", "threshold",
}  # fmt: skip
GATES = {"LSTM": 4, "GRU": 3, "SimpleRNN": 1}


def spares_channels(operation: Any, node: Any, shape: Sequence[int | None]) -> bool:
    """Tell whether a layer or function of `ALONG` leaves the last axis alone.

    Args:
        operation: The layer or function.
        node: Its call.
        shape: Of its input, the batch included.
    """
    rank = len(shape)
    if type(operation).__name__ == "GetItem":
        given = (*node.arguments.args[1:], *node.arguments.kwargs.values())
        keys = given[0] if len(given) == 1 else None
        keys = keys if isinstance(keys, tuple) else (keys,)
        plain = all(isinstance(key, (int, slice)) for key in keys)  # `...` and None would move the axes
        return plain and (len(keys) < rank or keys[-1] == slice(None))
    axis = getattr(operation, "axis", None)
    axes = axis if isinstance(axis, (list, tuple)) else (axis,)
    return all(isinstance(each, int) and each % rank != rank - 1 for each in axes)
