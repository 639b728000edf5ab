"""Weights alone in 4 or 8 bits in ONNX graphs: ONNX Runtime's MatMulNBits."""

from __future__ import annotations

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
    notes = ["the kernel rounds activations to int8 a block at a time (accuracy level 4)"]
    notes += told({name: width for name, (_, width) in widths.items()}, chosen, wanted, options.group_size)
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

    MatMulNBits takes MatMul only, and leaves a Gemm in float without a word: all of a torch MLP.
    """
    from onnx import helper, numpy_helper

    constants = {tensor.name: tensor for tensor in graph.initializer}
    uses: dict[str, int] = {}
    for node in graph.node:
        for name in node.input:
            uses[name] = uses.get(name, 0) + 1
    nodes: list[Any] = []
    found: dict[str, tuple[str, int]] = {}
    for index, node in enumerate(graph.node):
        weights = constants.get(node.input[1]) if len(node.input) > 1 else None
        if node.op_type not in ("MatMul", "Gemm") or weights is None or len(weights.dims) != 2:
            nodes.append(node)
            continue
        node.name = node.name or f"{node.op_type}_{index}"
        layer = owner_of(weights.name) or node.name
        if node.op_type == "Gemm":
            about = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
            scaled = about.get("alpha", 1.0) != 1.0 or about.get("beta", 1.0) != 1.0
            if scaled or about.get("transA", 0):
                nodes.append(node)
                continue
            if about.get("transB", 0):
                name = f"{weights.name}_transposed"
                if name not in constants:
                    turned = numpy_helper.from_array(np.ascontiguousarray(numpy_helper.to_array(weights).T), name)
                    constants[name] = turned
                    graph.initializer.append(turned)
                    uses[weights.name] -= 1
                    if not uses[weights.name]:
                        graph.initializer.remove(weights)
                weights = constants[name]
            biased = len(node.input) > 2 and node.input[2]
            product = f"{node.output[0]}_product" if biased else node.output[0]
            nodes.append(helper.make_node("MatMul", [node.input[0], weights.name], [product], name=node.name))
            if biased:
                nodes.append(
                    helper.make_node("Add", [product, node.input[2]], [node.output[0]], name=f"{node.name}_bias")
                )
        else:
            nodes.append(node)
        found[layer if layer not in found else node.name] = (node.name, int(weights.dims[0]))
    del graph.node[:]
    graph.node.extend(nodes)
    return found


def _is_table(node: Any, graph: Any) -> bool:
    return any(tensor.name == node.input[0] and len(tensor.dims) == 2 for tensor in graph.initializer)
