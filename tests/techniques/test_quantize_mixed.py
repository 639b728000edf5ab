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
