"""Quantize ONNX graphs with ONNX Runtime's own tools."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nbopt.data import Inputs
from nbopt.errors import MissingExtra
from nbopt.frameworks import Exported, Signature
from nbopt.measurement.environment import has_exact_int8
from nbopt.runtimes import Runtime
from nbopt.technique import Context, Lowered

if TYPE_CHECKING:
    import onnx

    from nbopt.techniques.quantize import Quantize

# An LSTM's or GRU's weights quantize dynamically only by way of com.microsoft's own ops, per channel; of the rest
# ONNX Runtime has integer kernels for these.
DYNAMIC_OPS = ["MatMul", "Gemm", "Attention", "LSTM", "Gather", "EmbedLayerNormalization"]
PRODUCTS = ("MatMul", "Gemm", "Conv", "ConvTranspose", "LSTM", "GRU", "RNN", "Gather", "LayerNormalization")


def refuses(options: Quantize) -> str:
    """Return why the options have no way here, "" where they have."""
    if options.dtype == "bfloat16":
        return "no bfloat16 kernels on CPU: --dtype float16, or --runtime openvino"
    return ""


def lower(
    model: Any,
    signature: Signature,
    source: Exported,
    runtime: Runtime,
    folder: Path,
    context: Context,
    options: Quantize,
) -> Lowered:
    """Write a QDQ graph (int8 static), integer matrix products (int8 dynamic), or float16 weights."""
    import onnx

    try:
        from onnxruntime import quantization
    except ImportError as error:
        raise MissingExtra("onnxruntime", "torch", "quantization of ONNX graphs") from error
    target = folder / "model.onnx"
    if options.dtype == "float16":
        return _half(source, target)
    # Kernels without VNNI add pairs of products in 16 bits, which saturates with full-range weights: seven bits keep
    # the sums exact there (ONNX Runtime's documentation, "reduce range").
    seven_bits = not has_exact_int8()
    with quiet(), tempfile.TemporaryDirectory(prefix="nbopt-quantize-") as scratch:
        prepared = Path(scratch) / "prepared.onnx"
        quantization.quant_pre_process(str(source.path), str(prepared), skip_symbolic_shape=True)
        if options.method == "dynamic":
            quantization.quantize_dynamic(
                prepared,
                target,
                weight_type=quantization.QuantType.QInt8,
                per_channel=options.per_channel,
                reduce_range=seven_bits,
                op_types_to_quantize=_dynamic_ops(prepared),
            )
            return Lowered(Exported(target, source.batch), "int8")
        rows, note = context.workload.calibration(options.calibration, context.rng())
        quantization.quantize_static(
            prepared,
            target,
            _Rows(rows, signature.names, _graph_inputs(prepared)),
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=options.per_channel,
            nodes_to_exclude=_masking(onnx.load(prepared).graph),
            reduce_range=seven_bits,
            extra_options={"ActivationSymmetric": False, "CalibMovingAverage": False},
        )
    return Lowered(Exported(target, source.batch), "int8", (note,) if note else ())


class _Rows:
    """Feed calibration rows to ONNX Runtime's calibrator."""

    def __init__(self, rows: list[Inputs], names: list[str], used: set[str]) -> None:
        self._rows: Iterator[Inputs] = iter(rows)
        self._names, self._used = names, used

    def get_next(self) -> dict[str, Any] | None:
        """Return the next row by input name, or None after the last."""
        row = next(self._rows, None)
        if row is None:
            return None
        named = row if isinstance(row, dict) else dict(zip(self._names, row, strict=True))
        return {name: np.ascontiguousarray(value) for name, value in named.items() if name in self._used}


def _graph_inputs(path: Path) -> set[str]:
    import onnx

    return {value.name for value in onnx.load(path, load_external_data=False).graph.input}


MASKED = 1e4
"""Constants from here on stand for minus infinity: what a mask adds to the scores of an attention, or puts there."""


def _masking(graph: onnx.GraphProto) -> list[str]:
    """Return the nodes from a mask's constant to the softmax that it is for, which must stay in float.

    The range of scores with -3e38 among them has no room for the scores: int8 took a BERT from 93% to 59%.
    """
    from onnx import numpy_helper

    consumers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    floats = [t for t in graph.initializer if t.data_type in (1, 10, 11)]  # float32, float16, float64
    pending = [t.name for t in floats if np.abs(numpy_helper.to_array(t)).max(initial=0) >= MASKED]
    found: dict[str, None] = {}
    while pending:
        for node in consumers.get(pending.pop(), ()):
            if node.name in found or node.op_type in PRODUCTS:
                continue
            found[node.name] = None
            if node.op_type != "Softmax":
                pending += node.output
    return list(found)


def _dynamic_ops(path: Path) -> list[str]:
    """Return what to quantize dynamically.

    Embeddings beside a loop stay in float: ONNX Runtime 1.32 ends the process with an assertion when it moves their
    DequantizeLinear into the loop, as in a Keras LSTM behind an Embedding with `mask_zero=True`.
    """
    import onnx

    loops = any(node.op_type in ("Loop", "Scan", "If") for node in onnx.load(path, load_external_data=False).graph.node)
    return [op for op in DYNAMIC_OPS if op != "Gather" or not loops]


def _half(source: Exported, target: Path) -> Lowered:
    """Store weights as float16 behind a Cast each; ONNX Runtime computes in float32 on CPU."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    graph = onnx.load(source.path)
    casts = []
    for tensor in graph.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or int(np.prod(tensor.dims)) < 2:
            continue
        name = tensor.name
        half = numpy_helper.to_array(tensor).clip(-65504, 65504).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(half, f"{name}_float16"))
        casts.append(helper.make_node("Cast", [f"{name}_float16"], [name], to=TensorProto.FLOAT))
    nodes = list(graph.graph.node)
    del graph.graph.node[:]
    graph.graph.node.extend([*casts, *nodes])
    onnx.save_model(graph, target)
    note = "float16 is the storage: ONNX Runtime computes in float32 on CPU, so it is smaller, not faster"
    return Lowered(Exported(target, source.batch), "float16", (note,))


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the quantizer's advice to preprocess (done here), and what it logs of errors that come, out of the cell."""
    import onnxruntime

    loggers = [logging.getLogger(), logging.getLogger("onnxruntime.quantization")]
    levels = [logger.level for logger in loggers]
    for logger, level in zip(loggers, (logging.ERROR, logging.CRITICAL), strict=True):
        logger.setLevel(level)
    onnxruntime.set_default_logger_severity(4)  # of sessions that its tools open, on tensors which they leave over
    try:
        # Ranges of an input that never varies, such as a mask, are divided by zero on the way.
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        onnxruntime.set_default_logger_severity(2)  # its own default; it does not tell what was set
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
