"""What a Keras model is called with."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from nbopt.batches import Inputs, leaves, numeric_inputs
from nbopt.frameworks._keras_dialect import policy_of, symbolic

UNTRACEABLE = (TypeError, NotImplementedError, AttributeError)
"""What TensorFlow raises where Python asks a tensor of a graph for its value; see `needs_values`."""


def needs_values(error: BaseException) -> bool:
    """Tell whether an UNTRACEABLE error came of Python in a user's `call` that needs values: `if x > 0`, `x.numpy()`.

    `model.predict` needs run_eagerly=True for such a model too.
    """
    told = (tf.errors.OperatorNotAllowedInGraphError, NotImplementedError)
    return isinstance(error, told) or "SymbolicTensor" in str(error)


def float_dtype(model: Any) -> str:
    """Return the NumPy name of the dtype that floating inputs should have."""
    name = str(policy_of(model).variable_dtype)
    inputs = symbolic(model, "_inputs_struct")
    for tensor in [] if inputs is None else tf.nest.flatten(inputs):
        if _dtype(tensor).startswith(("float", "bfloat")):
            name = _dtype(tensor)
            break
    # Keras casts inputs to what it computes in; NumPy has no bfloat16.
    return name if name in ("float16", "float32", "float64") else "float32"


def _dtype(tensor: Any) -> str:
    return str(getattr(tensor.dtype, "name", tensor.dtype))


def model_arguments(model: Any, inputs: Inputs) -> Any:
    """Return what the model is called with, as tensors: one, a list of several, or a dict."""
    arrays = numeric_inputs(inputs, float_dtype(model))
    if isinstance(arrays, dict):
        return {name: tf.convert_to_tensor(array) for name, array in arrays.items()}
    tensors = [tf.convert_to_tensor(array) for array in leaves(arrays)]
    return tensors[0] if len(tensors) == 1 else tensors
