"""The layers of an ONNX graph as ONNX Runtime executes them.

Three sources: the file tells what weights are stored in, the graph that ONNX Runtime writes after its optimizations
tells which kernels it chose (a QDQ pair around a convolution that was not fused is a float convolution), and the
profile of one inference tells the shapes, in the bodies of loops too.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from nbopt.runtimes import UNKNOWN, Layer
from nbopt.runtimes._layer_parts import FAKE_QUANT, einsum_macs, largest, masks_among, owner_of, zeros_in

CONV = {"Conv", "FusedConv", "NhwcFusedConv", "QLinearConv", "ConvInteger"}
TRANSPOSED = {"ConvTranspose", "QLinearConvTranspose", "ConvTransposeWithDynamicPads"}
PRODUCT = {
    "MatMul", "FusedMatMul", "FusedMatMulActivation", "TransposeMatMul", "Gemm", "FusedGemm", "QGemm", "QLinearMatMul",
    "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "MatMulNBits",
}  # fmt: skip
RECURRENT = {"LSTM": "LSTM", "DynamicQuantizeLSTM": "LSTM", "GRU": "GRU", "RNN": "RNN"}
ATTENTION = {"Attention", "QAttention", "MultiHeadAttention", "GroupQueryAttention"}
EMBEDDING = {"Gather", "GatherBlockQuantized"}

WEIGHTS = {"QLinearConv": (3,), "QGemm": (3,), "QLinearMatMul": (3,), "LSTM": (1, 2), "GRU": (1, 2), "RNN": (1, 2),
           "DynamicQuantizeLSTM": (1, 2), "Gather": (0,), "GatherBlockQuantized": (0,), "MultiHeadAttention": (),
           "GroupQueryAttention": ()}  # fmt: skip
ZERO_POINTS = {"QLinearConv": (5,), "QGemm": (5,), "QLinearMatMul": (5,), "ConvInteger": (3,), "MatMulInteger": (3,),
               "MatMulIntegerToFloat": (5,), "DynamicQuantizeMatMul": (3,), "DynamicQuantizeLSTM": (9, 11)}  # fmt: skip
"""Where the inputs of an operator hold its weights, by default the second, and their zero points."""

INTEGER = {"QLinearConv", "QLinearConvTranspose", "ConvInteger", "QGemm", "QLinearMatMul", "MatMulInteger",
           "MatMulIntegerToFloat", "QAttention"}  # fmt: skip
DYNAMIC = {"DynamicQuantizeMatMul", "DynamicQuantizeLSTM"}
SAME_VALUES = {"Cast", "DequantizeLinear", "QuantizeLinear", "Transpose", "Reshape", "Identity", "Squeeze", "Unsqueeze",
               "Flatten"}  # fmt: skip
"""Operators through which weights stay the same weights."""

SCOPES = "pkg.torch.onnx.name_scopes"
PLAIN = {"float": "float32", "double": "float64"}


class Call(NamedTuple):
    """Hold one executed kernel of a profile: types and shapes of what came in and went out."""

    dtypes: tuple[str, ...]
    inputs: tuple[tuple[int, ...], ...]
    outputs: tuple[tuple[int, ...], ...]


class _Graph:
    """Look up nodes, constants and producers by name, in the bodies of loops and branches too."""

    def __init__(self, graph: Any) -> None:
        self.nodes: list[Any] = []
        self.named: dict[str, Any] = {}
        self.constants: dict[str, Any] = {}
        self.producers: dict[str, Any] = {}
        waiting = [graph]
        while waiting:
            part = waiting.pop()
            self.constants |= {tensor.name: tensor for tensor in part.initializer}
            for node in part.node:
                self.nodes.append(node)
                self.named.setdefault(node.name, node)
                waiting += [attribute.g for attribute in node.attribute if attribute.HasField("g")]
                self.producers |= dict.fromkeys(node.output, node)
                if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
                    self.constants[node.output[0]] = node.attribute[0].t

    def constant(self, name: str) -> tuple[Any, str]:
        """Return the stored tensor whose values a name has, and the name of its zero point; None where it has none."""
        zero_point = ""
        while name not in self.constants:
            node = self.producers.get(name)
            if node is None or node.op_type not in SAME_VALUES:
                return None, ""
            if node.op_type == "DequantizeLinear" and len(node.input) > 2:
                zero_point = node.input[2]
            name = node.input[0]
        return self.constants[name], zero_point


def executed_layers(file: Any, executed: Any, events: Sequence[dict[str, Any]], rows: int) -> tuple[Layer, ...]:
    """Return the layers of a graph.

    Args:
        file: The `GraphProto` of the artifact.
        executed: The one that ONNX Runtime wrote after its optimizations, with weights.
        events: The profile of one inference.
        rows: Rows of that inference.
    """
    stored, graph = _Graph(file), _Graph(executed)
    nodes = [node for node in graph.nodes if _is_layer(node, graph)]
    calls = _calls(events)
    sharing: dict[tuple[str, str], int] = defaultdict(int)
    for node in nodes:
        sharing[node.name, node.op_type] += 1
    layers = []
    for node in nodes:
        key = (node.name, node.op_type)
        made = calls.get(key, [])
        if sharing[key] > 1:
            # Nodes of one name: each takes its share of the calls, which come in the order of the graph.
            share = len(made) // sharing[key]
            made, calls[key] = made[:share], made[share:]
        layers.append(_layer(node, made, stored, graph, rows))
    return tuple(layers)


def left_in_file(graph: Any) -> tuple[str, ...]:
    """Return the names of masks and fake quantizers in a graph."""
    whole = _Graph(graph)
    found = [*masks_among(whole.constants)]
    found += [node.name for node in whole.nodes if FAKE_QUANT.search(node.op_type)]
    return tuple(found)


def _is_layer(node: Any, graph: _Graph) -> bool:
    if node.op_type in EMBEDDING:
        table, _ = graph.constant(node.input[0])
        # Tables of shapes and positions are picked from as well; those are integers of one axis.
        return table is not None and len(table.dims) == 2 and graph.constant(node.input[1])[0] is None
    known = CONV | TRANSPOSED | PRODUCT | ATTENTION | set(RECURRENT)
    return node.op_type in known or node.op_type == "Einsum"


def _calls(events: Sequence[dict[str, Any]]) -> dict[tuple[str, str], list[Call]]:
    """Return the calls of each kernel by the node's name and operator."""
    calls: dict[tuple[str, str], list[Call]] = defaultdict(list)
    for event in events:
        name, arguments = event.get("name", ""), event.get("args", {})
        if event.get("cat") != "Node" or not name.endswith("_kernel_time"):
            continue
        given, made = arguments.get("input_type_shape", ()), arguments.get("output_type_shape", ())
        dtypes = tuple(next(iter(entry), "") for entry in given)
        shapes = [tuple(tuple(next(iter(entry.values()), ())) for entry in side) for side in (given, made)]
        calls[name.removesuffix("_kernel_time"), arguments.get("op_name", "")].append(Call(dtypes, *shapes))
    return calls


def _layer(node: Any, calls: list[Call], stored: _Graph, graph: _Graph, rows: int) -> Layer:
    from onnx import numpy_helper

    op = node.op_type
    zero_points = dict(zip(WEIGHTS.get(op, (1,)), ZERO_POINTS.get(op, ()), strict=False))
    shapes: list[tuple[int, ...]] = []
    size = zeros = 0
    dtype = name = ""
    for index in _weight_inputs(node, graph):
        tensor, zero_name = graph.constant(node.input[index])
        values = numpy_helper.to_array(tensor)
        position = zero_points.get(index, len(node.input))
        zero_name = node.input[position] if position < len(node.input) else zero_name
        zero_tensor = graph.constant(zero_name)[0] if zero_name else None
        if op == "MatMulNBits":
            values, zero = _unpacked(node, values, numpy_helper.to_array(zero_tensor) if zero_tensor else None)
        else:
            zero = None if zero_tensor is None else numpy_helper.to_array(zero_tensor)
        shapes.append(tuple(values.shape))
        size += values.size
        zeros += zeros_in(values, zero)
        origin = _origin(node, index, tensor.name, stored)
        dtype = dtype or (f"int{_attribute(node, 'bits', 4)}" if op == "MatMulNBits" else _dtype(origin or tensor))
        name = name or owner_of(tensor.name) or owner_of(origin.name if origin is not None else "")
    macs = [_macs(node, call, shapes, size) for call in calls]
    note = ""
    if not calls:
        note = "it did not run on this row: a branch that was not taken"
    elif None in macs:
        note = "its shapes don't tell how much it multiplies"
    return Layer(
        name or _scope(node, stored) or _plain(node.name).removesuffix("_quant") or node.output[0],
        _kind(op, bool(shapes)),
        dtype,
        _computes_in(node, calls, graph) if calls else UNKNOWN,
        largest(shapes),
        size,
        zeros,
        sum(count or 0 for count in macs) // max(1, rows),
        note,
    )


def _weight_inputs(node: Any, graph: _Graph) -> Iterator[int]:
    """Yield the positions of inputs that are constants: weights, not activations."""
    wanted: Sequence[int] = WEIGHTS.get(node.op_type, (1,))
    if node.op_type in ("MatMul", "FusedMatMul", "Einsum", "Gemm"):
        wanted = (1, 0)  # a constant may stand on either side
    for index in wanted:
        if index < len(node.input) and node.input[index]:
            tensor, _ = graph.constant(node.input[index])
            if tensor is not None and tensor.dims:
                yield index


def _origin(node: Any, index: int, name: str, stored: _Graph) -> Any:
    """Return the tensor in the file that a weight of the executed graph was made of; None where fusions hide it."""
    tensor, _ = stored.constant(name)
    if tensor is None:
        plain = _plain(node.name)
        twin = stored.named.get(plain) if plain else None
        if twin is not None:
            position = index if twin.op_type == node.op_type else next(iter(WEIGHTS.get(twin.op_type, (1,))), 1)
            tensor = stored.constant(twin.input[position])[0] if position < len(twin.input) else None
    return tensor


def _plain(name: str) -> str:
    """Return a node's name without what fusions and layout changes append to it."""
    return re.sub(r"(_token_\d+|/\w+Fusion/?)+$", "", name)


def _scope(node: Any, stored: _Graph) -> str:
    """Return the module that torch's exporter says a node belongs to, "" where nothing is said."""
    for other in (node, stored.named.get(_plain(node.name), node)):
        said = next((entry.value for entry in other.metadata_props if entry.key == SCOPES), "")
        modules = re.findall(r"'([^']*)'", said)[:-1]  # the last is the operation itself
        if modules and modules[-1].removeprefix("model."):
            return modules[-1].removeprefix("model.")
    return ""


def _dtype(tensor: Any) -> str:
    from onnx import TensorProto

    name = TensorProto.DataType.Name(tensor.data_type).lower()
    return PLAIN.get(name, name)


def _kind(op: str, weighted: bool) -> str:
    if op in CONV or op in TRANSPOSED:
        return "Conv" if op in CONV else "ConvTranspose"
    if op in RECURRENT:
        return RECURRENT[op]
    if op in ATTENTION:
        return "Attention"
    if op in EMBEDDING:
        return "Embedding"
    return "Linear" if weighted else "MatMul"


def _computes_in(node: Any, calls: list[Call], graph: _Graph) -> str:
    op, dtypes = node.op_type, calls[0].dtypes
    first = PLAIN.get(dtypes[0], dtypes[0]) if dtypes else UNKNOWN
    if op in EMBEDDING:
        # A table of 8 bits is picked from as it is, or dequantized as a whole before.
        return {"uint8": "int8"}.get(first, first)
    if op in DYNAMIC:
        return "int8 dynamic"
    if op in INTEGER:
        producer = graph.producers.get(node.input[0])
        dynamic = producer is not None and producer.op_type == "DynamicQuantizeLinear"
        return "int16" if first.endswith("int16") else "int8 dynamic" if dynamic else "int8"
    if op == "MatMulNBits" and _attribute(node, "accuracy_level", 0) == 4:
        return "int8 dynamic"
    return first


def _macs(node: Any, call: Call, weights: list[tuple[int, ...]], size: int) -> int | None:
    """Return the multiply-accumulates of one call, None where its shapes don't tell."""
    op, first, out = node.op_type, call.inputs[0], math.prod(call.outputs[0])
    if op in EMBEDDING:
        return 0
    if op in CONV:
        return out // weights[0][0] * size if weights else None
    if op in TRANSPOSED:
        return first[0] * math.prod(first[2:]) * size if weights else None
    if op in RECURRENT:
        return first[0] * first[1] * size
    if op == "Einsum":
        shapes = [*call.inputs, *weights] if len(call.inputs) < 2 else call.inputs
        return einsum_macs(_attribute(node, "equation", b"").decode(), shapes)
    if op in ATTENTION:
        return _attention_macs(node, call, weights, size)
    if not first:
        return None
    transposed = _attribute(node, "transA", 0)
    return out * (first[-2] if transposed and len(first) > 1 else first[-1])


def _attention_macs(node: Any, call: Call, weights: list[tuple[int, ...]], size: int) -> int | None:
    """Return the products with keys and with values, and the projections where the kernel holds them."""
    query = call.inputs[0]
    if weights and len(query) == 3:
        rows, steps, _ = query
        return rows * steps * size + 2 * rows * steps * steps * (weights[0][1] // 3)
    if len(call.inputs) < 3 or len(query) != len(call.inputs[1]) or len(query) not in (3, 4):
        return None
    key, value = call.inputs[1], call.inputs[2]
    return math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _unpacked(
    node: Any, packed: np.ndarray[Any, Any], zero: np.ndarray[Any, Any] | None
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any] | None]:
    """Return the weights of a block-quantized product, (N, K), and their zero point where all blocks share one."""
    bits, columns, depth = (_attribute(node, name, 0) for name in ("bits", "N", "K"))
    if bits not in (4, 8):
        return np.ones((columns, depth), np.uint8), None
    parts = [packed & 15, packed >> 4] if bits == 4 else [packed]
    values = np.stack(parts, -1).reshape(columns, -1)[:, :depth]
    if zero is None:
        return values, np.array([1 << (bits - 1)], np.uint8)
    blocks = np.stack([zero & 15, zero >> 4], -1).reshape(columns, -1) if bits == 4 else zero.reshape(columns, -1)
    block = _attribute(node, "block_size", depth)
    points = np.repeat(blocks, block, axis=1)[:, :depth]
    return values.astype(np.int16) - points, None


def _attribute(node: Any, name: str, default: Any) -> Any:
    from onnx import helper

    return next((helper.get_attribute_value(entry) for entry in node.attribute if entry.name == name), default)
