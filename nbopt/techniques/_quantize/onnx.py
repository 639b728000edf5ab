"""Quantize ONNX graphs with ONNX Runtime's own tools."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbopt.draft import Context, Lowered
from nbopt.errors import MissingExtra
from nbopt.frameworks import Exported, Signature
from nbopt.measurement.environment import has_exact_int8
from nbopt.runtimes import Runtime
from nbopt.techniques._quantize import quieting
from nbopt.techniques._quantize.calibrating import calibration_rows
from nbopt.techniques._quantize.mixed import manifest_for, write_mixed
from nbopt.techniques._quantize.refusals import of_whole_numbers

if TYPE_CHECKING:
    from nbopt.techniques.quantize import Quantize

# An LSTM's or GRU's weights quantize dynamically only by way of com.microsoft's own ops, per channel; of the rest
# ONNX Runtime has integer kernels for these.
DYNAMIC_OPS = ["MatMul", "Gemm", "Attention", "LSTM", "Gather", "EmbedLayerNormalization"]


def refuses(options: Quantize, runtime: Runtime, framework: str) -> str:
    """Return why the options have no way here, "" where they have."""
    if options.dtype == "bfloat16":
        return "no bfloat16 kernels on CPU: --dtype float16, or --runtime openvino"
    if options.bias_correction:
        return "its quantizer corrects no biases: --runtime openvino"
    if runtime.symmetric_int8 and options.how in ("dynamic", "weight_only"):
        return f"it has no kernels for --method {options.how}: --method static"
    return of_whole_numbers(options)


def lower(
    model: Any,
    signature: Signature,
    source: Exported,
    runtime: Runtime,
    folder: Path,
    context: Context,
    options: Quantize,
) -> Lowered:
    """Write a QDQ graph (static), integer products (dynamic), MatMulNBits (weight_only), or float16 weights."""
    try:
        from onnxruntime import quantization
    except ImportError as error:
        raise MissingExtra("onnxruntime", "torch", "quantization of ONNX graphs") from error
    from nbopt.techniques._quantize.onnx_half import write_half
    from nbopt.techniques._quantize.onnx_static import OnnxParts
    from nbopt.techniques._quantize.onnx_weights import write_weight_only

    target = folder / "model.onnx"
    if options.dtype == "float16":
        dtype = context.workload.framework.float_dtype(context.workload.model)
        told = write_half(source.path, target, dtype)
        storage = f"float16 is the storage: {runtime.title} computes in {dtype} on CPU, so it is smaller, not faster"
        return Lowered(Exported(target, source.batch), "float16", told if runtime.half_kernels else (storage, *told))
    with quiet(), tempfile.TemporaryDirectory(prefix="nbopt-quantize-") as name:
        scratch = Path(name)
        if options.how == "weight_only":
            notes = write_weight_only(source.path, target, options, scratch)
            return Lowered(Exported(target, source.batch), "int8", notes)
        prepared = scratch / "prepared.onnx"
        quantization.quant_pre_process(str(source.path), str(prepared), skip_symbolic_shape=True)
        if options.how == "dynamic":
            quantization.quantize_dynamic(
                prepared,
                target,
                weight_type=quantization.QuantType.QInt8,
                per_channel=options.per_channel,
                reduce_range=not has_exact_int8(),
                op_types_to_quantize=_dynamic_ops(prepared),
            )
            return Lowered(Exported(target, source.batch), "int8")
        rows, notes = calibration_rows(signature, context, options)
        parts = OnnxParts(prepared, rows, options, scratch, symmetric=runtime.symmetric_int8)
        manifest = manifest_for(runtime, signature, source)
        mixed = write_mixed(parts, target, options.keep_float, source.path, manifest, runtime, context)
    notes = tuple(filter(None, (*notes, parts.note, *mixed.notes)))
    return Lowered(Exported(target, source.batch), "int8", notes, mixed.to_dict())


def _dynamic_ops(path: Path) -> list[str]:
    """Return what to quantize dynamically.

    Embeddings beside a loop stay in float: ONNX Runtime 1.32 ends the process with an assertion when it moves their
    DequantizeLinear into the loop, as in a Keras LSTM behind an Embedding with `mask_zero=True`.
    """
    return [op for op in DYNAMIC_OPS if op != "Gather" or not has_loops(path)]


def has_loops(path: Path) -> bool:
    """Tell whether a graph has loops or branches."""
    import onnx

    return any(node.op_type in ("Loop", "Scan", "If") for node in onnx.load(path, load_external_data=False).graph.node)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the quantizer's advice to preprocess (done here), and what it logs of errors that come, out of the cell."""
    import onnxruntime

    quantizers = ("onnxruntime.quantization", "onnxruntime.quantization.matmul_nbits_quantizer")
    onnxruntime.set_default_logger_severity(4)  # of sessions that its tools open, on tensors which they leave over
    try:
        with quieting.quiet("", errors=quantizers):
            yield
    finally:
        onnxruntime.set_default_logger_severity(2)  # its own default; it does not tell what was set
