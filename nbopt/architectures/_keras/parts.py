"""What may change in a functional Keras model beside its widths: kernels that can be cropped, branches that can go."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from nbopt.architectures.parts import Block, Kernel
from nbopt.batches import Inputs
from nbopt.frameworks._keras_copy import follow_weights, twin, uncompiled
from nbopt.frameworks._keras_dialect import is_graph, layers_of, objects_by_name
from nbopt.narrowing._keras.naming import names_of

_L = keras.layers
CONVOLUTIONS = (_L.Conv1D, _L.Conv2D, _L.Conv3D)

THROUGH = {"Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "ReLU", "Identity"}
"""Layers that give zero for zero, so that the branch is silent where what comes before them is."""

SILENT = {"linear", "relu", "relu6", "tanh", "silu", "swish", "gelu", "elu", "selu", "leaky_relu", "softsign"}
"""Activations that give zero for zero."""


def kernels_of(model: Any) -> list[Kernel]:
    """Return the convolutions whose kernels can be cropped around their centre: odd, of one size, padded, unstrided.

    With a stride TensorFlow pads by what is left over at the end, so that a smaller kernel would look at other places.
    """
    names = names_of(model)
    found = []
    # Of the graph itself: a model in it is made again from its configuration, as a whole.
    for layer in model.layers if is_graph(model) else ():
        if type(layer) not in CONVOLUTIONS or layer.padding != "same" or len({*layer.kernel_size}) > 1:
            continue
        size = layer.kernel_size[0]
        if size < 3 or size % 2 == 0 or any(step != 1 for step in layer.strides) or id(layer.kernel) not in names:
            continue
        axes = tuple(range(len(layer.kernel_size)))
        found.append(Kernel(layer.name, names[id(layer.kernel)], axes, size))
    return found


def blocks_of(model: Any, _: Inputs) -> list[Block]:
    """Return the branches that are added to what they were given, in the order of the graph."""
    names = names_of(model)
    found = []
    for node, place, inside in _branches(model):
        ends = _ends(node.arguments.keras_tensors[1 - place], _producers(model), names)
        if ends:
            layers = tuple(each.operation.name for each in inside)
            found.append(Block(node.operation.name, ends, layers))
    return found


def layer_names(model: Any) -> Mapping[str, str]:
    """Return the layer of the model's own graph that each weight is of."""
    names = names_of(model)
    return {
        names[id(variable)]: layer.name
        for layer in model.layers
        for variable in layer.variables
        if id(variable) in names
    }


def cropped(model: Any, kernels: Mapping[str, int]) -> Any:
    """Return a copy with smaller kernels."""
    changed = {
        layer.name: kernels[layer.name]
        for layer in model.layers
        if layer.name in kernels and layer.kernel_size[0] != kernels[layer.name]
    }
    if not changed:
        return model

    def resized(layer: Any) -> Any:
        if layer.name not in changed:
            return twin(layer)
        size = (changed[layer.name],) * len(layer.kernel_size)
        # Without build_config, which would build it for the kernel that it had.
        config = {key: value for key, value in layer.get_config().items() if key != "build_config"}
        return type(layer).from_config({**config, "kernel_size": size})

    return _remade(model, resized)


def without(model: Any, blocks: frozenset[str]) -> Any:
    """Return a copy in which some branches are not added."""
    if not blocks:
        return model
    places = {node.operation.name: place for node, place, _ in _branches(model) if node.operation.name in blocks}
    originals: dict[int, str] = {}

    def same(layer: Any) -> Any:
        made = twin(layer)
        originals[id(made)] = layer.name
        return made

    def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
        place = places.get(originals.get(id(operation), ""))
        if place is None:
            return operation(*args, **kwargs)
        return keras.tree.flatten((args, kwargs))[place]

    return _remade(model, same, call)


def _remade(model: Any, layer_of: Callable[[Any], Any], call: Callable[..., Any] | None = None) -> Any:
    """Return the model made again, with the weights that its layers still have, kernels cropped around their centre."""
    with keras.saving.custom_object_scope(objects_by_name(model)):
        options = {} if call is None else {"call_function": call}
        made = keras.models.clone_model(uncompiled(model), clone_function=layer_of, **options)
    known = {layer.name: layer for layer in layers_of(model)}
    for layer in layers_of(made):
        source = known.get(layer.name)
        if source is None:
            continue
        layer.trainable = source.trainable
        for variable, target in zip(source.variables, layer.variables, strict=True):
            target.assign(_centre(variable.numpy(), tuple(target.shape)))
    follow_weights(made)
    return made


def _centre(value: np.ndarray[Any, Any], shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    rims = [(had - has) // 2 for had, has in zip(value.shape, shape, strict=True)]
    return value[tuple(slice(rim, rim + has) for rim, has in zip(rims, shape, strict=True))]


def _nodes(model: Any) -> list[Any]:
    functional = getattr(model, "_functional", None) or model
    by_depth = getattr(functional, "_nodes_by_depth", {})
    return [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth] if not node.is_input]


def _producers(model: Any) -> dict[int, Any]:
    return {id(tensor): node for node in _nodes(model) for tensor in node.outputs}


def _branches(model: Any) -> list[tuple[Any, int, list[Any]]]:
    """Return the nodes that add a branch to what it was given, which of their inputs that is, and the branch."""
    if not is_graph(model):
        return []
    nodes, producers = _nodes(model), _producers(model)
    often: dict[int, int] = {}
    users: dict[int, set[int]] = {}
    for node in nodes:
        often[id(node.operation)] = often.get(id(node.operation), 0) + 1
        for tensor in node.arguments.keras_tensors:
            users.setdefault(id(tensor), set()).add(id(node))
    ends = {id(tensor) for tensor in keras.tree.flatten((getattr(model, "_functional", None) or model)._outputs)}
    found = []
    for node in nodes:
        tensors = node.arguments.keras_tensors
        if type(node.operation).__name__ != "Add" or len(tensors) != 2 or len(node.outputs) != 1:
            continue
        if tensors[0].shape != tensors[1].shape or often[id(node.operation)] > 1:
            continue
        for place in (0, 1):
            inside = _between(tensors[1 - place], tensors[place], producers)
            if not inside or any(often[id(each.operation)] > 1 for each in inside):
                continue
            own = {id(node), *map(id, inside)}
            gives = [id(tensor) for each in inside for tensor in each.outputs]
            if all(users.get(tensor, set()) <= own and tensor not in ends for tensor in gives):
                found.append((node, place, inside))
                break
    return found


def _between(branch: Any, short: Any, producers: Mapping[int, Any]) -> list[Any]:
    """Return the nodes of a branch, from its end back to where it starts; none where it does not start there alone."""
    found: list[Any] = []
    seen: set[int] = set()
    waiting, met = [branch], False
    while waiting:
        tensor = waiting.pop()
        if tensor is short:
            met = True
            continue
        node = producers.get(id(tensor))
        if node is None:
            return []  # an input of the model
        if id(node) in seen:
            continue
        seen.add(id(node))
        found.append(node)
        waiting += node.arguments.keras_tensors
    return found if met else []


def _ends(tensor: Any, producers: Mapping[int, Any], names: Mapping[int, str]) -> tuple[str, ...]:
    """Return the weights with whose zeros a branch gives zero; none where there are no such."""
    node = producers.get(id(tensor))
    while node is not None and type(node.operation).__name__ in THROUGH:
        node = producers.get(id(node.arguments.keras_tensors[0]))
    if node is None:
        return ()
    layer = node.operation
    kind = type(layer).__name__
    variables: Sequence[Any] = ()
    if kind == "BatchNormalization" and layer.scale:
        variables = [layer.gamma, layer.beta] if layer.center else [layer.gamma]
    elif kind in ("Dense", "Conv1D", "Conv2D", "Conv3D") and layer.activation.__name__ in SILENT:
        variables = [layer.kernel, layer.bias] if layer.use_bias else [layer.kernel]
    elif kind == "MultiHeadAttention":
        dense = layer._output_dense
        variables = [dense.kernel] if dense.bias is None else [dense.kernel, dense.bias]
    return tuple(names[id(variable)] for variable in variables if id(variable) in names)
