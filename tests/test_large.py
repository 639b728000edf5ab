"""Large outputs are judged a slice at a time: in bounded memory, and to the same figures."""

from __future__ import annotations

import errno
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nbopt.frozen import join_ragged
from nbopt.large import any_of, by_slices, room, slices_of, where
from nbopt.loop import optimize
from nbopt.measurement.metrics import metric_of
from nbopt.measurement.quality import Quality, judge
from nbopt.workload import Workload
from tests import models
from tests.conftest import Digits

RNG = np.random.default_rng(0)
ROWS = 60


@pytest.fixture
def little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let arrays be large from 4 kB, and slices take 2."""
    for name, size in (("nbopt.large.LARGE_BYTES", 4096), ("nbopt.large.SLICE_BYTES", 2048)):
        monkeypatch.setattr(name, size)
    monkeypatch.setattr("nbopt.measurement.bench.LARGE_BYTES", 4096)


@pytest.mark.usefixtures("little_room")
def test_rows_are_taken_in_slices_that_hold_each_once() -> None:
    x = RNG.normal(size=(1000, 7))
    parts = slices_of(x)
    assert len(parts) > 20
    np.testing.assert_array_equal(np.concatenate([x[part] for part in parts]), x)
    np.testing.assert_array_equal(by_slices(lambda rows: rows.sum(axis=1), x), x.sum(axis=1))
    kept = RNG.random((1000, 7)) > 0.4
    np.testing.assert_array_equal(where(kept, x), x[kept])
    np.testing.assert_array_equal(where(kept[:, 0], x), x[kept[:, 0]])
    assert any_of(lambda rows: rows == x[-1], x)
    assert not any_of(np.isnan, x)
    joined = join_ragged([x[:300], x[300:]])
    np.testing.assert_array_equal(joined, x)
    assert isinstance(joined.base, np.memmap)


@pytest.mark.usefixtures("little_room")
def test_a_large_array_leaves_no_file_and_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    large = room((1000, 7), np.float64)
    large[...] = 1
    assert large.sum() == 7000
    assert list(tmp_path.iterdir()) == []
    assert not isinstance(room((3,), np.float64).base, np.memmap)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space"):
        room((1000, 7), np.float64)


CASES: list[tuple[Any, str, tuple[int, ...]]] = [
    ("logits", "accuracy", (6, 9)),
    ("logits", "log_loss", (6, 9)),
    ("logits", "f1", (50,)),
    ("log_probabilities", "balanced_accuracy", (50,)),
    ("probabilities", "auc", (50,)),
    ("binary_logits", "accuracy", (40,)),
    ("multilabel_logits", "log_loss", (40,)),
    ("regression", "rmse", (60,)),
    ("regression", "r2", (60,)),
]


@pytest.mark.parametrize("spoilt", ["", "nearly the same", "ignored", "not finite", "flat", "padded"])
@pytest.mark.parametrize(("kind", "name", "shape"), CASES)
def test_figures_are_the_same_to_the_last_bit(
    kind: Any, name: str, shape: tuple[int, ...], spoilt: str, request: pytest.FixtureRequest
) -> None:
    rng = np.random.default_rng(1)
    raw, noise = rng.normal(size=(2, ROWS, *shape)).astype(np.float32)
    y: Any = raw + noise
    if kind.startswith(("binary", "multilabel")):
        y = (y > 0).astype(np.int64)
        raw, noise, y = (each[..., None] if kind.startswith("binary") else each for each in (raw, noise, y))
    elif kind != "regression":
        y = y.argmax(-1)
    if kind.endswith("probabilities"):
        raw = np.exp(raw) / np.exp(raw).sum(-1, keepdims=True)
        raw = np.log(raw) if kind == "log_probabilities" else raw
    base = raw.copy()
    scale = 1e-6 if spoilt == "nearly the same" else 0.3
    variant = np.clip(raw + scale * noise, 0, 1) if kind == "probabilities" else raw + np.float32(scale) * noise
    if spoilt == "flat":
        variant = np.broadcast_to(variant[:1], variant.shape).copy()
    if spoilt == "not finite":
        variant[3] = np.nan
    if spoilt == "ignored" and kind.endswith("s") and not kind.startswith(("multilabel", "binary")):
        y = y.copy()
        y[::3] = -100
    if spoilt == "padded" and len(shape) == 2:
        half = ROWS // 2
        base, variant, y = (join_ragged([each[:half, :4], each[half:]]) for each in (base, variant, y))

    def found() -> Quality:
        return judge(metric_of(name, output=kind), variant, y, None, base)

    whole = found()
    request.getfixturevalue("little_room")
    assert found() == whole


@pytest.mark.parametrize("name", ["accuracy", "log_loss"])
def test_memory_is_that_of_slices_not_of_outputs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = RNG.normal(size=(64, 64, 1000)).astype(np.float32)
    y = raw.argmax(-1)
    other = raw + np.float32(1e-6)
    monkeypatch.setattr("nbopt.large.LARGE_BYTES", 2**20)
    monkeypatch.setattr("nbopt.large.SLICE_BYTES", 2**19)
    tracemalloc.start()
    try:
        judge(metric_of(name, output="logits"), raw, y, None, other)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 0.5 * raw.nbytes, f"{peak / raw.nbytes:.2f} times the outputs"


@pytest.mark.usefixtures("little_room")
def test_outputs_of_a_process_are_kept_in_a_file_for_as_long_as_the_model_is_the_same(digits: Digits) -> None:
    from nbopt.baselines import baselines_of

    model = models.mlp()
    work = Workload(model, valid=digits.valid)
    first = optimize(work, runtimes="onnxruntime", threads=1)
    kept = list(baselines_of(work)._kept.values())
    assert [isinstance(each.raw.base, np.memmap) for each in kept] == [True, True]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    models.train(model, *digits.train)
    optimize(work, runtimes="torch", threads=1)
    assert [each.raw for each in kept] == [None, None]
    model.load_state_dict(before)
    again = optimize(work, "quantize --method dynamic", runtimes="onnxruntime", threads=1)
    assert [run.id for run in again][:2] == [run.id for run in first]
    assert not again["quantize/onnxruntime"].failed
