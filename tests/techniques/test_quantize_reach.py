"""int8 goes as far as outputs allow, and outliers of activations move into the weights where they would cost."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from nbopt.draft import Lowered
from nbopt.runtimes import runtime_named
from nbopt.techniques._quantize.mixed import manifest_for, relative_error
from nbopt.techniques._quantize.nearness import FAR, GAIN, JUDGED_BYTES, judged, near_enough
from nbopt.techniques._quantize.onnx_smooth import smooth
from nbopt.techniques.quantize import Quantize
from nbopt.workload import Workload
from tests import models
from tests.techniques.test_quantize_mixed import lowered
from tests.test_unseen_models import lengths


class Outlying(nn.Module):
    """A transformer with two channels that are many times as large as the rest, and that its layers make little of."""

    def __init__(self, times: float) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, activation="gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.head = nn.Linear(64, 4)
        with torch.no_grad():
            for part in self.encoder.layers:
                for norm in (part.norm1, part.norm2):
                    norm.weight[:2] *= times
                for reader in (part.linear1.weight, part.self_attn.in_proj_weight):
                    reader[:, :2] /= times
            self.head.weight[:, :2] /= times

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(x)[:, 0])


class Tied(nn.Module):
    """One weight that reads two tensors, one of them the input itself, and a layer behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.last = nn.Linear(16, 16), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.tanh(self.shared(torch.tanh(self.shared(x)))))


def work_of(model: nn.Module, *shape: int) -> Workload:
    rng = np.random.default_rng(0)
    train, valid = ((rng.normal(size=(rows, *shape)).astype(np.float32), rng.integers(0, 4, rows)) for rows in (96, 64))
    return Workload(model.eval(), train=train, valid=valid)


def quantized(
    work: Workload, folder: Path, options: Quantize, runtime_name: str = "onnxruntime"
) -> tuple[Lowered, float]:
    """Return what quantize writes, and the error of its outputs as a share of their spread."""
    runtime, done = runtime_named(runtime_name), lowered(work, runtime_name, folder, options, None)
    session = runtime.load(done.exported.path, manifest_for(runtime, work.signature, done.exported), threads=1)
    inputs = next(work.report_rows.batches())
    return done, relative_error(session.run(inputs), work.framework.predict(work.model, inputs))


def operators(done: Lowered) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(done.exported.path).graph.node)


@pytest.mark.parametrize("runtime_name", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("times", [20, 100])
def test_channels_that_outgrow_the_rest_of_a_transformer_cost_nothing(
    times: float, runtime_name: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    work = work_of(Outlying(times), 8, 64)
    done, error = quantized(work, tmp_path, Quantize(calibration=64), runtime_name)
    assert error < 0.05  # 0.2 to 0.3 without, by either tool's own way
    assert any("SmoothQuant" in note and "off by" in note for note in done.notes)
    shares = runtime_named(runtime_name).weight_precisions(done.exported.path)
    assert shares["int8"] > 0.95 * sum(shares.values())


def test_products_give_float_where_int8_throughout_is_far_off(tmp_path: Path) -> None:
    torch.manual_seed(0)
    done, _ = quantized(work_of(Outlying(20), 8, 64), tmp_path, Quantize(calibration=64))
    assert any("int8 in products" in note for note in done.notes)
    graph = onnx.load(done.exported.path).graph
    readers = {node.input[0]: node.op_type for node in graph.node}
    given = {node.output[0]: node for node in graph.node}
    products = [node for node in graph.node if node.op_type == "MatMul"]
    assert products
    assert all(given[name].op_type == "DequantizeLinear" for node in products for name in node.input)
    assert all(readers.get(node.output[0]) != "QuantizeLinear" for node in products)


def test_where_int8_throughout_is_near_enough_it_stays(tmp_path: Path) -> None:
    torch.manual_seed(0)
    works = {"mlp": work_of(models.mlp(16, 4), 16), "transformer": work_of(Outlying(1), 8, 64)}
    for name, runtime_name in itertools.product(works, ("onnxruntime", "openvino")):
        folder = tmp_path / name / runtime_name
        folder.mkdir(parents=True)
        done, error = quantized(works[name], folder, Quantize(calibration=64), runtime_name)
        assert error < 0.1
        assert not any("SmoothQuant" in note for note in done.notes)


def test_equalize_smooths_where_it_is_asked_for(tmp_path: Path) -> None:
    torch.manual_seed(0)
    work = work_of(models.mlp(16, 4), 16)
    for name, count in {"plain": 0, "equalized": 2}.items():
        folder = tmp_path / name
        folder.mkdir()
        done, error = quantized(work, folder, Quantize(calibration=64, equalize=bool(count)))
        assert error < 0.1
        assert operators(done)["Mul"] == count
        assert any("in float, as asked for" in note for note in done.notes) == bool(count)


def test_equalize_without_a_linear_layer_says_so(tmp_path: Path) -> None:
    torch.manual_seed(0)
    convolutions = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    done, _ = quantized(work_of(convolutions, 1, 8, 8), tmp_path, Quantize(calibration=64, equalize=True))
    assert any("no linear layer" in note for note in done.notes)


@pytest.mark.parametrize("name", ["transformer", "tied", "lengths"])
def test_smoothing_changes_no_output(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    if name == "lengths":
        made = lengths()
        work = Workload(made.model, train=made.data, valid=made.data)
    else:
        work = work_of(Outlying(30), 8, 64) if name == "transformer" else work_of(Tied(), 16)
    path = tmp_path / "float.onnx"
    work.framework.export(work.model, work.signature, path, "onnx")
    inputs = next(work.report_rows.batches())
    row = inputs if isinstance(inputs, dict) else dict(zip(work.signature.names, inputs, strict=True))
    assert smooth(path, tmp_path / "smooth.onnx", [row])
    before = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    graph = onnx.load(tmp_path / "smooth.onnx")
    onnx.checker.check_model(graph)
    expected, found = (
        onnxruntime.InferenceSession(tmp_path / file).run(None, row)[0] for file in ("float.onnx", "smooth.onnx")
    )
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    changed = {
        tensor.name
        for tensor in graph.graph.initializer
        if tensor.name in before and (onnx.numpy_helper.to_array(tensor) != before[tensor.name]).any()
    }
    assert changed
    if name == "tied":
        assert all("shared" not in weight for weight in changed)


ERRORS = st.one_of(st.none(), st.floats(0, 4))


@given(st.floats(0, 4), st.lists(ERRORS, max_size=4))
def test_a_slower_way_is_taken_only_where_it_halves_what_is_far_off(first: float, others: list[float | None]) -> None:
    """The way is its error: outputs that lie so far, in spreads, beside what is expected."""
    expected = np.array([-1.0, 1.0])
    asked: list[float | None] = []

    def outputs(way: float | None) -> list[np.ndarray[Any, Any]] | None:
        asked.append(way)
        return None if way is None else [expected + way]

    choice = near_enough([first, *others], outputs, [expected])
    there = [way for way in asked if way is not None]
    assert choice.way in there
    assert choice.error == pytest.approx(choice.way)
    assert choice.first == pytest.approx(first)
    assert choice.way == first or choice.way <= GAIN * first + 1e-9
    if first <= FAR:
        assert asked == [first]
    if min(there) <= FAR * GAIN:
        assert choice.error <= FAR + 1e-9


def test_outputs_of_another_size_are_as_far_off_as_can_be() -> None:
    expected = np.zeros(3)
    choice = near_enough(["three", "two", "both"], lambda way: [np.zeros(2)], [expected])
    assert choice.way == "three"
    assert choice.error == float("inf")
    sizes = {"two": np.zeros(2), "three": np.array([0.0, 0.0, 0.5])}
    rescued = near_enough(sizes, lambda way: [sizes[way]], [expected])
    assert rescued.way == "three"
    assert "another size" in str(rescued)


def test_large_outputs_are_judged_on_fewer_rows() -> None:
    rows = [{"x": np.full(1, i)} for i in range(40)]
    assert judged(lambda row: [row["x"]], rows)[0].tolist() == list(range(32))
    asked = []

    def image(row: dict[str, np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
        asked.append(row)
        return [np.zeros(JUDGED_BYTES // 8, np.float32)]

    judged(image, rows)
    assert len(asked) == 3
