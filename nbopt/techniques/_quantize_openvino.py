"""Quantize OpenVINO IR with NNCF."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbopt.data import Inputs
from nbopt.errors import ExportError, MissingExtra
from nbopt.frameworks import Exported, Signature
from nbopt.measurement.environment import machine
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
            graph, nncf.Dataset(rows, feed), subset_size=len(rows), target_device=nncf.TargetDevice.CPU
        )
        openvino.save_model(quantized, target, compress_to_fp16=False)
    return Lowered(Exported(target, source.batch), "int8", (note,) if note else ())


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
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
        console.is_jupyter = in_notebook
