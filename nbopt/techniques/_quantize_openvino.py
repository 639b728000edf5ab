"""Quantize OpenVINO IR with NNCF."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nbopt.data import Inputs
from nbopt.errors import ExportError, MissingExtra
from nbopt.frameworks import Exported, Signature
from nbopt.measurement.environment import has_exact_int8, machine
from nbopt.runtimes import Runtime
from nbopt.technique import Context, Lowered

if TYPE_CHECKING:
    from nbopt.techniques.quantize import Quantize


def refuses(options: Quantize) -> str:
    """Return why the options have no way here, "" where they have."""
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
    """Write IR with FakeQuantize nodes (int8 static), int8 weights (int8 dynamic), or half-size weights."""
    try:
        import openvino
    except ImportError as error:
        raise MissingExtra("openvino", "torch", "quantization of OpenVINO IR") from error
    target = folder / "model.xml"
    graph = openvino.Core().read_model(source.path)
    if options.dtype != "int8":
        return _half(graph, target, source, options.dtype)
    try:
        import nncf
    except ImportError as error:
        raise MissingExtra("nncf", "torch", "quantization of OpenVINO IR") from error
    with quiet():
        if options.method == "dynamic":
            compressed = nncf.compress_weights(graph, mode=nncf.CompressWeightsMode.INT8_SYM)
            openvino.save_model(compressed, target, compress_to_fp16=False)
            note = "OpenVINO keeps weights in int8; whether activations become int8 on the fly is up to its plugin"
            return Lowered(Exported(target, source.batch), "int8", (note,))
        rows, note = context.workload.calibration(options.calibration, context.rng())
        used = {name for port in graph.inputs for name in port.get_names()}

        def feed(row: Inputs) -> Any:
            named = row if isinstance(row, dict) else dict(zip(signature.names, row, strict=True))
            kept = {name: value for name, value in named.items() if name in used}
            if len(kept) == len(graph.inputs):
                return kept
            if isinstance(row, dict) or len(row) != len(graph.inputs):
                raise ExportError(f"inputs {', '.join(sorted(used))}", f"{', '.join(named)}")
            return row if len(row) > 1 else row[0]

        quantized = nncf.quantize(
            graph, nncf.Dataset(rows, feed), subset_size=len(rows), target_device=nncf.TargetDevice.CPU, **_how(graph)
        )
        openvino.save_model(quantized, target, compress_to_fp16=False)
    return Lowered(Exported(target, source.batch), "int8", (note,) if note else ())


def _how(graph: Any) -> dict[str, Any]:
    """Return NNCF's options for a graph.

    Measured on small nets, as rms error of the outputs:

    - Ranges are the extremes of all rows. NNCF's default, the mean of each row's extremes, clips what varies from
      row to row: 0.27 against 0.09 for a residual net on images, and worse on tables.
    - Activations are asymmetric: symmetric ones cost an LSTM 6 points of accuracy.
    - Kernels without VNNI add pairs of products in 16 bits, which saturates with full-range weights. NNCF spares the
      first layer only: an MLP's error was 2.0, and 0.4 with seven bits in every layer.
    - Biases stay: NNCF's quick correction of them made a residual net's error 0.09 from 0.05, and another's 0.62 from
      0.06, which cost it 15 points.
    - Attention is marked: quantizing the sum with a mask of -3e38 took a BERT from 92% to 37%. What NNCF does there
      beside it, moving scales from activations into weights (SmoothQuant), took an encoder from 96% to 74%: left out.
    """
    import nncf
    from nncf.quantization.advanced_parameters import (
        AdvancedQuantizationParameters,
        AdvancedSmoothQuantParameters,
        OverflowFix,
    )
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    return {
        "preset": nncf.QuantizationPreset.MIXED,
        "model_type": nncf.ModelType.TRANSFORMER if _has_attention(graph) else None,
        "advanced_parameters": AdvancedQuantizationParameters(
            overflow_fix=OverflowFix.DISABLE if has_exact_int8() else OverflowFix.ENABLE,
            disable_bias_correction=True,
            activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
            smooth_quant_alphas=AdvancedSmoothQuantParameters(convolution=-1, matmul=-1),
        ),
    }


# What may stand between the softmax and the product: shapes, and a guard for rows that are masked altogether.
BETWEEN = ("Reshape", "Convert", "Select", "Transpose", "Squeeze", "Unsqueeze")


def _has_attention(graph: Any) -> bool:
    """Tell whether a softmax goes into a product of matrices, as it does in attention."""
    for node in graph.get_ops():
        kind = node.get_type_name()
        if kind == "ScaledDotProductAttention":
            return True
        pending = [node] if kind == "Softmax" else []
        while pending:
            for port in pending.pop().output(0).get_target_inputs():
                follower = port.get_node()
                if follower.get_type_name() == "MatMul":
                    return True
                if follower.get_type_name() in BETWEEN:
                    pending.append(follower)
    return False


def _half(graph: Any, target: Path, source: Exported, dtype: str) -> Lowered:
    """Store weights in 16 bits; execute in bfloat16 where that was asked for and the CPU has it."""
    import openvino

    openvino.save_model(graph, target, compress_to_fp16=True)
    notes = ["weights are stored as float16: OpenVINO has no bfloat16 files"] if dtype == "bfloat16" else []
    wanted = {"bfloat16": ("AVX512-BF16", "AMX-BF16", "BF16"), "float16": ("AVX512-FP16",)}[dtype]
    if not set(wanted) & set(machine()["instruction_sets"]):
        notes.append(f"this CPU has no {dtype} instructions: it computes in float32, so it is smaller, not faster")
    return Lowered(Exported(target, source.batch), dtype, tuple(notes))


@contextmanager
def quiet() -> Iterator[None]:
    """Keep NNCF's progress bars and advice out of the cell; nbopt shows its own progress."""
    import rich

    logger, console = logging.getLogger("nncf"), rich.get_console()
    level, in_notebook = logger.level, console.is_jupyter
    logger.setLevel(logging.ERROR)
    # In a notebook rich shows its bars as a widget, past any redirection, and an empty one stays in the output.
    console.is_jupyter = False
    try:
        # The mask of an attention has -3e38 in it, whose statistics overflow on the way.
        with (
            np.errstate(all="ignore"),
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
        console.is_jupyter = in_notebook
