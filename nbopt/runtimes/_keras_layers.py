"""The layers of a traced TensorFlow function: its products and convolutions, and the variables that they multiply.

The function is traced anew for one row, so that the shapes in its graph are known, and only what its output depends
on is counted: Keras' recurrent layers trace their first step twice. Loops count as often as their condition says.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from nbopt.frameworks._keras_dialect import own_variables, path_of, raw
from nbopt.runtimes import UNKNOWN, Layer
from nbopt.runtimes._layer_parts import FAKE_QUANT, einsum_macs, largest, masks_among, zeros_in

CONV = {"Conv2D", "Conv3D", "DepthwiseConv2dNative"}
TRANSPOSED = {"Conv2DBackpropInput", "Conv2DBackpropInputV2", "Conv3DBackpropInputV2"}
PRODUCT = {"MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"}
EMBEDDING = {"ResourceGather", "GatherV2"}
LOOPS = {"While", "StatelessWhile"}
CALLS = {"PartitionedCall", "StatefulPartitionedCall"}
SAME_VALUES = {"ReadVariableOp", "Cast", "Reshape", "Transpose", "Identity", "ExpandDims", "Squeeze"}
RECURRENT = {"LSTM": "LSTM", "GRU": "GRU", "SimpleRNN": "RNN"}

Shapes = dict[tuple[int, str], tuple[int, ...]]
"""Shapes of tensors that their graph leaves open, by the graph's identity and the tensor's name."""


class _Weight(NamedTuple):
    """Hold what a product multiplies by: a variable, or a constant of a frozen graph."""

    key: Any
    name: str
    dtype: str
    shape: tuple[int, ...]
    values: Callable[[], np.ndarray[Any, Any]]


@dataclass
class _Seen:
    """Gather what belongs to one layer."""

    kind: str
    weights: dict[Any, _Weight] = field(default_factory=dict)
    macs: int = 0
    dtypes: dict[str, int] = field(default_factory=dict)
    note: str = ""


class _Walk:
    """Go through a graph from its outputs to its inputs, and into loops and calls."""

    def __init__(self, kinds: dict[int, tuple[str, str]], shapes: Shapes) -> None:
        self.kinds, self.shapes = kinds, shapes
        self.seen: dict[str, _Seen] = {}

    def graph(self, graph: Any, sources: dict[str, Any], turns: int, note: str = "") -> None:
        """Count the operations of a graph.

        Args:
            graph: The graph, with its inputs and outputs.
            sources: What stands behind its placeholders, by name: a variable, or a `_Weight`.
            turns: How often it runs.
            note: Said of all its layers.
        """
        needed, waiting = set(), [tensor.op for tensor in graph.outputs]
        while waiting:
            op = waiting.pop()
            if op.name not in needed:
                needed.add(op.name)
                waiting += [tensor.op for tensor in op.inputs] + list(op.control_inputs)
        for op in graph.get_operations():
            if op.name not in needed:
                continue
            if op.type in LOOPS:
                body, condition = (_body(graph, op, part, self.shapes) for part in ("body", "cond"))
                count = _turns(condition)
                said = note if count else "it can't be told how often the loop runs: one turn is counted"
                self.graph(body, self._inner(op, body, sources), turns * (count or 1), said)
            elif op.type in CALLS:
                body = _body(graph, op, "f", self.shapes)
                self.graph(body, self._inner(op, body, sources), turns, note)
            elif op.type in CONV | TRANSPOSED | PRODUCT or op.type in EMBEDDING or op.type == "Einsum":
                self._count(op, sources, turns, note)

    def _inner(self, op: Any, body: Any, sources: dict[str, Any]) -> dict[str, Any]:
        found = {}
        for index, (placeholder, tensor) in enumerate(zip(body.inputs, op.inputs, strict=False)):
            self._pass_shape(placeholder, tensor)
            source = _source(tensor, sources)
            if source is None:
                continue
            if op.type in LOOPS and not _kept(body, index, placeholder):
                continue  # a state that only begins as a constant
            found[placeholder.op.name] = source
        return found

    def _pass_shape(self, placeholder: Any, tensor: Any) -> None:
        """Note the shape of an input of a loop or a call, and of what is taken from it where it is a list."""
        shape = _shape(tensor, self.shapes)
        if shape is not None and tensor.dtype not in (tf.variant, tf.resource):
            self.shapes[_key(placeholder)] = shape
        if tensor.op.type == "TensorListFromTensor":
            whole = _shape(tensor.op.inputs[0], self.shapes)
            for taken in placeholder.consumers():
                if whole is not None and taken.type == "TensorListGetItem":
                    self.shapes[_key(taken.outputs[0])] = whole[1:]

    def _count(self, op: Any, sources: dict[str, Any], turns: int, note: str) -> None:
        found = [_source(tensor, sources) for tensor in op.inputs[:2]]
        if op.type in EMBEDDING:
            if found[0] is None or len(found[0].shape) != 2 or found[1] is not None:
                return
            found = found[:1]
        # The second operand as a rule; of a product with a constant on the left, that.
        weights = [source for source in reversed(found) if source is not None and len(source.shape) > 1][:1]
        name, kind = self._owner(op, weights)
        seen = self.seen.setdefault(name, _Seen(kind))
        seen.weights |= {weight.key: weight for weight in weights}
        macs = _macs(op, self.shapes)
        dtype = op.outputs[0].dtype.name if op.type in EMBEDDING else _operand(op).dtype.name
        seen.macs += (macs or 0) * turns
        seen.dtypes[dtype] = seen.dtypes.get(dtype, 0) + (macs or 0) * turns
        seen.note = seen.note or note or ("" if macs is not None else "its shapes don't tell how much it multiplies")

    def _owner(self, op: Any, weights: list[_Weight]) -> tuple[str, str]:
        """Return the name of the layer that an operation belongs to, and its kind."""
        if op.type in EMBEDDING:
            kind = "Embedding"
        elif op.type in CONV or op.type in TRANSPOSED:
            kind = "Conv" if op.type in CONV else "ConvTranspose"
        else:
            kind = "Linear" if weights else "MatMul"
        if not weights:
            return op.name, kind
        known = self.kinds.get(weights[0].key)
        if known is not None:
            return known[0], known[1] or kind
        # Freezing numbers the variables; the operation's scope is that of its layer.
        return op.name.rpartition("/")[0].replace("StatefulPartitionedCall/", "") or op.name, kind


def executed_layers(function: Any, model: Any, rows: int, given: Sequence[Any] = ()) -> tuple[Layer, ...]:
    """Return the layers of a concrete function.

    Args:
        function: Traced for `rows` rows.
        model: The Keras model that it runs, None where only the graph is known.
        rows: Rows of its input.
        given: Its inputs, where the function is frozen: it is run for the shapes that its graph leaves open.
    """
    graph = function.graph
    walk = _Walk(_named(model) if model is not None else {}, _run_shapes(function, given) if given else {})
    variables = {id(variable.handle): variable for variable in graph.variables}
    sources: dict[str, Any] = {}
    for outer, placeholder in graph.captures:
        variable = variables.get(id(outer))
        if variable is not None:
            sources[placeholder.op.name] = _of_variable(variable)
    walk.graph(graph, sources, 1)
    return tuple(_layer(name, seen, rows) for name, seen in walk.seen.items())


def frozen(function: Any) -> Any:
    """Return a concrete function with calls inlined and variables as constants: the shapes inside become known."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    return convert_variables_to_constants_v2(function, lower_control_flow=False)


def _run_shapes(function: Any, given: Sequence[Any]) -> Shapes:
    """Return the shapes that the graph of a frozen function leaves open, as they are for these inputs."""
    wanted = CONV | TRANSPOSED | PRODUCT | LOOPS | CALLS | {"Einsum"}
    tensors = {
        _key(tensor): tensor
        for op in function.graph.get_operations()
        if op.type in wanted
        for tensor in (*op.inputs, *op.outputs)
        if not tensor.shape.is_fully_defined() and tensor.dtype not in (tf.variant, tf.resource)
    }
    if not tensors:
        return {}
    with function.graph.as_default():
        fetches = [tf.shape(tensor) for tensor in tensors.values()]
    found = function.prune(function.inputs, fetches)(*given)
    return {key: tuple(int(size) for size in shape) for key, shape in zip(tensors, found, strict=True)}


def left_in_model(function: Any, model: Any) -> tuple[str, ...]:
    """Return masks among the variables of a model, or of a served function."""
    variables = model.variables if model is not None else function.graph.variables
    names = [path_of(variable) for variable in variables]
    return (*masks_among(names), *(name for name in names if FAKE_QUANT.search(name)))


def _named(model: Any) -> dict[int, tuple[str, str]]:
    """Return the layer of each variable by the variable's identity: its name, and its kind where the class tells."""
    named = {}
    for layer in model._flatten_layers():
        for variable in own_variables(layer):
            path = path_of(variable).rpartition("/")[0]
            cell = type(layer).__name__.removesuffix("Cell")
            named[id(raw(variable))] = path, RECURRENT.get(cell, "")
    return named


def _of_variable(variable: Any) -> _Weight:
    shape = tuple(int(size) for size in variable.shape)
    return _Weight(id(variable), variable.name, variable.dtype.name, shape, lambda: np.asarray(variable.numpy()))


def _source(tensor: Any, sources: dict[str, Any]) -> _Weight | None:
    """Return the weight whose values a tensor has, None where it is an activation."""
    op = tensor.op
    while op.type in SAME_VALUES and op.inputs:
        op = op.inputs[0].op
    if op.type == "Placeholder":
        return sources.get(op.name)
    if op.type != "Const" or not op.outputs[0].shape.rank:
        return None
    made = op.outputs[0]
    shape = tuple(int(size) for size in made.shape)
    return _Weight(op.name, op.name, made.dtype.name, shape, lambda: tf.make_ndarray(op.get_attr("value")))


def _shape(tensor: Any, shapes: Shapes) -> tuple[int, ...] | None:
    if tensor.shape.is_fully_defined():
        return tuple(int(size) for size in tensor.shape)
    return shapes.get(_key(tensor))


def _key(tensor: Any) -> tuple[int, str]:
    return id(tensor.graph), tensor.name


def _body(graph: Any, op: Any, part: str, shapes: Shapes) -> Any:
    """Return the graph of a function that an operation runs."""
    function = graph._get_function(op.get_attr(part).name)
    if hasattr(function, "graph"):
        return function.graph
    # A frozen graph has only the definitions, without shapes.
    from tensorflow.python.framework.function_def_to_graph import function_def_to_graph

    given = [tf.TensorShape(_shape(tensor, shapes)) for tensor in op.inputs]
    with graph.as_default():
        return function_def_to_graph(function.definition, input_shapes=given)


def _kept(body: Any, index: int, placeholder: Any) -> bool:
    """Tell whether a loop hands an input on unchanged from turn to turn."""
    if placeholder.dtype == tf.resource:
        return True
    op = body.outputs[index].op if index < len(body.outputs) else None
    while op is not None and op.type == "Identity":
        op = op.inputs[0].op
    return op is not None and op.name == placeholder.op.name


def _turns(condition: Any) -> int:
    """Return how often a counted loop runs: the least of the constants that its counters are compared with."""
    limits = []
    for op in condition.get_operations():
        if op.type == "Less":
            limit = tf.get_static_value(op.inputs[1])
            limits += [] if limit is None else [int(limit)]
    return min(limits, default=0)


def _operand(op: Any) -> Any:
    """Return the activations that an operation multiplies."""
    return op.inputs[2] if op.type in TRANSPOSED else op.inputs[0]


def _macs(op: Any, shapes: Shapes) -> int | None:
    """Return the multiply-accumulates of one execution, None where a shape is not known."""
    if op.type in EMBEDDING:
        return 0
    known = [_shape(tensor, shapes) for tensor in (_operand(op), op.inputs[0], op.inputs[-1], op.outputs[0])]
    first, left, right, out = known
    if op.type == "MatMul" and left is not None and right is not None:
        return math.prod(left) * right[-2 if op.get_attr("transpose_b") else -1]
    if first is None or left is None or right is None or out is None:
        return None
    if op.type in TRANSPOSED:
        right = _shape(op.inputs[1], shapes) or ()
    if op.type == "DepthwiseConv2dNative":
        return math.prod(out) * math.prod(right[:2])
    if op.type in CONV:
        return math.prod(out) * math.prod(right[:-1])
    if op.type in TRANSPOSED:
        return math.prod(first) // right[-1] * math.prod(right)
    if op.type == "Einsum":
        return einsum_macs(op.get_attr("equation").decode(), [left, right][: len(op.inputs)])
    return math.prod(out) * left[-2 if op.get_attr("adj_x") else -1]


def _layer(name: str, seen: _Seen, rows: int) -> Layer:
    weights = list(seen.weights.values())
    return Layer(
        name,
        seen.kind,
        weights[0].dtype if weights else "",
        max(seen.dtypes, key=lambda dtype: seen.dtypes[dtype], default=UNKNOWN),
        largest(weight.shape for weight in weights),
        sum(math.prod(weight.shape) for weight in weights),
        sum(zeros_in(weight.values()) for weight in weights),
        seen.macs // max(1, rows),
        seen.note,
    )


__all__ = ["executed_layers", "frozen", "left_in_model"]
