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
from nbopt.runtimes import Runtime
from nbopt.technique import Context, Lowered

if TYPE_CHECKING:
    from nbopt.techniques.quantize import Quantize

# An LSTM's or GRU's weights quantize dynamically only by way of com.microsoft's own ops, per channel; of the rest
# ONNX Runtime has integer kernels for these.
DYNAMIC_OPS = ["MatMul", "Gemm", "Attention", "LSTM", "Gather", "EmbedLayerNormalization"]


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
    try:
        from onnxruntime import quantization
    except ImportError as error:
        raise MissingExtra("onnxruntime", "torch", "quantization of ONNX graphs") from error
    target = folder / "model.onnx"
    if options.dtype == "float16":
        return _half(source, target)
    with quiet(), tempfile.TemporaryDirectory(prefix="nbopt-quantize-") as scratch:
        prepared = Path(scratch) / "prepared.onnx"
        quantization.quant_pre_process(str(source.path), str(prepared), skip_symbolic_shape=True)
        if options.method == "dynamic":
            quantization.quantize_dynamic(
                prepared,
                target,
                weight_type=quantization.QuantType.QInt8,
                per_channel=options.per_channel,
                op_types_to_quantize=DYNAMIC_OPS,
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
            # Kernels without VNNI add pairs of products in 16 bits, which saturates with full-range weights: seven
            # bits keep the sums exact there (ONNX Runtime's documentation, "reduce range").
            reduce_range=not _has_exact_int8(),
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


def _has_exact_int8() -> bool:
    from nbopt.measurement.environment import machine

    sets = machine()["instruction_sets"]
    return any(name in sets for name in ("AVX512-VNNI", "AVX-VNNI", "AMX-INT8", "NEON-DOTPROD", "I8MM"))


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
    loggers = [logging.getLogger(), logging.getLogger("onnxruntime.quantization")]
    levels = [logger.level for logger in loggers]
    for logger, level in zip(loggers, (logging.ERROR, logging.CRITICAL), strict=True):
        logger.setLevel(level)
    try:
        # Ranges of an input that never varies, such as a mask, are divided by zero on the way.
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
