"""Quantized files have the bits that were asked for, are as small as that, and judge as before."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from nbopt.artifacts import size_of
from nbopt.draft import Context, Draft, Lowered
from nbopt.errors import FULL, ExportError, OptionError
from nbopt.frameworks import Exported
from nbopt.runtimes import Manifest, all_runtimes, runtime_named
from nbopt.techniques._quantize.onnx_static import alike
from nbopt.techniques.quantize import Quantize
from nbopt.workload import Workload
from tests import models
from tests.conftest import Digits

Lower = Callable[[Quantize, str], tuple[Exported, Lowered]]


@pytest.fixture(scope="module")
def wide(digits: Digits) -> Workload:
    """A net whose weights are most of its file, trained on digits."""
    torch.manual_seed(0)
    layers = [nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)]
    model = models.train(nn.Sequential(*layers), *digits.train, steps=30, rate=3e-3)
    return Workload(model, train=digits.train, valid=digits.valid, test=digits.test)


@pytest.fixture
def lower(wide: Workload, tmp_path: Path) -> Lower:
    """Give a function that writes the float file and the quantized one."""

    def lowered(options: Quantize, runtime_name: str) -> tuple[Exported, Lowered]:
        runtime = runtime_named(runtime_name)
        source = wide.framework.export(wide.model, wide.signature, tmp_path / f"float{runtime.suffix}", runtime.form)
        (step,) = options.apply(Draft(wide.model), Context(wide)).lower
        folder = tmp_path / "lowered"
        folder.mkdir()
        return source, step(wide.model, wide.signature, source, runtime, folder, Context(wide))

    return lowered


def accuracy(work: Workload, runtime_name: str, path: Path, precision: str) -> float:
    names = tuple(work.signature.names)
    session = runtime_named(runtime_name).load(path, Manifest(runtime_name, names, precision=precision), threads=1)
    outputs = np.concatenate([session.run(inputs) for inputs in work.report_rows.batches()])
    assert outputs.dtype == np.float32
    return float((outputs.argmax(1) == work.report_rows.targets).mean())


CASES = [
    ("onnxruntime", Quantize(), "int8", 3.8),
    ("onnxruntime", Quantize(per_channel=False), "int8", 3.8),
    ("onnxruntime", Quantize(method="dynamic"), "int8", 3.8),
    ("onnxruntime", Quantize(dtype="float16"), "float16", 1.9),
    ("openvino", Quantize(), "int8", 3.7),
    ("openvino", Quantize(method="dynamic"), "int8", 3.7),
    ("openvino", Quantize(dtype="float16"), "float16", 1.9),
    ("openvino", Quantize(dtype="bfloat16"), "float16", 1.9),
]


@pytest.mark.parametrize(("runtime", "options", "found", "smaller"), CASES, ids=str)
def test_the_file_has_the_bits_is_as_small_and_judges_as_before(
    wide: Workload, lower: Lower, runtime: str, options: Quantize, found: str, smaller: float
) -> None:
    source, lowered = lower(options, runtime)
    assert lowered.precision == options.dtype
    precisions = runtime_named(runtime).weight_precisions(lowered.exported.path)
    assert precisions[found] > 0.95 * sum(precisions.values())
    assert size_of(source.path) / size_of(lowered.exported.path) > smaller
    before = accuracy(wide, runtime, source.path, "float32")
    after = accuracy(wide, runtime, lowered.exported.path, lowered.precision)
    assert before > 0.9
    assert after > before - 0.01
    if options.dtype == "bfloat16":
        assert any("float16" in note for note in lowered.notes)


def scales(path: Path) -> list[int]:
    """Return how many scales each int8 weight has."""
    graph = onnx.load(path).graph
    sizes = {tensor.name: max(1, *tensor.dims, 1) for tensor in graph.initializer}
    return [
        sizes[node.input[1]] for node in graph.node if node.op_type == "DequantizeLinear" and "weight" in node.input[0]
    ]


def test_layers_have_one_scale_where_their_channels_are_alike(lower: Lower) -> None:
    assert scales(lower(Quantize(), "onnxruntime")[1].exported.path) == [1, 1, 1]


KINDS = {
    # operator: attributes, shape of 64 channels of 36 weights, axis of the channels
    "linear": ("Gemm", {"transB": 1}, (64, 36), 0),
    "linear, stored the other way": ("Gemm", {}, (36, 64), 1),
    "product": ("MatMul", {}, (36, 64), 1),
    "convolution": ("Conv", {}, (64, 4, 3, 3), 0),
    "transposed convolution": ("ConvTranspose", {}, (4, 64, 3, 3), 1),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("factor", "expected"), [(1.0, ["w"]), (50.0, []), (0.02, []), (0.0, ["w"])])
def test_a_channel_that_stands_out_or_would_vanish_gives_each_its_scale(
    kind: str, factor: float, expected: list[str]
) -> None:
    operator, attributes, shape, axis = KINDS[kind]
    weight = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    np.moveaxis(weight, axis, 0)[3] *= factor  # none of it left is no channel that rounding could spoil
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(operator, ["x", "w"], ["y"], **attributes)],
        "one",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, None)],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    assert alike(graph) == expected


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_the_source_is_not_written_to_and_the_seed_decides(
    lower: Lower, wide: Workload, runtime: str, tmp_path: Path
) -> None:
    source, lowered = lower(Quantize(calibration=16), runtime)
    before = source.path.read_bytes()
    (step,) = Quantize(calibration=16).apply(Draft(wide.model), Context(wide)).lower
    again = tmp_path / "again"
    again.mkdir()
    second = step(wide.model, wide.signature, source, runtime_named(runtime), again, Context(wide))
    assert source.path.read_bytes() == before
    x = wide.report_rows.first_row()
    outputs = [
        runtime_named(runtime).load(path, Manifest(runtime, tuple(wide.signature.names)), threads=1).run(x)
        for path in (lowered.exported.path, second.exported.path)
    ]
    np.testing.assert_array_equal(*outputs)


def test_calibration_without_train_is_noted(wide: Workload, digits: Digits, tmp_path: Path) -> None:
    work = Workload(wide.model, valid=digits.valid)
    runtime = runtime_named("onnxruntime")
    source = work.framework.export(work.model, work.signature, tmp_path / "float.onnx", "onnx")
    (step,) = Quantize(calibration=8).apply(Draft(work.model), Context(work)).lower
    lowered = step(work.model, work.signature, source, runtime, tmp_path, Context(work))
    assert any("a leak" in note for note in lowered.notes)


def test_every_runtime_either_has_a_way_or_says_why(wide: Workload) -> None:
    for options in (Quantize(), Quantize(dtype="bfloat16"), Quantize(method="dynamic")):
        (step,) = options.apply(Draft(wide.model), Context(wide)).lower
        reasons = {name: step.refuses(runtime) for name, runtime in all_runtimes().items()}
        assert reasons["openvino"] == ""
        assert reasons["torch"].startswith("PyTorch eager: ")
    (step,) = Quantize(method="dynamic", per_channel=False).apply(Draft(wide.model), Context(wide)).lower
    assert "--no-per-channel" in step.refuses(runtime_named("openvino"))
    assert step.refuses(runtime_named("onnxruntime")) == ""
    assert "bfloat16" in Quantize(dtype="bfloat16").apply(Draft(wide.model), Context(wide)).lower[0].refuses(
        runtime_named("onnxruntime")
    )


@pytest.mark.parametrize("kind", ["text", "two", "lstm"])
@pytest.mark.parametrize("runtime_name", ["onnxruntime", "openvino"])
def test_models_by_name_with_several_inputs_and_recurrent_ones_quantize(
    kind: str, runtime_name: str, tmp_path: Path
) -> None:
    from tests.runtimes.test_contract import workload

    work, runtime = workload("torch", kind), runtime_named(runtime_name)
    source = work.framework.export(work.model, work.signature, tmp_path / f"float{runtime.suffix}", runtime.form)
    (step,) = Quantize(calibration=7).apply(Draft(work.model), Context(work)).lower
    folder = tmp_path / "lowered"
    folder.mkdir()
    lowered = step(work.model, work.signature, source, runtime, folder, Context(work))
    inputs = next(work.report_rows.batches())
    expected = work.framework.predict(work.model, inputs)
    names = tuple(work.signature.names)
    session = runtime.load(lowered.exported.path, Manifest(runtime_name, names, work.signature.keyed), threads=1)
    output = session.run(inputs)
    assert output.shape == expected.shape
    assert np.abs(output - expected).max() < 0.25 * np.abs(expected).max() + 0.1
    assert runtime.weight_precisions(lowered.exported.path)["int8"] > 0


def test_what_a_quantizer_stumbles_over_becomes_a_reason(wide: Workload, tmp_path: Path) -> None:
    broken = tmp_path / "float.onnx"
    broken.write_bytes(b"no graph")
    (step,) = Quantize().apply(Draft(wide.model), Context(wide)).lower
    with pytest.raises(ExportError, match="can quantize to int8") as caught:
        step(wide.model, wide.signature, Exported(broken), runtime_named("onnxruntime"), tmp_path, Context(wide))
    assert caught.value.do


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limits of file sizes")
def test_a_full_disk_is_not_the_models_fault(wide: Workload, tmp_path: Path) -> None:
    import resource

    source = wide.framework.export(wide.model, wide.signature, tmp_path / "float.onnx", "onnx")
    (step,) = Quantize(dtype="float16").apply(Draft(wide.model), Context(wide)).lower
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError) as caught:  # noqa: PT011 - the number below says which
            step(wide.model, wide.signature, source, runtime_named("onnxruntime"), tmp_path, Context(wide))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno in FULL


def test_labels_say_dtype_and_where_it_matters_the_method() -> None:
    assert Quantize().label == "quantize int8 static"
    assert Quantize(method="dynamic").label == "quantize int8 dynamic"
    assert Quantize(dtype="float16").label == "quantize float16"
    with pytest.raises(OptionError, match="did you mean 'int8'"):
        Quantize(dtype="int9")


def test_nothing_of_the_model_changes(wide: Workload) -> None:
    draft = Quantize().apply(Draft(wide.model), Context(wide))
    assert draft.model is wide.model
    assert draft.plan.epochs == 0
    assert isinstance(wide.model, nn.Module)
    assert not wide.model.training


class Masked(nn.Module):
    """Attention with a mask that stands for minus infinity, written out as libraries do."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(40, 32)
        self.query, self.key, self.value = nn.Linear(32, 32), nn.Linear(32, 32), nn.Linear(32, 32)
        self.head = nn.Linear(32, 4)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = self.embed(ids)
        hidden = (1.0 - mask[:, None].to(x.dtype)) * torch.finfo(torch.float32).min
        scores = self.query(x) @ self.key(x).transpose(1, 2) / 32**0.5 + hidden
        return self.head((scores.softmax(-1) @ self.value(x))[:, 0])


@pytest.mark.parametrize("runtime_name", ["onnxruntime", "openvino"])
def test_the_mask_of_an_attention_costs_nothing(runtime_name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    model = Masked().eval()
    with torch.no_grad():
        for layer in (model.query, model.key):
            layer.weight.mul_(2)  # scores that differ, as training makes them
    ids, mask = rng.integers(0, 40, (96, 12)), (np.arange(12) < rng.integers(3, 13, (96, 1))).astype(np.int64)
    data = ((ids, mask), rng.integers(0, 4, 96))
    assert _error(model, data, runtime_name, tmp_path) < 0.1


def _error(model: nn.Module, data: object, runtime_name: str, folder: Path) -> float:
    """Return the largest error of static int8, as a share of the largest output."""
    work, runtime = Workload(model, train=data, valid=data), runtime_named(runtime_name)
    source = work.framework.export(work.model, work.signature, folder / f"float{runtime.suffix}", runtime.form)
    (step,) = Quantize(calibration=96).apply(Draft(work.model), Context(work)).lower
    lowered = step(work.model, work.signature, source, runtime, folder, Context(work))
    manifest = Manifest(runtime_name, tuple(work.signature.names), precision="int8")
    inputs = next(work.report_rows.batches())
    expected = work.framework.predict(work.model, inputs)
    outputs = runtime.load(lowered.exported.path, manifest, threads=1).run(inputs)
    return float(np.abs(outputs - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("runtime_name", ["onnxruntime", "openvino"])
def test_a_table_whose_rows_differ_in_size_keeps_its_range(runtime_name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(96, 10)) * rng.lognormal(0, 1, (96, 1))).astype(np.float32)
    # 0.2 and more with ranges from the mean of each row's extremes, or with sums that saturate.
    assert _error(models.mlp(10, 4, 64), (x, rng.integers(0, 4, 96)), runtime_name, tmp_path) < 0.05


class Scaled(nn.Module):
    """A model that normalizes its inputs, among them one that is larger than float16 goes, and looks up positions."""

    def __init__(self, times: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([[38.6, 189778.0]]))
        self.register_buffer("variance", torch.tensor([[1e-9, 1.1e10]]))
        self.register_buffer("positions", torch.arange(5000.0))
        self.first, self.last = nn.Linear(2, 64), nn.Linear(64, 2)
        with torch.no_grad():
            self.first.weight.mul_(times)

    def forward(self, x: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
        scaled = (x - self.mean) / self.variance.sqrt() + (self.positions[place] - 4097)[:, None]
        return self.last(self.first(scaled).relu())


@pytest.mark.parametrize("times", [1.0, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_float16_holds_weights_and_leaves_what_it_would_spoil(times: float, dtype: torch.dtype, tmp_path: Path) -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(96, 2)) * [3e-5, 1e5] + [38.6, 189778]).astype(str(dtype).removeprefix("torch."))
    data = ((x, rng.integers(4096, 4099, 96)), rng.integers(0, 2, 96))
    work, runtime = Workload(Scaled(times).to(dtype).eval(), train=data, valid=data), runtime_named("onnxruntime")
    source = work.framework.export(work.model, work.signature, tmp_path / "float.onnx", "onnx")
    (step,) = Quantize(dtype="float16").apply(Draft(work.model), Context(work)).lower
    folder = tmp_path / "half"
    folder.mkdir()
    lowered = step(work.model, work.signature, source, runtime, folder, Context(work))
    session = runtime.load(lowered.exported.path, Manifest(runtime.name, tuple(work.signature.names)), threads=1)
    expected = work.framework.predict(work.model, data[0])
    assert np.abs(session.run(data[0]) - expected).max() < 5e-3 * np.abs(expected).max()
    assert runtime.weight_precisions(lowered.exported.path)["float16"] >= 128
    assert any("too narrow for them" in note for note in lowered.notes) == (times > 1)


def test_a_model_of_half_precision_has_nothing_to_halve(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(9, 6)).astype(np.float32)
    model = models.mlp(6, 4).half().eval()
    work, runtime = Workload(model, valid=(x, np.arange(9) % 4)), runtime_named("onnxruntime")
    source = work.framework.export(model, work.signature, tmp_path / "float.onnx", "onnx")
    (step,) = Quantize(dtype="float16").apply(Draft(model), Context(work)).lower
    with pytest.raises(ExportError, match="none in this float16 model"):
        step(model, work.signature, source, runtime, tmp_path, Context(work))


def test_int8_that_changed_nothing_is_no_int8(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images, rows = rng.normal(size=(9, 1, 8, 8)).astype(np.float32), rng.normal(size=(9, 6))
    convolutions = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    cases = [(convolutions, images, "dynamic", "static"), (models.mlp(6, 4).double(), rows, "static", "float32")]
    for index, (model, x, method, advice) in enumerate(cases):
        work, runtime = (
            Workload(model, valid=(x, np.arange(9) % 4), train=(x, np.arange(9) % 4)),
            runtime_named("onnxruntime"),
        )
        folder = tmp_path / str(index)
        folder.mkdir()
        source = work.framework.export(model, work.signature, folder / "float.onnx", "onnx")
        (step,) = Quantize(method=method).apply(Draft(model), Context(work)).lower
        with pytest.raises(ExportError, match="changed no weight") as caught:
            step(model, work.signature, source, runtime, folder, Context(work))
        assert advice in caught.value.do
