"""The layers of a .tflite file, with the arithmetic that LiteRT's kernels do on its tensors.

The flatbuffer says what every tensor is stored in, and that decides the kernel, for LiteRT's own kernels and
for XNNPACK's alike: weights and activations of int8 are multiplied as int8; float activations with int8 weights are
a hybrid operator, which quantizes the activations of each row as it runs (the documentation's "dynamic range
quantization"); weights behind a DEQUANTIZE are multiplied in float32. Sizes that vary come from one inference of a
second interpreter without delegates, which alone writes down the shapes in between.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from nbopt.runtimes import UNKNOWN, Layer
from nbopt.runtimes._layer_parts import FAKE_QUANT, largest, masks_among, zeros_in
from nbopt.runtimes._litert_sparse import unpacked

CONV = {"CONV_2D", "DEPTHWISE_CONV_2D", "CONV_3D"}
TRANSPOSED = {"TRANSPOSE_CONV", "CONV_3D_TRANSPOSE"}
RECURRENT = {
    "LSTM": "LSTM", "UNIDIRECTIONAL_SEQUENCE_LSTM": "LSTM", "BIDIRECTIONAL_SEQUENCE_LSTM": "LSTM",
    "RNN": "RNN", "UNIDIRECTIONAL_SEQUENCE_RNN": "RNN", "BIDIRECTIONAL_SEQUENCE_RNN": "RNN",
}  # fmt: skip
PRODUCT = {"FULLY_CONNECTED", "BATCH_MATMUL"}
EMBEDDING = {"GATHER", "EMBEDDING_LOOKUP"}
HYBRID = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "BATCH_MATMUL", *RECURRENT}
"""Operators that have a kernel for float activations with int8 weights."""

SAME_VALUES = {"DENSIFY", "DEQUANTIZE", "RESHAPE", "TRANSPOSE", "QUANTIZE", "EXPAND_DIMS", "SQUEEZE"}
DATA_FIRST = {"TRANSPOSE_CONV": 2, "CONV_3D_TRANSPOSE": 2, "EMBEDDING_LOOKUP": 0}
"""Where an operator's activations stand among its inputs, by default first; the weights follow."""


class _Graph:
    """Look up a subgraph's tensors and operators."""

    def __init__(self, model: Any, index: int, shapes: dict[int, tuple[int, ...]]) -> None:
        from ai_edge_litert import schema_py_generated as schema

        codes = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
        types = {value: name.lower() for name, value in vars(schema.TensorType).items() if isinstance(value, int)}
        graph = model.Subgraphs(index)
        self.model = model
        self.tensors = [graph.Tensors(i) for i in range(graph.TensorsLength())]
        self.types = [types[tensor.Type()] for tensor in self.tensors]
        self.names = [(tensor.Name() or b"").decode(errors="replace") for tensor in self.tensors]
        self.shapes = {
            i: tuple(int(size) for size in tensor.ShapeAsNumpy()) if tensor.ShapeLength() else ()
            for i, tensor in enumerate(self.tensors)
        } | shapes
        self.operators: list[tuple[str, Any, list[int], list[int]]] = []
        for operator in map(graph.Operators, range(graph.OperatorsLength())):
            code = model.OperatorCodes(operator.OpcodeIndex())
            name = codes.get(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()), "CUSTOM")
            if name == "CUSTOM":
                name = (code.CustomCode() or b"").decode(errors="replace")
            given = operator.InputsAsNumpy().tolist() if operator.InputsLength() else []
            made = operator.OutputsAsNumpy().tolist() if operator.OutputsLength() else []
            self.operators.append((name, operator, given, made))
        self.producers = {index: (name, given) for name, _, given, made in self.operators for index in made}

    def constant(self, index: int) -> int | None:
        """Return the stored tensor whose values a tensor has, None where it has none."""
        while index >= 0:
            buffer = self.model.Buffers(self.tensors[index].Buffer())
            if buffer.DataLength() or buffer.Size():
                return index
            name, given = self.producers.get(index, ("", []))
            if name not in SAME_VALUES or not given:
                return None
            index = given[0]
        return None

    def values(self, index: int, content: bytes) -> np.ndarray[Any, Any]:
        """Return a stored tensor's values, four-bit ones unpacked."""
        tensor = self.tensors[index]
        buffer = self.model.Buffers(tensor.Buffer())
        raw = buffer.DataAsNumpy() if buffer.DataLength() else np.frombuffer(content, np.uint8)[buffer.Offset() :]
        packed = np.asarray(raw, np.uint8)
        size = math.prod(self.shapes[index])
        if self.types[index] in ("int4", "uint4"):
            return np.stack([packed & 15, packed >> 4], -1).reshape(-1)[:size].reshape(self.shapes[index])
        dtype = {"bfloat16": "uint16"}.get(self.types[index], self.types[index])
        if tensor.Sparsity() is not None:
            whole = packed.size // np.dtype(dtype).itemsize * np.dtype(dtype).itemsize
            return unpacked(packed[:whole].view(dtype), tensor.Sparsity(), self.shapes[index])
        return packed.view()[: size * np.dtype(dtype).itemsize].view(dtype).reshape(self.shapes[index])

    def zero_point(self, index: int) -> np.ndarray[Any, Any] | None:
        """Return the values that stand for zero, None where that is 0."""
        quantization = self.tensors[index].Quantization()
        if quantization is None or not quantization.ZeroPointLength():
            return None
        return np.asarray(quantization.ZeroPointAsNumpy())


def executed_layers(content: bytes, twin: Any, rows: int) -> tuple[Layer, ...]:
    """Return the layers of a model.

    Args:
        content: The file.
        twin: An interpreter without delegates that keeps all tensors, after an inference of `rows` rows.
        rows: Rows of that inference.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(content, 0)
    # The interpreter tells the shapes of the main graph alone; a loop's body keeps those of the file.
    graphs = [_Graph(model, i, {} if i else _shapes(twin)) for i in range(model.SubgraphsLength())]
    return tuple(_layers(graphs, 0, content, rows))


def left_in_file(content: bytes) -> tuple[str, ...]:
    """Return the names of masks and fake quantizers in a file."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(content, 0)
    found: list[str] = []
    for graph in (_Graph(model, i, {}) for i in range(model.SubgraphsLength())):
        found += masks_among(graph.names)
        found += [graph.names[made[0]] for name, _, _, made in graph.operators if FAKE_QUANT.search(name)]
    return tuple(found)


def _shapes(twin: Any) -> dict[int, tuple[int, ...]]:
    """Return the shapes that the tensors of the main graph had in the last inference."""
    return {detail["index"]: tuple(int(size) for size in detail["shape"]) for detail in twin.get_tensor_details()}


def _layers(graphs: list[_Graph], index: int, content: bytes, rows: int) -> Iterator[Layer]:
    from ai_edge_litert import schema_py_generated as schema

    graph = graphs[index]
    for name, operator, given, made in graph.operators:
        if name == "WHILE":
            options = schema.WhileOptions()
            options.Init(operator.BuiltinOptions().Bytes, operator.BuiltinOptions().Pos)
            turns = _turns(graphs[options.CondSubgraphIndex()], content)
            for layer in _layers(graphs, options.BodySubgraphIndex(), content, rows):
                note = layer.note if turns else "it can't be told how often the loop runs: one turn is counted"
                yield replace(layer, macs=layer.macs * (turns or 1), note=note)
        elif name in CONV | TRANSPOSED | PRODUCT or name in RECURRENT or _is_embedding(name, given, graph):
            yield _layer(name, operator, given, made, graph, content, rows)


def _is_embedding(name: str, given: list[int], graph: _Graph) -> bool:
    if name not in EMBEDDING:
        return False
    table, picked = (1, 0) if name == "EMBEDDING_LOOKUP" else (0, 1)
    stored = graph.constant(given[table])
    return stored is not None and len(graph.shapes[stored]) == 2 and graph.constant(given[picked]) is None


def _layer(
    name: str, operator: Any, given: list[int], made: list[int], graph: _Graph, content: bytes, rows: int
) -> Layer:
    first = DATA_FIRST.get(name, 0)
    places = [0] if name == "GATHER" else [1] if name not in RECURRENT else range(1, len(given))
    stored = [graph.constant(given[place]) for place in places]
    # Of a recurrent kernel's many inputs, the matrices are weights; vectors are biases and peepholes.
    weights = [i for i in stored if i is not None and (name not in RECURRENT or len(graph.shapes[i]) == 2)]
    zeros = sum(zeros_in(graph.values(i, content), graph.zero_point(i)) for i in weights)
    size = sum(math.prod(graph.shapes[i]) for i in weights)
    dtype = graph.types[weights[0]] if weights else ""
    activation = graph.types[given[first]]
    beside = graph.types[given[1]] if len(given) > 1 and given[1] >= 0 else ""
    computes, note = _computes_in(name, activation, beside, [graph.types[i] for i in given if i in weights])
    macs = _macs(name, operator, given, made, graph, weights)
    if any(graph.tensors[i].Sparsity() is not None for i in weights):
        note = f"stored without zeros{f'; {note}' if note else ''}"
    return Layer(
        graph.names[made[0]].split(";")[0] or name.lower(),
        _kind(name, bool(weights)),
        dtype,
        computes,
        largest(graph.shapes[i] for i in weights),
        size,
        zeros,
        macs // max(1, rows),
        note,
    )


def _kind(name: str, weighted: bool) -> str:
    if name in CONV or name in TRANSPOSED:
        return "Conv" if name in CONV else "ConvTranspose"
    return RECURRENT.get(name) or ("Embedding" if name in EMBEDDING else "Linear" if weighted else "MatMul")


def _computes_in(name: str, activation: str, beside: str, direct: list[str]) -> tuple[str, str]:
    """Return what a kernel multiplies in, from the types of the tensors that it takes."""
    if name in EMBEDDING:
        return direct[0] if direct else "float32", ""
    quantized = next((t for t in direct if t in ("int8", "uint8", "int4")), beside)
    if activation in ("int8", "uint8", "int16"):
        return ("int16" if activation == "int16" else "int8"), ""
    if activation == "float32" and quantized in ("int8", "uint8", "int4"):
        if name in HYBRID:
            return "int8 dynamic", ""
        return UNKNOWN, f"no kernel of {name} for float activations and {quantized} weights is documented"
    return activation, ""


def _macs(name: str, operator: Any, given: list[int], made: list[int], graph: _Graph, weights: list[int]) -> int:
    from ai_edge_litert import schema_py_generated as schema

    if name in EMBEDDING:
        return 0
    first = graph.shapes[given[DATA_FIRST.get(name, 0)]]
    out = math.prod(graph.shapes[made[0]])
    if name in PRODUCT:
        depth = graph.shapes[given[1]][-1]  # (outputs, inputs), whatever the shape of the activations
        if name == "BATCH_MATMUL":
            options = schema.BatchMatMulOptions()
            options.Init(operator.BuiltinOptions().Bytes, operator.BuiltinOptions().Pos)
            depth = first[-2 if options.AdjX() else -1]
        return out * depth
    size = sum(math.prod(graph.shapes[i]) for i in weights)
    if name in RECURRENT:
        # The sequence kernels are given (steps, rows, features) or (rows, steps, features), the cells one step.
        return math.prod(first[:-1]) * size
    shape = graph.shapes[given[1]]
    if name == "DEPTHWISE_CONV_2D":
        return out * math.prod(shape[:-1])
    if name == "CONV_2D":
        return out * math.prod(shape[1:])
    if name == "CONV_3D":
        return out * math.prod(shape[:-1])
    return math.prod(first[:-1]) * math.prod(shape)


def _turns(condition: _Graph, content: bytes) -> int:
    """Return how often a counted loop runs: the least of the constants that its counters are compared with."""
    limits = [
        int(condition.values(stored, content).reshape(-1)[0])
        for name, _, given, _ in condition.operators
        if name == "LESS" and (stored := condition.constant(given[1])) is not None
    ]
    return min(limits, default=0)
