"""The fewest layers stay in float, found by measuring, and never on test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from nbopt.draft import Context, Draft, Lowered
from nbopt.errors import ExportError
from nbopt.loop import optimize
from nbopt.runtimes import runtime_named
from nbopt.techniques._quantize.mixed import fewest, named_layers, relative_error
from nbopt.techniques.quantize import Quantize
from nbopt.workload import Workload
from tests import models
from tests.conftest import Digits

NAMES = st.lists(st.text("abcdef", min_size=1, max_size=3), min_size=1, max_size=20, unique=True)


@given(NAMES, st.data())
def test_the_fewest_that_are_enough_are_kept_most_sensitive_first(names: list[str], data: st.DataObject) -> None:
    errors = {name: data.draw(st.floats(0, 1)) for name in names}
    needed = data.draw(st.integers(0, len(names)))
    most = data.draw(st.integers(1, len(names)))
    asked = []

    def lost(kept: tuple[str, ...]) -> float:
        asked.append(len(kept))
        return 0.0 if len(kept) >= needed else 1.0 - len(kept) / 100

    kept, left = fewest(errors, lost, 0.5, most)
    assert list(kept) == sorted(errors, key=lambda name: -errors[name])[: len(kept)]
    if needed <= most:
        assert len(kept) == max(1, needed)
        assert left == 0.0
    else:
        assert left > 0.5
        assert len(kept) <= most
    assert len(asked) <= 2 * len(names).bit_length() + 2


def test_names_are_found_with_all_that_lies_below_them() -> None:
    known = ["encoder.0", "encoder.1", "encoders", "head"]
    assert named_layers("encoder, head", known) == ("encoder.0", "encoder.1", "head")
    with pytest.raises(ExportError, match="keep-float") as caught:
        named_layers("hed", known)
    assert "did you mean 'head'" in caught.value.do


def test_the_error_is_a_share_of_the_spread() -> None:
    reference = np.array([[0.0, 2.0], [4.0, 6.0]], np.float32)
    assert relative_error(reference, reference) == 0
    assert relative_error(reference + 1, reference) == pytest.approx(1 / np.std(reference))
    assert relative_error(reference * np.nan, reference) == float("inf")


class Harsh(nn.Module):
    """A layer whose inputs lie far from zero: of 256 levels from there on, next to none tell them apart."""

    OFFSET = 2000.0

    def __init__(self, model: nn.Sequential) -> None:
        super().__init__()
        self.body, self.head = model[:-1], model[-1]
        with torch.no_grad():
            self.head.bias.sub_(self.head.weight.sum(1) * self.OFFSET)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x) + self.OFFSET)


@pytest.fixture(scope="module")
def harsh(digits: Digits) -> Workload:
    torch.manual_seed(0)
    layers = [nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 64), nn.ReLU(), nn.Linear(64, 10)]
    model = models.train(nn.Sequential(*layers), *digits.train, steps=60)
    return Workload(Harsh(model).eval(), train=digits.train, valid=digits.valid, test=digits.test)


def lowered(work: Workload, runtime_name: str, folder: Path, options: Quantize, max_drop: float | None) -> Lowered:
    runtime = runtime_named(runtime_name)
    source = work.framework.export(work.model, work.signature, folder / f"float{runtime.suffix}", runtime.form)
    (step,) = options.apply(Draft(work.model), Context(work)).lower
    target = folder / "lowered"
    target.mkdir()
    context = Context(work, max_drop=max_drop)
    return step(work.model, work.signature, source, runtime, target, context)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_only_the_layer_that_costs_quality_stays_in_float(harsh: Workload, runtime: str) -> None:
    plain = optimize(harsh, Quantize(calibration=64), runtimes=runtime, threads=1)[f"quantize/{runtime}"]
    assert (plain.quality_delta or 0) < -0.05
    assert plain.sensitivity == {}
    # The gate looks at the interval's bound on test, so what is kept must be good, not just enough.
    mixed = optimize(harsh, Quantize(calibration=64), runtimes=runtime, threads=1, max_drop=0.03)
    run = mixed[f"quantize/{runtime}"]
    assert run.sensitivity["kept"] == ["head"]
    assert max(run.sensitivity["layers"], key=run.sensitivity["layers"].get) == "head"
    assert (run.quality_delta or 0) > -0.01
    assert any("rows of valid" in note for note in run.notes)
    precision = {layer["name"]: layer["weight_dtype"] for layer in run.audit["layers"]}
    assert precision["head"] == "float32"
    assert sorted(precision.values()) == ["float32", "int8", "int8"]


def test_test_is_never_read_for_the_choice(harsh: Workload, digits: Digits, tmp_path: Path) -> None:
    work = Workload(harsh.model, train=digits.train, test=digits.test)
    result = lowered(work, "onnxruntime", tmp_path, Quantize(calibration=64), 0.01)
    assert result.sensitivity["kept"] == ["head"]
    assert any("agreement with the float model on 1,000 calibration rows" in note for note in result.notes)


class Far(nn.Module):
    """Values in dollars, from a head whose inputs lie far from zero."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Sequential(nn.Linear(16, 64), nn.ReLU()), nn.Linear(64, 1)
        with torch.no_grad():
            self.head.bias.sub_(self.head.weight.sum(1) * Harsh.OFFSET)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 1e5 * self.head(self.body(x) + Harsh.OFFSET)


@pytest.mark.parametrize("labelled", [True, False])
def test_without_test_data_a_loss_is_in_the_metrics_own_units(labelled: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    model = Far().eval()
    x = rng.normal(size=(900, 16)).astype(np.float32)
    with torch.no_grad():
        y = model(torch.from_numpy(x)).numpy() + rng.normal(size=(900, 1)).astype(np.float32) * 2e3
    train = (x[:600], y[:600]) if labelled else x[:600]
    work = Workload(model, train=train, valid=(x[600:], y[600:]), metric="rmse", loss=nn.MSELoss())
    result = lowered(work, "onnxruntime", tmp_path, Quantize(calibration=64), 100.0)
    assert result.sensitivity["kept"] == ["head"]
    against = "" if labelled else " against the float model's own outputs"
    assert any(f"rmse{against} on 600 calibration rows lost" in note for note in result.notes)
    (tmp_path / "enough").mkdir()
    assert lowered(work, "onnxruntime", tmp_path / "enough", Quantize(calibration=64), 1e6).sensitivity == {}


def test_rows_of_one_class_are_judged_by_agreement_where_the_metric_needs_two(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    model, x, y = models.mlp(16, 2), rng.normal(size=(90, 16)).astype(np.float32), np.arange(90) % 2
    with torch.no_grad():
        model[-1].bias.add_(torch.tensor([9.0, 0.0]))
    work = Workload(model.eval(), train=(x[:40], y[:40] * 0), valid=(x[40:], y[40:]), metric="auc")
    assert lowered(work, "onnxruntime", tmp_path, Quantize(), 0.01).sensitivity == {}


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("deep", [False, True])
def test_a_layer_that_is_all_there_is_stays_int8(deep: bool, runtime: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    wide = nn.Linear(1200, 4)
    model = nn.Sequential(wide, nn.ReLU(), nn.Linear(4, 4, bias=False)) if deep else wide
    with torch.no_grad():
        wide.bias.sub_(wide.weight.sum(1) * Harsh.OFFSET)
    x = (rng.normal(size=(400, 1200)) + Harsh.OFFSET).astype(np.float32)
    with torch.no_grad():
        y = model(torch.from_numpy(x)).argmax(1).numpy()
    work = Workload(model.eval(), train=(x[:200], y[:200]), valid=(x[200:300], y[200:300]), test=(x[300:], y[300:]))
    result = lowered(work, runtime, tmp_path, Quantize(calibration=64), 0.01)
    shares = runtime_named(runtime).weight_precisions(result.exported.path)
    assert shares["int8"] > 0.9 * sum(shares.values())
    assert any("more than the 0.01 allowed" in note or "no layer in float helps" in note for note in result.notes)


def test_images_are_judged_on_as_many_as_memory_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 1)).eval()
    x, y = rng.normal(size=(300, 1, 16, 16)).astype(np.float32), rng.integers(0, 3, (300, 16, 16))
    parts = {"train": (x[:100], y[:100]), "valid": (x[100:200], y[100:200])}
    for name, splits in {"train": parts, "valid": {**parts, "test": (x[200:], y[200:])}}.items():
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.setattr("nbopt.techniques._quantize.mixed.HELD_BYTES", 20 * 3 * 16 * 16 * 4)
        result = lowered(Workload(model, **splits), "onnxruntime", folder, Quantize(calibration=9), -1.0)
        place = "20 calibration rows" if name == "train" else "20 rows of valid"
        assert any(place in note for note in result.notes), result.notes


def test_layers_are_kept_by_name_or_not_at_all(harsh: Workload, tmp_path: Path) -> None:
    for index, (asked, kept) in enumerate([("body", 1), ("none", 3)]):
        folder = tmp_path / str(index)
        folder.mkdir()
        result = lowered(harsh, "onnxruntime", folder, Quantize(calibration=9, keep_float=asked), 0.001)
        counts = runtime_named("onnxruntime").weight_precisions(result.exported.path)
        sizes = {1: 64 * 10, 3: 64 * 48 + 48 * 64 + 64 * 10}
        assert abs(counts["int8"] - sizes[kept]) < 200
    with pytest.raises(ExportError, match="keep-float"):
        lowered(harsh, "openvino", tmp_path, Quantize(calibration=9, keep_float="bdoy"), None)
