"""Static int8 of OpenVINO IR, by NNCF."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nbopt.errors import ExportError
from nbopt.frameworks import Exported
from nbopt.measurement.environment import has_exact_int8
from nbopt.runtimes._layer_parts import owner_of
from nbopt.techniques._quantize.calibrating import stacked
from nbopt.techniques._quantize.nearness import near_enough

if TYPE_CHECKING:
    from nbopt.techniques.quantize import Quantize

LAYERS = ("MatMul", "Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData",
          "LSTMSequence", "GRUSequence", "RNNSequence")  # fmt: skip
"""Operations that are worth leaving in float one by one, with what follows them up to the next."""


class IrParts:
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
        self._smooth, self.note = options.equalize, ""
        self._whole: Path | None = None

    def _read(self) -> Any:
        import openvino

        return openvino.Core().read_model(self._source)

    @property
    def layers(self) -> Sequence[str]:
        """Return the layers that can be left out."""
        return list(self._groups)

    def smooth_if_far(self, outputs: Callable[[Path], Sequence[np.ndarray[Any, Any]]], folder: Path) -> None:
        """Move outliers of activations into the weights where the outputs are far off without, and note it.

        Args:
            outputs: Returns what a file gives for the judged rows.
            folder: Where to write the files that are compared.
        """
        if self._options.equalize:
            return

        files = {smooth: folder / f"smooth-{smooth}.xml" for smooth in (False, True)}

        def quantized(smooth: bool) -> Sequence[np.ndarray[Any, Any]]:
            self._quantize(files[smooth], (), smooth=smooth)
            return outputs(files[smooth])

        choice = near_enough(files, quantized, outputs(self._source))
        self._smooth, self._whole = choice.way, files[choice.way]
        self.note = f"activations are smoothed (SmoothQuant): {choice}" if choice.way else ""

    def write(self, target: Path, kept: Collection[str]) -> None:
        """Write IR with some layers in float."""
        if kept or self._whole is None:
            self._quantize(target, kept, smooth=self._smooth)
            return
        for suffix in (".xml", ".bin"):  # NNCF takes its time, and has been here
            shutil.copyfile(self._whole.with_suffix(suffix), target.with_suffix(suffix))

    def _quantize(self, target: Path, kept: Collection[str], *, smooth: bool) -> None:
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
            **_how(graph, self._options, smooth=smooth),
        )
        openvino.save_model(quantized, target, compress_to_fp16=False)


def _how(graph: Any, options: Quantize, *, smooth: bool) -> dict[str, Any]:
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
      beside it, moving scales from activations into weights (SmoothQuant), took an encoder from 96% to 74%, and
      brought another, with channels that outgrow the rest, from an error of 0.3 to 0.005: whoever calls decides it.
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
        "model_type": nncf.ModelType.TRANSFORMER if smooth or _has_attention(graph) else None,
        "advanced_parameters": AdvancedQuantizationParameters(
            overflow_fix=OverflowFix.DISABLE if has_exact_int8() else OverflowFix.ENABLE,
            disable_bias_correction=not options.bias_correction,
            weights_quantization_params=QuantizationParameters(per_channel=options.per_channel),
            activations_range_estimator_params=_ranges(options),
            smooth_quant_alphas=AdvancedSmoothQuantParameters() if smooth else off,
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
            quantile_outlier_prob=(100 - options.percentile) / 200,  # it is cut off at each end
        )

    return RangeEstimatorParameters(min=collector(AggregatorType.MIN), max=collector(AggregatorType.MAX))


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
