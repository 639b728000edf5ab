"""Weights alone in 4 or 8 bits in .tflite files: the ai-edge-quantizer."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from nbopt.errors import ExportError, MissingExtra
from nbopt.techniques._quantize.weights import bits_of, told

if TYPE_CHECKING:
    from nbopt.techniques.quantize import Quantize


def write_weight_only(source: Path, target: Path, options: Quantize) -> tuple[str, ...]:
    """Write the file with its fully connected layers in int4, or all weights in int8; return notes.

    Raises:
        ExportError: There is no fully connected layer for int4.
        MissingExtra: The ai-edge-quantizer is not installed.
    """
    try:
        from ai_edge_quantizer import qtyping, quantizer
    except ImportError as error:
        raise MissingExtra("ai-edge-quantizer", "tensorflow", "weights alone in fewer bits on LiteRT") from error
    from nbopt.frameworks._quiet import quiet

    widths = _linear_widths(source)
    if options.dtype == "int4" and not widths:
        raise ExportError(
            "fully connected layers, whose weights go to int4", "none in this model", "--dtype int8, or --dtype float16"
        )
    bits = 4 if options.dtype == "int4" else 8
    chosen = bits_of(widths, bits, options.group_size)
    sizes = {
        16: None, 32: qtyping.QuantGranularity.BLOCKWISE_32, 64: qtyping.QuantGranularity.BLOCKWISE_64,
        128: qtyping.QuantGranularity.BLOCKWISE_128, 256: qtyping.QuantGranularity.BLOCKWISE_256,
    }  # fmt: skip
    block = sizes[options.group_size]
    if bits == 4 and block is None:
        raise ExportError("groups that LiteRT has", f"--group-size {options.group_size}", "--group-size 32 or more")
    with quiet():
        work = quantizer.Quantizer(str(source))

        def ask(regex: str, operation: str, count: int, granularity: object, explicit: bool) -> None:
            weight = qtyping.TensorQuantizationConfig(count, True, granularity)
            precision = qtyping.ComputePrecision.FLOAT if explicit else qtyping.ComputePrecision.INTEGER
            config = qtyping.OpQuantizationConfig(
                weight_tensor_config=weight, compute_precision=precision, explicit_dequantize=explicit
            )
            work.update_quantization_recipe(
                regex=regex, operation_name=operation, op_config=config, algorithm_key="min_max_uniform_quantize"
            )

        ask(".*", qtyping.TFLOperationName.ALL_SUPPORTED, 8, qtyping.QuantGranularity.CHANNELWISE, True)
        for name in (name for name, count in chosen.items() if count == bits == 4):
            # Groups have kernels only with activations that become int8 as they come.
            ask(re.escape(name), qtyping.TFLOperationName.FULLY_CONNECTED, 4, block, False)
        target.write_bytes(work.quantize().quantized_model)
    note = "int8 weights become float32 again when the file is loaded: it is smaller, not faster"
    if 4 in chosen.values():
        note += "; int4 layers round activations to int8 as they come"
    return (note, *told(widths, chosen, bits, options.group_size))


def _linear_widths(path: Path) -> dict[str, int]:
    """Return the inputs of each fully connected layer with constant weights, by the name of what it makes."""
    from ai_edge_litert.interpreter import Interpreter

    from nbopt.frameworks._quiet import quiet

    with quiet():
        interpreter = Interpreter(model_path=str(path))
        tensors = {tensor["index"]: tensor for tensor in interpreter.get_tensor_details()}
        operators = [op for op in interpreter._get_ops_details() if op["op_name"] == "FULLY_CONNECTED"]
    return {
        tensors[op["outputs"][0]]["name"].split(";")[0]: int(tensors[op["inputs"][1]]["shape"][-1]) for op in operators
    }
