"""Quantize OpenVINO IR with NNCF."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nbopt.artifacts import available_threads
from nbopt.draft import Context, Lowered
from nbopt.errors import ExportError, MissingExtra
from nbopt.frameworks import Exported, Signature
from nbopt.measurement.environment import has_bfloat16, machine
from nbopt.runtimes import Runtime
from nbopt.runtimes._layer_parts import owner_of
from nbopt.techniques._quantize import quieting
from nbopt.techniques._quantize.calibrating import calibration_rows
from nbopt.techniques._quantize.mixed import manifest_for, write_mixed
from nbopt.techniques._quantize.nearness import judged
from nbopt.techniques._quantize.openvino_static import LAYERS, IrParts
from nbopt.techniques._quantize.refusals import of_groups, of_whole_numbers
from nbopt.techniques._quantize.weights import bits_of, told

if TYPE_CHECKING:
    from nbopt.techniques.quantize import Quantize


def refuses(options: Quantize, runtime: Runtime, framework: str) -> str:
    """Return why the options have no way here, "" where they have."""
    if options.how == "dynamic" and not options.per_channel:
        return "its weights have a scale for each channel: leave --no-per-channel out"
    return of_whole_numbers(options) or of_groups(options)


def lower(
    model: Any,
    signature: Signature,
    source: Exported,
    runtime: Runtime,
    folder: Path,
    context: Context,
    options: Quantize,
) -> Lowered:
    """Write IR with FakeQuantize nodes (static), int8 or int4 weights (dynamic, weight_only), or half-size weights."""
    try:
        import openvino
    except ImportError as error:
        raise MissingExtra("openvino", "torch", "quantization of OpenVINO IR") from error
    target = folder / "model.xml"
    if options.dtype in ("float16", "bfloat16"):
        return _half(openvino.Core().read_model(source.path), target, source, options.dtype)
    try:
        import nncf  # noqa: F401 - told apart from what it fails at
    except ImportError as error:
        raise MissingExtra("nncf", "torch", "quantization of OpenVINO IR") from error
    with quiet():
        if options.how in ("dynamic", "weight_only"):
            notes = _compress(source.path, target, options)
            return Lowered(Exported(target, source.batch), "int8", notes)
        rows, notes = calibration_rows(signature, context, options)
        if options.calibration_method == "entropy":
            notes = (*notes, "NNCF has no KL divergence: ranges are those of least squared error in its histograms")
        parts = IrParts(source, rows, options)
        manifest = manifest_for(runtime, signature, source)

        def outputs(path: Path) -> list[np.ndarray[Any, Any]]:
            session = runtime.load(path, manifest, threads=available_threads())
            try:
                return judged(lambda row: [session.run(row)], rows)
            finally:
                session.close()

        with tempfile.TemporaryDirectory(prefix="nbopt-quantize-") as scratch:
            parts.smooth_if_far(outputs, Path(scratch))
            mixed = write_mixed(parts, target, options.keep_float, source.path, manifest, runtime, context)
    notes = tuple(filter(None, (*notes, parts.note, *mixed.notes)))
    return Lowered(Exported(target, source.batch), "int8", notes, mixed.to_dict())


def _compress(source: Path, target: Path, options: Quantize) -> tuple[str, ...]:
    """Write IR with compressed weights, activations as they are; return notes."""
    import nncf
    import openvino

    graph = openvino.Core().read_model(source)
    note = "OpenVINO keeps weights in {}; whether activations become int8 on the fly is up to its plugin"
    if options.dtype == "int8":
        compressed = nncf.compress_weights(graph, mode=nncf.CompressWeightsMode.INT8_SYM)
        openvino.save_model(compressed, target, compress_to_fp16=False)
        return (note.format("int8"),)
    widths, names = {}, {}
    for op in graph.get_ordered_ops():
        weights = _weights_of(op) if op.get_type_name() == "MatMul" else None
        if weights is not None and len(weights[1].get_output_shape(0)) == 2:
            port, constant = weights
            layer = owner_of(constant.get_friendly_name()) or op.get_friendly_name()
            layer = layer if layer not in widths else op.get_friendly_name()
            transposed = op.get_attributes().get("transpose_b" if port else "transpose_a")
            rows, columns = constant.get_output_shape(0)
            widths[layer] = columns if bool(transposed) == bool(port) else rows
            names[layer] = op.get_friendly_name()
    if not widths:
        raise ExportError(
            "linear layers, whose weights go to int4", "none in this model", "--dtype int8, or --dtype float16"
        )
    chosen = bits_of(widths, 4, options.group_size)
    eight = [names[layer] for layer, bits in chosen.items() if bits == 8]
    four = [names[layer] for layer, bits in chosen.items() if bits == 4]
    if four:
        # What is left out here, and embeddings, go to int8 in a second pass.
        others = [
            op.get_friendly_name()
            for op in graph.get_ordered_ops()
            if op.get_type_name() in (*LAYERS, "Gather") and op.get_friendly_name() not in set(four)
        ]
        graph = nncf.compress_weights(
            graph,
            mode=nncf.CompressWeightsMode.INT4_SYM,
            group_size=options.group_size,
            ratio=1.0,
            all_layers=True,
            ignored_scope=nncf.IgnoredScope(names=others, validate=False),
        )
    if eight or any(_is_table(op) for op in graph.get_ordered_ops()):
        ignored = nncf.IgnoredScope(names=four, validate=False) if four else None
        graph = nncf.compress_weights(graph, mode=nncf.CompressWeightsMode.INT8_SYM, ignored_scope=ignored)
    openvino.save_model(graph, target, compress_to_fp16=False)
    return (note.format("int4"), *told(widths, chosen, 4, options.group_size))


def _weights_of(op: Any) -> tuple[int, Any] | None:
    """Return position and constant of a product's weights; None where both sides are activations."""
    for port in (1, 0):
        node = op.input_value(port).get_node()
        while node.get_type_name() == "Convert":
            node = node.input_value(0).get_node()
        if node.get_type_name() == "Constant":
            return port, node
    return None


def _is_table(op: Any) -> bool:
    return op.get_type_name() == "Gather" and _weights_of_gather(op)


def _weights_of_gather(op: Any) -> bool:
    node = op.input_value(0).get_node()
    return node.get_type_name() == "Constant" and len(node.get_output_shape(0)) == 2


def _half(graph: Any, target: Path, source: Exported, dtype: str) -> Lowered:
    """Store weights in 16 bits; execute in bfloat16 where that was asked for and the CPU has it."""
    import openvino

    openvino.save_model(graph, target, compress_to_fp16=True)
    notes = ["weights are stored as float16: OpenVINO has no bfloat16 files"] if dtype == "bfloat16" else []
    wanted = {"bfloat16": ("AVX512-BF16", "AMX-BF16", "BF16"), "float16": ("AVX512-FP16",)}[dtype]
    if not set(wanted) & set(machine()["instruction_sets"]):
        # Asked for float16 on a Zen 5, which has bfloat16 alone, OpenVINO executes that, and is faster by it.
        told = (
            "OpenVINO computes in bfloat16"
            if has_bfloat16()
            else "it computes in float32, so it is smaller, not faster"
        )
        notes.append(f"this CPU has no {dtype} instructions: {told}")
    return Lowered(Exported(target, source.batch), dtype, tuple(notes))


@contextmanager
def quiet() -> Iterator[None]:
    """Keep NNCF's progress bars and advice out of the cell; nbopt shows its own progress."""
    _without_bars()
    with quieting.quiet("nncf"):
        yield


@cache
def _without_bars() -> None:
    """Have NNCF show no bar where it is to be quiet: rich draws them in a thread of its own, and as a widget."""
    from nncf.common.logging.track_progress import track

    plain = track.__init__

    def silent(self: Any, *args: Any, **kwargs: Any) -> None:
        plain(self, *args, **(kwargs | {"disable": True} if quieting.muted() else kwargs))

    track.__init__ = silent
