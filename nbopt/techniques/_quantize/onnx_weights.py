"""Weights alone in 4 or 8 bits in ONNX graphs: ONNX Runtime's MatMulNBits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nbopt.errors import ExportError
from nbopt.runtimes._layer_parts import owner_of
from nbopt.techniques._quantize.weights import bits_of, block_of, told

if TYPE_CHECKING:
    import onnx

    from nbopt.techniques.quantize import Quantize

BLOCKS = (16, 32, 64, 128, 256)
"""Blocks that MatMulNBits has kernels for."""


def write_weight_only(source: Path, target: Path, options: Quantize, scratch: Path) -> tuple[str, ...]:
    """Write the graph with its linear layers as MatMulNBits and its embeddings in int8; return notes.

    Raises:
        ExportError: There is no linear layer in it.
    """
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    model = onnx.load(source)
    widths = _plain_products(model.graph)
    if not widths:
        raise ExportError(
            "linear layers, whose weights alone can be quantized",
            "none in this model: convolutions and recurrent layers have no such kernels in ONNX Runtime",
            "--method static, or --dtype float16",
        )
    wanted = 4 if options.dtype == "int4" else 8
    chosen = bits_of({name: width for name, (_, width) in widths.items()}, wanted, options.group_size)
    blocks = {
        name: (bits, options.group_size if bits == 4 else block_of(widths[name][1], options.group_size, BLOCKS))
        for name, bits in chosen.items()
    }
    for bits, block in sorted(set(blocks.values())):
        quantizer = MatMulNBitsQuantizer(
            model,
            bits=bits,
            block_size=block,
            is_symmetric=True,
            # Activations become int8 a block at a time inside the kernel, which is what makes it fast.
            accuracy_level=4,
            nodes_to_exclude=[node for name, (node, _) in widths.items() if blocks[name] != (bits, block)],
            op_types_to_quantize=("MatMul",),
        )
        quantizer.process()
        model = quantizer.model.model
    _drop_unread(model.graph)  # it writes weights that several products share once for each
    notes = ["the kernel rounds activations to int8 a block at a time (accuracy level 4)"]
    notes += told({name: width for name, (_, width) in widths.items()}, chosen, wanted, options.group_size)
    left = _left_in_float(model.graph)
    if left:
        notes.append(f"products that MatMulNBits does not take stay float: {', '.join(left)}")
    others = [n.name for n in model.graph.node if n.op_type in ("Conv", "ConvTranspose", "LSTM", "GRU", "RNN")]
    if others:
        notes.append(f"linear layers only: {len(others)} convolutions or recurrent layers stay float")
    tables = any(node.op_type == "Gather" and _is_table(node, model.graph) for node in model.graph.node)
    loops = any(node.op_type in ("Loop", "Scan", "If") for node in model.graph.node)
    if not tables or loops:
        onnx.save_model(model, target)
        return tuple(notes)
    between = scratch / "products.onnx"
    onnx.save_model(model, between)
    quantization.quantize_dynamic(
        between, target, weight_type=quantization.QuantType.QInt8, op_types_to_quantize=["Gather"]
    )
    notes.append("embeddings are in int8")
    return tuple(notes)


def _plain_products(graph: onnx.GraphProto) -> dict[str, tuple[str, int]]:
    """Make a MatMul and an Add of every Gemm with weights, in place; return node and width of each layer by name.

    MatMulNBits takes MatMul only, and leaves a Gemm in float without a word: all of a torch MLP. Nor does it see
    weights behind a Transpose, as those are that several nodes read: a head that is tied to the embedding.
    """
    from onnx import helper, numpy_helper

    constants = {tensor.name: tensor for tensor in graph.initializer}
    behind = _behind(graph, constants)
    nodes: list[Any] = []
    found: dict[str, tuple[str, int]] = {}

    def weights_of(stored: str, *, turned: bool) -> str:
        """Return the name of stored weights, or of a copy of them that is turned."""
        name = f"{stored}_transposed" if turned else stored
        if name not in constants:
            array = np.ascontiguousarray(numpy_helper.to_array(constants[stored]).T)
            constants[name] = numpy_helper.from_array(array, name)
            graph.initializer.append(constants[name])
        return name

    for index, node in enumerate(graph.node):
        stored, turned = behind.get(node.input[1], ("", False)) if len(node.input) > 1 else ("", False)
        about = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
        scaled = about.get("alpha", 1.0) != 1.0 or about.get("beta", 1.0) != 1.0
        if node.op_type not in ("MatMul", "Gemm") or not stored or scaled or about.get("transA", 0):
            nodes.append(node)
            continue
        node.name = node.name or f"{node.op_type}_{index}"
        layer = owner_of(stored) or node.name
        weights = weights_of(stored, turned=turned != bool(about.get("transB", 0)))
        biased = node.op_type == "Gemm" and len(node.input) > 2 and node.input[2]
        product = f"{node.output[0]}_product" if biased else node.output[0]
        nodes.append(helper.make_node("MatMul", [node.input[0], weights], [product], name=node.name))
        if biased:
            nodes.append(helper.make_node("Add", [product, node.input[2]], [node.output[0]], name=f"{node.name}_bias"))
        found[layer if layer not in found else node.name] = (node.name, int(constants[weights].dims[0]))
    del graph.node[:]
    graph.node.extend(nodes)
    _drop_unread(graph)
    return found


def _left_in_float(graph: onnx.GraphProto) -> list[str]:
    """Return the products that still multiply with float constants, by layer or node."""
    floats = {tensor.name for tensor in graph.initializer if tensor.data_type in (1, 10, 11) and len(tensor.dims) > 1}
    products = [node for node in graph.node if node.op_type in ("MatMul", "Gemm")]
    pairs = [(node, name) for node in products for name in node.input[:2] if name in floats]
    return [owner_of(name) or node.name for node, name in pairs]


def _behind(graph: onnx.GraphProto, constants: Mapping[str, onnx.TensorProto]) -> dict[str, tuple[str, bool]]:
    """Return for each name of a constant matrix, or of one turned, what is stored and whether it is turned."""
    from onnx import helper

    found = {name: (name, False) for name, tensor in constants.items() if len(tensor.dims) == 2}
    for node in graph.node:
        if node.op_type in ("Identity", "Transpose") and node.input[0] in found:
            stored, turned = found[node.input[0]]
            order = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}.get("perm", [1, 0])
            swaps = node.op_type == "Transpose" and list(order) == [1, 0]
            found[node.output[0]] = (stored, turned != swaps)
    return found


def _drop_unread(graph: onnx.GraphProto) -> None:
    """Take out the Transposes and weights that nothing reads any more, and what there is twice of one name."""
    nodes = list(graph.node)
    while True:
        read = _read(nodes) | {value.name for value in graph.output}
        left = [n for n in nodes if n.op_type not in ("Identity", "Transpose") or read & set(n.output)]
        if len(left) == len(nodes):
            break
        nodes = left
    tensors = {tensor.name: tensor for tensor in graph.initializer if tensor.name in read}
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(tensors.values())


def _read(nodes: Iterable[onnx.NodeProto]) -> set[str]:
    """Return the names that nodes read, those in the bodies of loops and branches among them."""
    import onnx

    found: set[str] = set()
    for node in nodes:
        found |= set(node.input)
        for entry in node.attribute:
            if entry.type == onnx.AttributeProto.GRAPH:
                found |= _read(entry.g.node) | {value.name for value in entry.g.output}
    return found


def _is_table(node: Any, graph: Any) -> bool:
    return any(tensor.name == node.input[0] and len(tensor.dims) == 2 for tensor in graph.initializer)
