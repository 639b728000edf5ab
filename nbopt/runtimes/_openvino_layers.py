"""The layers of OpenVINO IR, with the precision in which its CPU plugin executes them.

The IR tells what is stored and, reshaped to one row, how much is multiplied. The executed graph
(`CompiledModel.get_runtime_model`) tells the kernel: its `primitiveType` ends in the type it multiplies in. Its
`runtimePrecision` is no help where weights are compressed: a product of float32 activations with int8 weights says i8
there, and multiplies in float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nbopt.runtimes import UNKNOWN, Layer
from nbopt.runtimes._layer_parts import OPENVINO_TYPES, einsum_macs, largest, owner_of, zeros_in

CONV = {"Convolution", "GroupConvolution"}
TRANSPOSED = {"ConvolutionBackpropData", "GroupConvolutionBackpropData"}
RECURRENT = {
    "LSTMSequence": ("LSTM", (4, 5)), "GRUSequence": ("GRU", (3, 4)), "RNNSequence": ("RNN", (3, 4)),
    "LSTMCell": ("LSTM", (3, 4)), "GRUCell": ("GRU", (2, 3)), "RNNCell": ("RNN", (2, 3)),
}  # fmt: skip
ATTENTION = "ScaledDotProductAttention"
LOOPS = {"TensorIterator", "Loop"}
SAME_VALUES = {"Convert", "Multiply", "Subtract", "Reshape", "Transpose", "FakeQuantize", "FakeConvert", "Squeeze",
               "Unsqueeze"}  # fmt: skip
"""Operations through which weights stay the same weights: decompression, layout, quantization."""

BEHIND = 6
"""How far a kernel's last fused operation lies behind its product at most: bias, scale, activation, quantizer."""

EXECUTES = {"Convolution": CONV, "Deconvolution": TRANSPOSED, "FullyConnected": {"MatMul", *CONV}, "MatMul": {"MatMul"},
            "RNNSeq": set(RECURRENT), "RNNCell": set(RECURRENT), "Gather": {"Gather"}}  # fmt: skip
"""Kernels by the operations of the IR that they execute: a pointwise convolution may become a plain product."""

FUSIONS = {"Subgraph", "MHA", "LLMMLP", "QKVProjection", ATTENTION, "ScaledDotProductAttentionWithKVCache"}
"""Kernels of the plugin's own, which name the operations that they took in."""

MAY_BE_DYNAMIC = "on CPUs with VNNI OpenVINO may quantize these activations as it runs, and does not tell"


@dataclass(frozen=True)
class _Kernel:
    """Hold one node of the executed graph."""

    kind: str
    primitive: str
    names: tuple[str, ...]
    types: tuple[str, ...]
    inputs: tuple[tuple[int, ...], ...]
    output: tuple[int, ...]


def executed_layers(model: Any, compiled: Any, rows: int) -> tuple[Layer, ...]:
    """Return the layers of a model.

    Args:
        model: The IR, reshaped to the rows of the last inference.
        compiled: What was compiled of it, and has run.
        rows: Rows of that inference.
    """
    operations = {op.get_friendly_name(): op for op in model.get_ordered_ops()}
    told = {name: _told(op, rows) for name, op in operations.items() if _is_layer(op)}
    bodies = [layer for op in operations.values() if op.get_type_name() in LOOPS for layer in _in_body(op, rows)]
    layers: list[Layer] = []
    loose: list[tuple[_Kernel, set[str]]] = []
    for kernel in map(_kernel, compiled.get_runtime_model().get_ordered_ops()):
        wanted = EXECUTES.get(kernel.kind)
        if wanted:
            matched = list(_matched(kernel, operations, told, wanted))[:1]
        else:
            matched = [name for name in kernel.names if name in told and kernel.kind in FUSIONS]
        layers += [_executed(told.pop(name), kernel) for name in matched]
        if wanted and not matched and kernel.kind != "Gather":
            loose.append((kernel, wanted))
    for kernel, wanted in loose:
        # Transformations rename what they touch; then the shape of the weights tells.
        twin = next((n for n, layer in told.items() if layer.weights and _could_be(kernel, layer)), None)
        if twin is not None and operations[twin].get_type_name() in wanted:
            layers.append(_executed(told.pop(twin), kernel))
        elif kernel.kind == "MatMul":
            layers.append(_product(kernel, rows))
    # Attention and einsums that became plain products were listed as these.
    products = any(kernel.kind == "MatMul" for kernel, _ in loose)
    note = "no kernel of the executed graph bears its name"
    layers += [replace(layer, note=note) for layer in told.values() if layer.weights or not products]
    return (*layers, *(_float_body(layer, compiled) for layer in bodies))


def _is_layer(op: Any) -> bool:
    kind = op.get_type_name()
    if kind == "Gather":
        table, _ = _constant(op.input_value(0))
        return table is not None and len(table.get_output_shape(0)) == 2 and _constant(op.input_value(1))[0] is None
    return kind in CONV or kind in TRANSPOSED or kind in RECURRENT or kind in ("MatMul", "Einsum", ATTENTION)


def _constant(value: Any) -> tuple[Any, Any]:
    """Return the constant whose values a port has, and that of its zero point; None where it has none."""
    node, zero_point = value.get_node(), None
    while node.get_type_name() in SAME_VALUES:
        if node.get_type_name() == "Subtract":
            zero_point, _ = _constant(node.input_value(1))
        node = node.input_value(0).get_node()
    return (node, zero_point) if node.get_type_name() == "Constant" else (None, None)


def _values(constant: Any) -> np.ndarray[Any, Any]:
    """Return a constant's values; of those that NumPy has no type for, in one that holds them."""
    kind = constant.get_element_type().get_type_name()
    if kind in ("i4", "u4"):
        packed = np.asarray(constant.get_data()).view(np.uint8).reshape(-1)  # two values a byte, the lower half first
        values = np.stack([packed & 15, packed >> 4], -1).reshape(-1)[: math.prod(constant.get_output_shape(0))]
        return np.asarray(values if kind == "u4" else ((values ^ 8).astype(np.int8) - 8))
    wide = {"bf16": np.float32, "nf4": np.float32}.get(kind)
    return np.asarray(constant.get_data(dtype=wide) if wide else constant.get_data())


def _told(op: Any, rows: int) -> Layer:
    """Return what the IR tells of a layer; how it is executed comes later."""
    kind = op.get_type_name()
    shapes, size, zeros, dtype, name = [], 0, 0, "", ""
    for index in _weight_inputs(op):
        constant, zero_point = _constant(op.input_value(index))
        if constant is None:
            continue
        values = _values(constant)
        # Weights of less than a byte come as one row of numbers, and those in groups with an axis of groups.
        given = op.input_value(index).get_partial_shape()
        whole = given.is_static and math.prod(given.to_shape()) == values.size
        shapes.append(tuple(given.to_shape() if whole else constant.get_output_shape(0)))
        size += values.size
        zeros += zeros_in(values, None if zero_point is None else _values(zero_point))
        found = constant.get_element_type().get_type_name()
        dtype = dtype or OPENVINO_TYPES.get(found, found)
        name = name or owner_of(constant.get_friendly_name())
    count = _macs(op, shapes, size)
    return Layer(
        name or op.get_friendly_name().removesuffix("/WithoutBiases"),
        _kind(kind, bool(shapes)),
        dtype,
        UNKNOWN,
        largest(shapes),
        size,
        zeros,
        (count or 0) // max(1, rows),
        "" if count is not None else "its shapes don't tell how much it multiplies",
    )


def _weight_inputs(op: Any) -> Sequence[int]:
    kind = op.get_type_name()
    if kind in RECURRENT:
        return RECURRENT[kind][1]
    if kind == "Gather":
        return (0,)
    return (1, 0) if kind in ("MatMul", "Einsum") else () if kind == ATTENTION else (1,)


def _kind(kind: str, weighted: bool) -> str:
    if kind in CONV or kind in TRANSPOSED:
        return "Conv" if kind in CONV else "ConvTranspose"
    if kind in RECURRENT:
        return RECURRENT[kind][0]
    named = {"Gather": "Embedding", ATTENTION: "Attention"}
    return named.get(kind) or ("Linear" if weighted else "MatMul")


def _macs(op: Any, weights: list[tuple[int, ...]], size: int) -> int | None:
    """Return the multiply-accumulates of one execution, None where a shape is not known."""
    kind = op.get_type_name()
    if kind == "Gather":
        return 0
    ports = [op.output(0), *op.inputs()]
    if any(port.get_partial_shape().is_dynamic for port in ports[: 4 if kind == ATTENTION else 3]):
        return None
    out, *given = [tuple(port.get_shape()) for port in ports[:4] if port.get_partial_shape().is_static]
    if kind in CONV:
        channels = math.prod(weights[0][:2]) if kind == "GroupConvolution" else weights[0][0]
        return math.prod(out) // channels * size if weights else None
    if kind in TRANSPOSED:
        return given[0][0] * math.prod(given[0][2:]) * size if weights else None
    if kind in RECURRENT:
        return math.prod(given[0][:-1]) * size
    if kind == ATTENTION:
        query, key, value = given[:3]
        return math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])
    if kind == "Einsum":
        return einsum_macs(op.get_attributes().get("equation", ""), given[:2])
    transposed = len(given[0]) > 1 and op.get_attributes().get("transpose_a")
    return math.prod(out) * given[0][-2 if transposed else -1]


def _kernel(node: Any) -> _Kernel:
    about = {key: getattr(value, "value", value) for key, value in node.get_rt_info().items()}
    shapes = [tuple(s.get_length() if s.is_static else 0 for s in i.get_partial_shape()) for i in node.inputs()]
    outputs = node.outputs()
    out = outputs[0].get_partial_shape() if outputs else ()
    return _Kernel(
        str(about.get("layerType", "")),
        str(about.get("primitiveType", "")),
        tuple(name for name in str(about.get("originalLayersNames", "")).split(",") if name),
        tuple(port.get_element_type().get_type_name() for port in node.inputs()),
        tuple(shapes),
        tuple(s.get_length() if s.is_static else 0 for s in out),
    )


def _matched(kernel: _Kernel, operations: dict[str, Any], told: dict[str, Layer], wanted: set[str]) -> Iterator[str]:
    """Yield the layers that a kernel executes: those it names, or that lie before what it names."""
    for name in kernel.names:
        op = operations.get(name) or operations.get(name.removesuffix("/DequantizationMultiply"))
        for _ in range(BEHIND):
            if op is None:
                break
            if op.get_type_name() in wanted and op.get_friendly_name() in told:
                yield op.get_friendly_name()
                break
            op = next((v.get_node() for v in op.input_values() if _constant(v)[0] is None), None)


def _could_be(kernel: _Kernel, layer: Layer) -> bool:
    return any(math.prod(shape) == layer.weights for shape in kernel.inputs if len(shape) > 1)


def _executed(layer: Layer, kernel: _Kernel) -> Layer:
    dtype, note = _computes_in(kernel)
    return replace(layer, compute_dtype=dtype, note=note or layer.note)


def _computes_in(kernel: _Kernel) -> tuple[str, str]:
    """Return what a kernel multiplies in, and why where that is not known."""
    first = kernel.types[0] if kernel.types else ""
    if kernel.kind == "Gather":
        return OPENVINO_TYPES.get(first, first), ""
    suffix = kernel.primitive.rsplit("_", 1)[-1].lower()
    if suffix in ("i8", "u8"):
        return "int8", ""
    compressed = kernel.kind == "FullyConnected" and kernel.types[1:2] and kernel.types[1] in ("i8", "u8", "i4", "u4")
    if compressed and first == "f32" and _has_vnni():
        return UNKNOWN, MAY_BE_DYNAMIC
    if suffix in OPENVINO_TYPES:
        return OPENVINO_TYPES[suffix], ""
    # Reference kernels ("ref_any") say no type: they work in that of their input.
    return OPENVINO_TYPES.get(first, UNKNOWN), ""


def _has_vnni() -> bool:
    path = Path("/proc/cpuinfo")
    # Where the system does not tell, it may have.
    return not path.is_file() or "vnni" in path.read_text()


def _product(kernel: _Kernel, rows: int) -> Layer:
    """Return a product of two activations that only the executed graph has."""
    dtype, note = _computes_in(kernel)
    depth = kernel.inputs[0][-1] if kernel.inputs and kernel.inputs[0] else 0
    name = kernel.names[0] if kernel.names else kernel.kind
    return Layer(name, "MatMul", "", dtype, macs=math.prod(kernel.output) * depth // max(1, rows), note=note)


def _in_body(loop: Any, rows: int) -> Iterator[Layer]:
    """Yield the layers in a loop's body, with the multiplications of all its turns."""
    body = loop.get_function()
    turns = _turns(loop, body)
    for op in body.get_ordered_ops():
        if _is_layer(op):
            layer = _told(op, rows)
            note = layer.note if turns else "it can't be told how often the loop runs: one turn is counted"
            yield replace(layer, macs=layer.macs * (turns or 1), note=note)
        elif op.get_type_name() in LOOPS:
            yield from (replace(layer, macs=layer.macs * (turns or 1)) for layer in _in_body(op, rows))


def _turns(loop: Any, body: Any) -> int:
    """Return how often a loop runs, 0 where that can't be told."""
    turns: int = loop.get_num_iterations()
    if turns > 0:
        return turns
    if loop.get_type_name() != "Loop":
        return 0
    # A counted loop of TensorFlow's goes on while a counter is less than its limits.
    _, port = loop.get_special_body_ports()
    waiting, limits = [body.get_results()[port].input_value(0).get_node()], []
    while waiting:
        node = waiting.pop()
        if node.get_type_name() == "LogicalAnd":
            waiting += [value.get_node() for value in node.input_values()]
        elif node.get_type_name() == "Less":
            constant, _ = _constant(node.input_value(1))
            limits += [] if constant is None else [int(_values(constant).reshape(-1)[0])]
    return min(limits, default=0)


def _float_body(layer: Layer, compiled: Any) -> Layer:
    """Return a layer of a loop's body, which the executed graph does not show.

    Without quantizers in the body nothing there becomes an integer, and what is float runs in the precision that the
    compiled model reports.
    """
    hint = str(compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name())
    if layer.weight_dtype in ("float32", "float16", "bfloat16", "") and hint in OPENVINO_TYPES:
        return replace(layer, compute_dtype=OPENVINO_TYPES[hint])
    return replace(layer, note="in the body of a loop, which the executed graph does not show")


__all__ = ["executed_layers"]
