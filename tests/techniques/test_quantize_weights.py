"""Weights alone: 4 or 8 bits for linear layers, and a word for every layer that gets others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from nbopt.draft import Context, Draft
from nbopt.errors import DataError, ExportError, OptionError
from nbopt.runtimes import runtime_named
from nbopt.techniques._quantize.calibrating import calibration_rows
from nbopt.techniques._quantize.mixed import manifest_for, relative_error
from nbopt.techniques._quantize.openvino_static import IrParts, _ranges
from nbopt.techniques._quantize.weights import bits_of, block_of, told
from nbopt.techniques.quantize import GROUPS, Quantize
from nbopt.workload import Workload


@given(st.dictionaries(st.text(min_size=1), st.integers(1, 5000)), st.sampled_from(GROUPS))
def test_a_group_that_does_not_divide_the_width_gives_eight_bits_and_a_note(widths: dict[str, int], group: int) -> None:
    chosen = bits_of(widths, 4, group)
    assert {name for name, bits in chosen.items() if bits == 8} == {n for n, width in widths.items() if width % group}
    assert bool(told(widths, chosen, 4, group)) == (8 in chosen.values())
    assert set(bits_of(widths, 8, group).values()) <= {8}


@given(st.integers(1, 5000), st.sampled_from(GROUPS))
def test_blocks_of_eight_bits_store_few_zeros(width: int, group: int) -> None:
    block = block_of(width, group, GROUPS)
    assert block <= group
    assert width % block == 0 or block == min(GROUPS)


class Wide(nn.Module):
    """Linear layers of which one has a width that no group divides, an embedding, and a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(100, 128)
        self.conv = nn.Conv1d(128, 128, 1)
        self.up, self.down = nn.Linear(128, 1024), nn.Linear(1024, 250)
        self.head = nn.Linear(250, 4)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.conv(self.embed(ids).transpose(1, 2)).transpose(1, 2)
        return self.head(self.down(self.up(x).relu()).relu().mean(1))


class Sharing(nn.Module):
    """A head whose weights are the embedding's, and a layer that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.layer = nn.Embedding(100, 128), nn.Linear(128, 128)
        self.head = nn.Linear(128, 100, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(self.layer(self.embed(ids)).tanh()))[:, 0]


def case(runtime_name: str, folder: Path, options: Quantize, model: nn.Module | None = None):
    torch.manual_seed(0)
    ids = np.random.default_rng(0).integers(0, 100, (50, 6))
    model = (model or Wide()).eval()
    work = Workload(model, train=(ids, ids[:, 0] % 4), valid=(ids, ids[:, 0] % 4))
    runtime = runtime_named(runtime_name)
    source = work.framework.export(work.model, work.signature, folder / f"float{runtime.suffix}", runtime.form)
    (step,) = options.apply(Draft(work.model), Context(work)).lower
    assert step.refuses(runtime) == ""
    target = folder / "lowered"
    target.mkdir()
    result = step(work.model, work.signature, source, runtime, target, Context(work))
    session = runtime.load(result.exported.path, manifest_for(runtime, work.signature, source), threads=1)
    expected = work.framework.predict(work.model, (ids,))
    error = relative_error(session.run((ids,)), expected)
    layers = {layer.name: layer for layer in runtime.layers(result.exported.path, session, (ids[:1],))}
    return result, error, layers


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("group", [32, 128])
def test_int4_is_int4_where_the_group_divides(runtime: str, group: int, tmp_path: Path) -> None:
    result, error, layers = case(runtime, tmp_path, Quantize(dtype="int4", group_size=group))
    found = {name.removesuffix("_Q4").removesuffix("_Q8"): layer.weight_dtype for name, layer in layers.items()}
    fours = [layer for layer in layers.values() if layer.weight_dtype in ("int4", "uint4")]
    assert sorted(layer.weights for layer in fours) == [128 * 1024, 1024 * 250], found
    assert all(np.prod(layer.weight_shape) == layer.weights and len(layer.weight_shape) == 2 for layer in fours)
    assert any("do not divide" in note and "250 inputs" in note for note in result.notes)
    assert 0 < error < 0.15
    embedding = next(layer for layer in layers.values() if layer.kind == "Embedding")
    assert embedding.weight_dtype in ("int8", "uint8")


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_int8_weights_alone_change_next_to_nothing(runtime: str, tmp_path: Path) -> None:
    result, error, layers = case(runtime, tmp_path, Quantize(method="weight_only"))
    linear = [layer for layer in layers.values() if layer.kind == "Linear"]
    assert len(linear) == 3
    assert {layer.weight_dtype for layer in linear} <= {"int8", "uint8"}
    assert 0 < error < 0.01
    assert result.precision == "int8"


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_weights_that_several_layers_share_are_int4_too(runtime: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    result, error, layers = case(runtime, tmp_path, Quantize(dtype="int4"), Sharing())
    assert {layer.weight_dtype for layer in layers.values() if layer.kind == "Linear"} <= {"int4", "uint4"}
    counts = runtime_named(runtime).weight_precisions(result.exported.path)
    assert counts.get("float32", 0) < 0.1 * sum(counts.values())
    assert 0 < error < 0.2


def test_a_product_that_stays_float_is_named(tmp_path: Path) -> None:
    class Stacked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.many = nn.Embedding(100, 128), nn.Parameter(torch.randn(6, 128, 16))
            self.head = nn.Linear(16, 4)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.head((self.embed(ids)[:, :, None] @ self.many).sum((1, 2)))

    result, _, _ = case("onnxruntime", tmp_path, Quantize(dtype="int4"), Stacked())
    assert any("stay float: node_" in note for note in result.notes), result.notes


def test_a_model_without_linear_layers_says_so(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    x = np.zeros((9, 1, 8, 8), np.float32)
    work = Workload(model, train=(x, np.arange(9) % 4), valid=(x, np.arange(9) % 4))
    for name in ("onnxruntime", "openvino"):
        runtime = runtime_named(name)
        source = work.framework.export(model, work.signature, tmp_path / f"float{runtime.suffix}", runtime.form)
        (step,) = Quantize(dtype="int4").apply(Draft(model), Context(work)).lower
        with pytest.raises(ExportError, match="linear layers"):
            step(model, work.signature, source, runtime, tmp_path, Context(work))


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        ({"method": "dynamic", "calibration": 9}, "--calibration"),
        ({"method": "weight_only", "per_channel": False}, "--per-channel"),
        ({"group_size": 32}, "--group-size"),
        ({"dtype": "float16", "equalize": True}, "--equalize"),
        ({"percentile": 99.0}, "--percentile"),
        ({"dtype": "int4", "method": "dynamic"}, "--method"),
        ({"dtype": "float16", "method": "dynamic"}, "--method"),
        ({"method": "qat", "per_channel": False}, "--per-channel"),
        ({"keep_float": " , "}, "--keep-float"),
    ],
)
def test_an_option_without_effect_is_refused_and_not_ignored(options: dict, flag: str, workload: Workload) -> None:
    with pytest.raises(OptionError) as caught:
        Quantize(**options).apply(Draft(workload.model), Context(workload))
    assert flag in caught.value.message


def test_rows_to_calibrate_on_are_checked(tmp_path: Path) -> None:
    model = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4, 2)).eval()
    rng = np.random.default_rng(0)
    x, other = rng.normal(size=(9, 1, 8, 8)).astype(np.float32), rng.normal(size=(9, 1, 6, 6)).astype(np.float32)
    runtime = runtime_named("onnxruntime")
    for train, told_of in ((other, "(rows, 1, 6, 6)"), (x[:1] + 1, "")):
        work = Workload(model, train=(train, np.arange(len(train)) % 2), valid=(x, np.arange(9) % 2))
        source = work.framework.export(model, work.signature, tmp_path / "float.onnx", "onnx")
        (step,) = Quantize().apply(Draft(model), Context(work)).lower
        if told_of:
            with pytest.raises(DataError) as caught:
                step(model, work.signature, source, runtime, tmp_path, Context(work))
            assert told_of in caught.value.came
            assert "(rows, 1, 8, 8)" in caught.value.expected
        else:
            result = step(model, work.signature, source, runtime, tmp_path, Context(work))
            assert any("calibrated on 1 row" in note for note in result.notes)


class Outlier(nn.Module):
    """A hidden value that is huge for one row in a thousand."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(16, 64), nn.Linear(64, 4)
        with torch.no_grad():
            self.up.weight[0] = 0
            self.up.weight[0, 0] = 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(self.up(x))


@pytest.mark.parametrize("runtime_name", ["onnxruntime", "openvino"])
def test_a_percentile_rescues_the_rest_from_an_outlier(runtime_name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(256, 16)).astype(np.float32)
    model = Outlier().eval()
    with torch.no_grad():
        model.up.weight[1:, 0] = 0
        model.down.weight[:, 0] = 0  # and nothing depends on it
    train = rng.normal(size=(256, 16)).astype(np.float32)
    # In one channel alone it would be smoothed away; NNCF takes a row's percentile, and all of a row passes that.
    train[7] *= 3000 if runtime_name == "onnxruntime" else np.eye(16, dtype=np.float32)[0] * 3000
    work = Workload(model, train=(train, np.arange(256) % 4), valid=(x, np.arange(256) % 4))
    runtime = runtime_named(runtime_name)
    source = work.framework.export(model, work.signature, tmp_path / f"float{runtime.suffix}", runtime.form)
    expected = work.framework.predict(model, (x,))
    errors = {}
    for method in ("minmax", "percentile"):
        options = Quantize(calibration_method=method, percentile=99.0 if method == "percentile" else 99.99)
        folder = tmp_path / method
        folder.mkdir()
        if runtime_name == "onnxruntime":
            (step,) = options.apply(Draft(model), Context(work)).lower
            path = step(model, work.signature, source, runtime, folder, Context(work)).exported.path
        else:
            path = folder / "ranges_alone.xml"
            IrParts(source, calibration_rows(work.signature, Context(work), options)[0], options).write(path, ())
        session = runtime.load(path, manifest_for(runtime, work.signature, source), threads=1)
        errors[method] = relative_error(session.run((x,)), expected)
    assert errors["minmax"] > 0.3
    assert errors["percentile"] < 0.15 * errors["minmax"]


@pytest.mark.parametrize("percentile", [50.0, 80.0, 99.0])
def test_as_many_values_lie_inside_the_range_as_the_percentile_says(percentile: float) -> None:
    ranges = _ranges(Quantize(calibration_method="percentile", percentile=percentile))
    low, high = ranges.min.quantile_outlier_prob, 1 - ranges.max.quantile_outlier_prob
    assert 100 * (high - low) == pytest.approx(percentile)


@pytest.mark.parametrize("runtime_name", ["onnxruntime", "openvino"])
def test_entropy_keeps_a_model_with_a_mask_as_good(runtime_name: str, tmp_path: Path) -> None:
    from tests.test_unseen_models import lengths

    made = lengths()
    work = Workload(made.model, train=made.data, valid=made.data)
    runtime = runtime_named(runtime_name)
    source = work.framework.export(work.model, work.signature, tmp_path / f"float{runtime.suffix}", runtime.form)
    (step,) = Quantize(calibration_method="entropy", calibration=32).apply(Draft(work.model), Context(work)).lower
    folder = tmp_path / "lowered"
    folder.mkdir()
    result = step(work.model, work.signature, source, runtime, folder, Context(work))
    session = runtime.load(result.exported.path, manifest_for(runtime, work.signature, source), threads=1)
    inputs = next(work.report_rows.batches())
    assert relative_error(session.run(inputs), work.framework.predict(work.model, inputs)) < 0.12
