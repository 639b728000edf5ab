"""What Keras 3 and Keras 2 (tf_keras) say in two ways. The verbs of both are the same files and ask here.

A model is of the one whose classes it is made of; both may live in one kernel, and nothing here depends on settings of
the process such as TF_USE_LEGACY_KERAS.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import Any

import tensorflow as tf

LEGACY = "tf_keras"
MODULES = ("keras", LEGACY)
_STRUCTURES = {"_inputs_struct": "_nested_inputs", "_outputs_struct": "_nested_outputs"}


def is_legacy(thing: Any) -> bool:
    """Tell whether a model, a layer or a loss is of tf_keras; no module is imported for it."""
    kind = thing if isinstance(thing, type) else type(thing)
    return any(cls.__module__.partition(".")[0] == LEGACY for cls in kind.__mro__)


def keras_of(thing: Any) -> Any:
    """Return the module, keras or tf_keras, that a model, a layer or a loss is of."""
    return importlib.import_module(LEGACY if is_legacy(thing) else "keras")


def kinds(*names: str) -> tuple[Any, ...]:
    """Return the classes of some names, such as "layers.Dense", in each Keras that is imported."""
    found = []
    for module in (sys.modules.get(name) for name in MODULES):
        for name in names if module is not None else ():
            room, _, word = name.rpartition(".")
            kind = getattr(getattr(module, room) if room else module, word, None)
            found += [] if kind is None else [kind]
    return tuple(found)


def is_own(module: str) -> bool:
    """Tell whether a class or a function of a module is Keras' own, by the module's name."""
    return module.partition(".")[0] in MODULES


def layers_of(model: Any) -> list[Any]:
    """Return every layer of a model, parents before children, the model itself left out."""
    return list(model._flatten_layers(include_self=False, recursive=True))


def objects_by_name(model: Any) -> dict[str, Any]:
    """Return the classes and functions that the layers use, so that Keras finds those of a notebook."""
    found: dict[str, Any] = {}
    for layer in layers_of(model):
        found[type(layer).__name__] = type(layer)
        for value in vars(layer).values():
            if isinstance(value, types.FunctionType):
                found[value.__name__] = value
            elif hasattr(value, "get_config"):
                found[type(value).__name__] = type(value)
    return {name: value for name, value in found.items() if not is_own(value.__module__)}


def symbolic(model: Any, which: str) -> Any:
    """Return `_inputs_struct` or `_outputs_struct` of a functional or built Sequential model, None of others."""
    if is_legacy(model):
        return getattr(model, _STRUCTURES[which], None) if is_graph(model) else None
    functional = getattr(model, "_functional", None)
    return getattr(model if functional is None else functional, which, None)


def is_graph(model: Any) -> bool:
    """Tell whether the model is functional or Sequential, with `call` not overridden."""
    keras = keras_of(model)
    if isinstance(model, keras.Sequential):
        return type(model).call is keras.Sequential.call
    rooms = keras.src.engine if is_legacy(model) else keras.src.models
    functional = rooms.functional.Functional
    return isinstance(model, functional) and type(model).call is functional.call


def source_of(tensor: Any) -> tuple[Any, Any]:
    """Return the layer or operation that makes a symbolic tensor, and its call that does."""
    history = tensor._keras_history
    operation = history.operation if hasattr(history, "operation") else history.layer
    return operation, operation._inbound_nodes[history.node_index]


def inputs_of(node: Any) -> list[Any]:
    """Return the symbolic tensors that a call of a layer is given."""
    arguments = getattr(node, "arguments", None)
    return list(node.keras_inputs if arguments is None else arguments.keras_tensors)


def policy_of(layer: Any) -> Any:
    """Return a layer's dtype policy."""
    return layer._dtype_policy if is_legacy(layer) else layer.dtype_policy


def set_policy(layer: Any, name: str) -> None:
    """Let a layer compute by another dtype policy."""
    if is_legacy(layer):
        layer._set_dtype_policy(keras_of(layer).mixed_precision.Policy(name))
    else:
        layer.dtype_policy = name


def own_variables(layer: Any) -> list[Any]:
    """Return the variables of a layer itself, those of the layers in it left out."""
    if is_legacy(layer):
        return [*layer._trainable_weights, *layer._non_trainable_weights]
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def path_of(variable: Any) -> str:
    """Return a variable's name with the layers that it lies in: "block/conv/kernel"."""
    return str(getattr(variable, "path", variable.name)).partition(":")[0]


def name_of(variable: Any) -> str:
    """Return a variable's own name: "kernel"."""
    return path_of(variable).rpartition("/")[2]


def raw(variable: Any) -> Any:
    """Return TensorFlow's variable, which Keras 3 wraps."""
    return variable if isinstance(variable, tf.Variable) else variable.value


def generators_of(layer: Any) -> list[Any]:
    """Return the variables that a random layer counts its draws in."""
    if not is_legacy(layer):
        return [generator.state for generator in layer._seed_generators]
    generator = getattr(layer, "_random_generator", None)
    if generator is None:
        return []
    generator._maybe_init()
    return [] if generator._generator is None else [generator._generator.state]


def is_compiled(model: Any) -> bool:
    """Tell whether `compile` was called on a model."""
    return bool(getattr(model, "_is_compiled" if is_legacy(model) else "compiled", False))
