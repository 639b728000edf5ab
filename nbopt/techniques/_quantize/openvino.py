"""Quantize OpenVINO IR with NNCF."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nbopt.draft import Context, Lowered
from nbopt.errors import ExportError, MissingExtra
from nbopt.frameworks import Exported, Signature
from nbopt.measurement.environment import has_bfloat16, has_exact_int8, machine
from nbopt.runtimes import Runtime
from nbopt.runtimes._layer_parts import owner_of
from nbopt.techniques._quantize.calibrating import calibration_rows, stacked
from nbopt.techniques._quantize.mixed import manifest_for, write_mixed
from nbopt.techniques._quantize.refusals import of_groups, of_whole_numbers
from nbopt.techniques._quantize.weights import bits_of, told

if TYPE_CHECKING:
    from nbopt.techniques.quantize import Quantize

LAYERS = ("MatMul", "Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData",
          "LSTMSequence", "GRUSequence", "RNNSequence")  # fmt: skip
"""Operations that are worth leaving in float one by one, with what follows them up to the next."""


def refuses(options: Quantize, runtime: Runtime, framework: str) -> str:
    """Return why the options have no way here, "" where they have."""
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
        parts = _Parts(source, rows, options)
        manifest = manifest_for(runtime, signature, source)
        mixed = write_mixed(parts, target, options.keep_float, source.path, manifest, runtime, context)
    return Lowered(Exported(target, source.batch), "int8", (*notes, *mixed.notes), mixed.to_dict())


class _Parts:
    """Quantize IR again and again from the same rows."""

    def __init__(self, source: Exported, rows: list[dict[str, np.ndarray[Any, Any]]], options: Quantize) -> None:
        self._source, self._options = source.path, options
        graph = self._read()
        unknown = [port.get_any_name() for port in graph.inputs if not set(port.get_names()) & set(rows[0])]
        if unknown:
            raise ExportError(f"inputs {', '.join(unknown)}", ", ".join(rows[0]))
        used = {name for port in graph.inputs for name in port.get_names()}
        self._rows = [{name: value for name, value in row.items() if name in used} for row in rows]
        # A quantile of one row with few values is its extreme: it needs many rows together.
        if options.calibration_method == "percentile" and source.batch is None:
            self._rows = stacked(self._rows)
        self._groups = layer_groups(graph)

    def _read(self) -> Any:
        import openvino

        return openvino.Core().read_model(self._source)

    @property
    def layers(self) -> Sequence[str]:
        """Return the layers that can be left out."""
        return list(self._groups)

    def write(self, target: Path, kept: Collection[str]) -> None:
        """Write IR with some layers in float."""
        import nncf
        import openvino

        graph = self._read()
        names = [node for layer in kept for node in self._groups[layer]]
        ignored = nncf.IgnoredScope(names=names, validate=False) if names else None
        quantized = nncf.quantize(
            graph,
            nncf.Dataset(self._rows),
            subset_size=len(self._rows),
            target_device=nncf.TargetDevice.CPU,
            ignored_scope=ignored,
            **_how(graph, self._options),
        )
        openvino.save_model(quantized, target, compress_to_fp16=False)


def _how(graph: Any, options: Quantize) -> dict[str, Any]:
    """Return NNCF's options for a graph.

    Measured on small nets, as rms error of the outputs:

    - Ranges are the extremes of all rows. NNCF's default, the mean of each row's extremes, clips what varies from
      row to row: 0.27 against 0.09 for a residual net on images, and worse on tables.
    - Activations are asymmetric: symmetric ones cost an LSTM 6 points of accuracy.
    - Kernels without VNNI add pairs of products in 16 bits, which saturates with full-range weights. NNCF spares the
      first layer only: an MLP's error was 2.0, and 0.4 with seven bits in every layer.
    - Biases stay, unless asked for: NNCF's quick correction of them made a residual net's error 0.09 from 0.05, and
      another's 0.62 from 0.06, which cost it 15 points.
    - Attention is marked: quantizing the sum with a mask of -3e38 took a BERT from 92% to 37%. What NNCF does there
      beside it, moving scales from activations into weights (SmoothQuant), took an encoder from 96% to 74%: left out,
      unless asked for.
    """
    import nncf
    from nncf.quantization.advanced_parameters import (
        AdvancedQuantizationParameters,
        AdvancedSmoothQuantParameters,
        OverflowFix,
        QuantizationParameters,
    )

    off = AdvancedSmoothQuantParameters(convolution=-1, matmul=-1)
    return {
        "preset": nncf.QuantizationPreset.MIXED,
        "model_type": nncf.ModelType.TRANSFORMER if options.equalize or _has_attention(graph) else None,
        "advanced_parameters": AdvancedQuantizationParameters(
            overflow_fix=OverflowFix.DISABLE if has_exact_int8() else OverflowFix.ENABLE,
            disable_bias_correction=not options.bias_correction,
            weights_quantization_params=QuantizationParameters(per_channel=options.per_channel),
            activations_range_estimator_params=_ranges(options),
            smooth_quant_alphas=AdvancedSmoothQuantParameters() if options.equalize else off,
        ),
    }


def _ranges(options: Quantize) -> Any:
    """Return NNCF's way to a range: over all rows, as ONNX Runtime's calibrators do it."""
    from nncf.quantization.range_estimator import (
        AggregatorType,
        RangeEstimatorParameters,
        RangeEstimatorParametersSet,
        StatisticsCollectorParameters,
        StatisticsType,
    )

    if options.calibration_method == "minmax":
        return RangeEstimatorParametersSet.MINMAX
    if options.calibration_method == "entropy":
        return RangeEstimatorParametersSet.HISTOGRAM

    def collector(end: AggregatorType) -> StatisticsCollectorParameters:
        return StatisticsCollectorParameters(
            statistics_type=StatisticsType.QUANTILE,
            aggregator_type=end,
            quantile_outlier_prob=(100 - options.percentile) / 100,
        )

    return RangeEstimatorParameters(min=collector(AggregatorType.MIN), max=collector(AggregatorType.MAX))


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


def layer_groups(graph: Any) -> dict[str, list[str]]:
    """Return for each layer the operations that go with it: its product, and what follows up to the next product.

    A layer has the name that an audit gives it: that of the module which its weights belong to, or its operation's.
    """
    groups: dict[str, list[str]] = {}
    order: dict[str, int] = {}
    group_of: dict[str, str] = {}
    for op in graph.get_ordered_ops():
        name = op.get_friendly_name()
        if op.get_type_name() in ("Constant", "Result", "Parameter"):
            continue
        if op.get_type_name() in LAYERS:
            constants = [v.get_node() for v in op.input_values() if v.get_node().get_type_name() == "Constant"]
            owner = next(filter(None, (owner_of(c.get_friendly_name()) for c in constants)), "")
            group = owner or name.removesuffix("/WithoutBiases")
            group = group if group not in groups else name
            groups[group] = []
            order[group] = len(order)
        else:
            sources = [value.get_node().get_friendly_name() for value in op.input_values()]
            group = max((group_of[s] for s in sources if s in group_of), key=order.__getitem__, default="")
        if group:
            groups[group].append(name)
            group_of[name] = group
    return groups


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
