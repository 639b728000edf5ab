"""Static int8 of ONNX graphs: QDQ nodes, with ranges from ONNX Runtime's own calibrators."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nbopt.errors import ExportError
from nbopt.measurement.environment import has_exact_int8
from nbopt.runtimes._layer_parts import owner_of
from nbopt.techniques._quantize.onnx_reach import LAYERS, SMOOTHED, Reach, reach_of
from nbopt.techniques._quantize.onnx_smooth import smooth

if TYPE_CHECKING:
    import onnx

    from nbopt.techniques.quantize import Quantize

Rows = list[dict[str, np.ndarray[Any, Any]]]

PRODUCTS = ("MatMul", "Gemm", "Conv", "ConvTranspose", "LSTM", "GRU", "RNN", "Gather", "LayerNormalization")
LEVELS = 254
"""Steps between the extremes of int8 without -128."""

ALIKE = 5e-4
"""Largest share of a layer's power that rounding with one scale for all its channels may take: 33 dB below it.

What rounding activations takes is more: nets with one scale in each such layer are as far from the outputs in float
as those with one for each channel (a CNN 2.4e-4 of their power and 3.3e-4, a ResNet-18 7.9e-4 both, MiniLM with int8
in products alone 8.2e-2 and 8.4e-2). A scale for each channel made an MLP on Adult 13% slower and a CNN on
Fashion-MNIST 2 to 4%.
"""

ALIKE_CHANNEL = 1e-2
"""Largest share of the power of any one channel. Channels that are small beside the rest, as after a folded BatchNorm,
vanish with one scale for all (Nagel et al. 2019, https://arxiv.org/abs/1906.04721, section 3.1)."""

CHUNK = 8
"""Rows whose activations are held at a time while histograms are made of them."""


class OnnxParts:
    """Quantize a prepared graph again and again from one calibration.

    Args:
        prepared: What `quant_pre_process` wrote; every node gets a name.
        rows: Calibration rows by input name.
        options: How.
        scratch: A folder for what lies between.
        symmetric: Activations without a zero point, as some kernels want them.
    """

    def __init__(
        self, prepared: Path, rows: Rows, options: Quantize, scratch: Path, *, symmetric: bool = False
    ) -> None:
        self._rows, self._options, self._scratch, self._symmetric = rows, options, scratch, symmetric
        _name_nodes(prepared)
        self._plain = _Ranged(prepared, rows, options)
        if options.equalize:
            self.reach, self.note = Reach(), "no linear layer to equalize"
            if self._smoothed:
                self.reach, self.note = SMOOTHED, f"{SMOOTHED.told()}, as asked for with --equalize"
        else:
            self.reach, self.note = reach_of(prepared, rows, self._write_within, scratch)

    @property
    def layers(self) -> Sequence[str]:
        """Return the layers that can be left out."""
        return list(self._plain.groups)

    def write(self, target: Path, kept: Collection[str]) -> None:
        """Write a QDQ graph with some layers in float."""
        whole = self._scratch / self.reach.file
        if whole.exists() and not kept:  # quantizing takes its time, and has been here
            shutil.copyfile(whole, target)
        else:
            self._write_within(target, self.reach, kept)

    @cached_property
    def _smoothed(self) -> _Ranged | None:
        """Hold the graph with smoothed inputs; None where it has no linear layers."""
        path = self._plain.path.with_name("smooth.onnx")
        if not smooth(self._plain.path, path, self._rows):
            return None
        return _Ranged(path, self._rows, self._options)

    def _write_within(self, target: Path, reach: Reach, kept: Collection[str] = ()) -> bool:
        from onnxruntime import quantization

        graph = self._smoothed if reach.smoothed else self._plain
        if graph is None:
            return False
        excluded = [node for layer in kept for node in graph.groups[layer]]
        quantization.quantize_static(
            graph.path,
            target,
            None,
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QInt8 if self._symmetric else quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=self._options.per_channel,
            nodes_to_exclude=[*graph.masking, *excluded],
            # Kernels without VNNI add pairs of products in 16 bits, which saturates with full-range weights: seven
            # bits keep the sums exact there (ONNX Runtime's documentation, "reduce range").
            reduce_range=not self._symmetric and not has_exact_int8(),
            calibrate_method=_method(self._options),
            extra_options={
                "ActivationSymmetric": self._symmetric,
                "TensorQuantOverrides": {name: [{"symmetric": True}] for name in graph.alike},
            }
            | reach.extra_options(),
            calibration_cache_path=graph.cache,
            **reach.options(),
        )
        return True


class _Ranged:
    """Hold what quantizing a graph needs to know of it, the ranges of its activations among it.

    Args:
        path: The float graph.
        rows: Calibration rows by input name.
        options: How.
    """

    def __init__(self, path: Path, rows: Rows, options: Quantize) -> None:
        import onnx

        graph = onnx.load(path).graph
        self.path, self.cache = path, path.with_suffix(".ranges.json")
        self.masking = masking(graph)
        self.groups = layer_groups(graph)
        self.alike = alike(graph) if options.per_channel and options.how == "static" else []
        ranges_of(graph, path, rows, options, self.masking, self.cache)


def _name_nodes(path: Path) -> None:
    """Give every node a name: the exporter leaves those of inlined functions without, and it is what leaves one out."""
    import onnx

    graph = onnx.load(path)
    for index, node in enumerate(graph.graph.node):
        node.name = node.name or f"{node.op_type}_{index}"
    onnx.save_model(graph, path)


def alike(graph: onnx.GraphProto) -> list[str]:
    """Return the weights of linear and convolution layers whose channels lose little by having one scale."""
    from onnx import numpy_helper

    constants = {tensor.name: tensor for tensor in graph.initializer}
    found: dict[str, bool] = {}
    for node in graph.node:
        if node.op_type not in LAYERS or node.input[1] not in constants:
            continue
        constant = constants[node.input[1]]
        if constant.data_type != constant.FLOAT:
            continue
        weight = numpy_helper.to_array(constant)
        axis = _channels(node, weight.ndim)
        power = np.mean(np.square(weight, dtype=np.float64), axis=tuple(i for i in range(weight.ndim) if i != axis))
        step = 2 * float(np.abs(weight).max(initial=0.0)) / LEVELS
        bound = min(ALIKE * power.mean(), ALIKE_CHANNEL * power[power > 0].min(initial=np.inf))
        found[constant.name] = step**2 / 12 <= bound and found.get(constant.name, True)
    return sorted(name for name, small in found.items() if small)


def _channels(node: onnx.NodeProto, dimensions: int) -> int:
    """Return the axis of a layer's weights along which its output channels lie."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return dimensions - 2 if transposed else dimensions - 1


def _method(options: Quantize) -> Any:
    from onnxruntime.quantization import CalibrationMethod

    methods = {"minmax": "MinMax", "percentile": "Percentile", "entropy": "Entropy"}
    return CalibrationMethod[methods[options.calibration_method]]


def ranges_of(
    graph: onnx.GraphProto, prepared: Path, rows: Rows, options: Quantize, masked: Sequence[str], target: Path
) -> None:
    """Write the range of each activation.

    Not by `create_calibrator`: its histograms hold the activations of all rows at once, and stop at the infinities of
    a mask ("supplied range of [-inf, inf] is not finite"), which are not quantized anyway.

    What is neither input nor output of a layer keeps its extremes whatever is asked for: the KL divergence of a
    tensor with few values, such as a mask of 0 and 1, is least where the 1 is cut off (a GRU with lengths lost all).
    """
    from onnxruntime.quantization import calibrate

    common: dict[str, Any] = {"augmented_model_path": str(target.with_name("augmented.onnx"))}
    ranges = _collected(calibrate.MinMaxCalibrater(prepared, **common), graph, rows, None, options)
    if options.calibration_method != "minmax":
        calibrator: Any
        if options.calibration_method == "percentile":
            # Not symmetric, its default: after a ReLU half of the 256 levels would be for what never comes.
            calibrator = calibrate.PercentileCalibrater(
                prepared, symmetric=False, percentile=options.percentile, **common
            )
        else:
            # With as many bins as levels, its default, there is nothing to choose: it always returns the extremes.
            calibrator = calibrate.EntropyCalibrater(prepared, num_bins=512, num_quantized_bins=128, **common)
        constants = {tensor.name for tensor in graph.initializer}
        unbounded = {name for node in graph.node if node.name in masked for name in node.output}
        wanted = {n for node in graph.node if node.op_type in LAYERS for n in (*node.input, *node.output)}
        cut = _collected(calibrator, graph, rows, wanted - constants - unbounded, options)
        merged = {name: ranges[name] for name in ranges} | {name: cut[name] for name in cut}
        ranges = calibrate.TensorsData(_method(options), merged)
    calibrate.save_tensors_data(ranges, target)


def _collected(calibrator: Any, graph: onnx.GraphProto, rows: Rows, wanted: set[str] | None, options: Quantize) -> Any:
    """Return the ranges that a calibrator finds, of the tensors `wanted` or of all."""
    calibrator.augment_graph()
    if wanted is not None:
        calibrator.tensors_to_calibrate = set(calibrator.tensors_to_calibrate) & wanted
    calibrator.create_inference_session()
    used = {value.name for value in graph.input}
    for chunk in _chunks(rows):
        calibrator.collect_data(_Rows(chunk, used))
    try:
        return calibrator.compute_data()
    except (ValueError, IndexError) as error:
        raise ExportError(
            f"activations that --calibration-method {options.calibration_method} finds a range for",
            f"{type(error).__name__}: {error}"[:200],
            "--calibration-method minmax",
        ) from error


def _chunks(rows: Rows) -> Iterator[Rows]:
    """Yield rows of equal shape a few at a time: histograms of a chunk are made from one array."""
    chunk: Rows = []
    for row in rows:
        same = not chunk or all(row[name].shape == value.shape for name, value in chunk[0].items())
        if chunk and (len(chunk) == CHUNK or not same):
            yield chunk
            chunk = []
        chunk.append(row)
    if chunk:
        yield chunk


class _Rows:
    """Feed calibration rows to ONNX Runtime's calibrator."""

    def __init__(self, rows: Rows, used: set[str]) -> None:
        self._rows = iter(rows)
        self._used = used

    def get_next(self) -> dict[str, Any] | None:
        """Return the next row by input name, or None after the last."""
        row = next(self._rows, None)
        return None if row is None else {name: value for name, value in row.items() if name in self._used}


def layer_groups(graph: onnx.GraphProto) -> dict[str, list[str]]:
    """Return for each layer the nodes that go with it: its product, and what lies between it and the next products.

    Both ways: a product in float whose input was rounded on the way gains nothing.
    A layer has the name that an audit gives it: that of the module which its weights belong to, or its node's.
    """
    constants = {tensor.name for tensor in graph.initializer}
    layer_of: dict[str, str] = {}
    for node in graph.node:
        if node.op_type in LAYERS:
            weights = [name for name in node.input[:2] if name in constants]
            name = (owner_of(weights[0]) if weights else "") or node.name
            layer_of[node.name] = name if name not in layer_of.values() else node.name
    groups: dict[str, dict[str, None]] = {layer: {} for layer in layer_of.values()}
    for backwards in (False, True):
        reached: dict[str, set[str]] = {}
        for node in reversed(graph.node) if backwards else graph.node:
            given, made = (node.output, node.input) if backwards else (node.input, node.output)
            own = {layer_of[node.name]} if node.name in layer_of else set()
            layers = own or set().union(*(reached.get(name, set()) for name in given))
            for layer in layers:
                groups[layer][node.name] = None
            for name in made:
                reached[name] = reached.get(name, set()) | layers
    return {layer: list(nodes) for layer, nodes in groups.items()}


MASKED = 1e4
"""Constants from here on stand for minus infinity: what a mask adds to the scores of an attention, or puts there."""


def masking(graph: onnx.GraphProto) -> list[str]:
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
