"""Models of tf_keras made again from their configuration."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

import tensorflow as tf
import tf_keras

from nbopt.frameworks._keras_dialect import is_graph, layers_of, objects_by_name
from nbopt.frameworks._tf_keras_tfmot import PACKAGE


def rebuilt(model: Any) -> Any:
    """Return an uncompiled model of the same classes and shapes with weights of its own, None where that fails.

    A subclassed model is made again by its constructor, from `get_config`, and built as it was.
    """
    try:
        with known_classes(model):
            return _graph(model) if is_graph(model) else _subclassed(model)
    except (TypeError, ValueError, NotImplementedError, AttributeError, RuntimeError, KeyError):
        return None


def _graph(model: Any) -> Any:
    copied = tf_keras.models.clone_model(model, clone_function=twin)
    same = [v.shape for v in copied.variables] == [v.shape for v in model.variables]
    return copied if same and len(layers_of(copied)) == len(layers_of(model)) else None


def twin(layer: Any) -> Any:
    """Return a layer of the same configuration."""
    if isinstance(layer, tf_keras.Model):
        return rebuilt(layer)
    if type(layer) is not tf_keras.layers.Lambda:
        return type(layer).from_config(layer.get_config())
    # A Lambda's configuration holds its function as bytecode; the function itself is at hand.
    return tf_keras.layers.Lambda(
        layer.function, output_shape=layer._output_shape, arguments=layer.arguments, name=layer.name
    )


def _subclassed(model: Any) -> Any:
    copied = type(model).from_config(model.get_config())
    spec = getattr(model, "_saved_model_inputs_spec", None)
    if spec is None:
        copied.build(model._build_input_shape)
        return copied

    def zeros(leaf: Any) -> Any:
        return tf.zeros([1, *(size or 1 for size in leaf.shape[1:])], leaf.dtype)

    copied(tf.nest.map_structure(zeros, spec), training=False)
    return copied


def known_classes(model: Any) -> contextlib.AbstractContextManager[Any]:
    """Let tf_keras find the classes of a notebook, and those of TF-MOT, by name."""
    known = contextlib.ExitStack()
    known.enter_context(tf_keras.utils.custom_object_scope(objects_by_name(model)))
    if PACKAGE in sys.modules:
        known.enter_context(sys.modules[PACKAGE].quantization.keras.quantize_scope())
    return known
