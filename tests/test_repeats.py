"""Repeats over seeds: a mean row with the spread, made of runs that stay in the store."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbopt import history
from nbopt.comparison import Comparison
from nbopt.errors import OptionError
from nbopt.loop import optimize
from nbopt.repeats import over_seeds
from nbopt.runs import Run, RunStore
from nbopt.techniques.prune import Prune
from nbopt.techniques.quantize import Quantize
from nbopt.workload import Workload


def repeat(seed: int, quality: float, speedup: float = 2.0, **more: Any) -> Run:
    delta = quality - 0.9
    return Run(
        name="prune/onnxruntime",
        recipe="prune",
        label="prune 0.5",
        runtime="onnxruntime",
        metric="accuracy",
        seed=seed,
        **{
            "quality": quality,
            "quality_low": quality - 0.01,
            "quality_high": quality + 0.01,
            "quality_delta": delta,
            "quality_delta_low": delta - 0.004,
            "quality_delta_high": delta + 0.004,
            "speedup": speedup,
            "speedup_low": speedup * 0.98,
            "speedup_high": speedup * 1.02,
            "speedup_runtime": 1.0,
            "speedup_technique": speedup,
            "latency_ms": 1 / speedup,
            "latency_low_ms": 0.98 / speedup,
            "latency_high_ms": 1.02 / speedup,
            "size_bytes": 1000,
            "verdicts": {"size": "better", "memory": "same", "latency": "better", "quality": "same"},
            **more,
        },
    )


def test_the_row_is_the_mean_and_its_file_that_of_the_median_seed() -> None:
    runs = [repeat(0, 0.88, artifact="a"), repeat(1, 0.92, artifact="b"), repeat(2, 0.91, artifact="c")]
    row = over_seeds(runs, None)
    assert row.quality == pytest.approx(np.mean([0.88, 0.92, 0.91]))
    assert row.artifact == "c"
    assert row.seeds == (0, 1, 2)
    assert row.spread["quality"] == [0.88, 0.92, 0.91]
    assert row.spread["runs"] == [run.id for run in runs]
    assert "seed 2" in row.notes[0]
    assert row.id not in row.spread["runs"]
    assert Run.from_dict(row.to_dict()) == row


def test_the_interval_is_never_narrower_than_that_of_the_rows_nor_of_the_seeds() -> None:
    alike = over_seeds([repeat(seed, 0.9) for seed in range(3)], None)
    assert alike.quality_delta_low == pytest.approx(-0.004)
    assert alike.quality_delta_high == pytest.approx(0.004)
    assert alike.verdicts["quality"] == "same"
    apart = over_seeds([repeat(0, 0.80), repeat(1, 0.90), repeat(2, 1.0)], None)
    # Student's t for two degrees of freedom is 4.303; the three seeds' deviation is 0.1.
    assert apart.quality_delta_high == pytest.approx(np.hypot(4.303 * 0.1 / np.sqrt(3), 0.004), rel=1e-3)
    assert apart.verdicts["quality"] == "inconclusive"


def test_an_interval_ends_where_the_figure_does() -> None:
    runs = [repeat(seed, value, bounded=True) for seed, value in enumerate((0.97, 0.99))]
    assert over_seeds(runs, None).quality_high == 1
    values = [dataclasses.replace(run, bounded=False) for run in runs]
    assert over_seeds(values, None).quality_high > 1  # type: ignore[operator]
    lost = [repeat(seed, value, bounded=True, quality_low=0.0) for seed, value in enumerate((0.01, 0.08))]
    row = over_seeds(lost, None)
    assert (row.quality_low, row.quality_delta_low) == (0, -1)


def test_speed_that_depends_on_the_seed_is_not_called_faster() -> None:
    row = over_seeds([repeat(0, 0.9, 0.8), repeat(1, 0.9, 1.5), repeat(2, 0.9, 1.6)], None)
    assert row.verdicts["latency"] == "inconclusive"
    assert row.speedup_low < 1 < row.speedup_high
    assert row.speedup_runtime * row.speedup_technique == pytest.approx(row.speedup)


@pytest.mark.parametrize("stored", [False, True])
def test_a_bound_that_one_seed_lacks_is_open_for_all(stored: bool) -> None:
    runs = [repeat(0, 0.9), repeat(1, 0.9, 70.0), repeat(2, 0.9)]
    runs[1] = dataclasses.replace(runs[1], speedup_low=0.0, speedup_high=None if stored else math.inf)
    row = over_seeds(runs, None)
    assert (row.speedup_low, row.speedup_high) == (0, math.inf)
    assert row.verdicts["latency"] == "inconclusive"


def test_a_seed_that_failed_or_collapsed_is_left_out_and_named() -> None:
    failed = repeat(1, 0.9, status="failed", reason="out of memory")
    lost = repeat(2, 0.1, verdict="collapsed", reason="collapsed: every row gets the same output")
    row = over_seeds([repeat(0, 0.9), failed, lost], None)
    assert row.quality == pytest.approx(0.9)
    assert any("seed 1" in note and "out of memory" in note for note in row.notes)
    assert any("seed 2" in note and "every row" in note for note in row.notes)
    assert over_seeds([failed, failed], None).failed


@given(
    st.lists(st.floats(0.5, 0.99), min_size=1, max_size=6),
    st.lists(st.floats(0.2, 20), min_size=6, max_size=6),
)
def test_means_lie_within_the_seeds_and_intervals_around_them(qualities: list[float], speeds: list[float]) -> None:
    row = over_seeds([repeat(i, q, s) for i, (q, s) in enumerate(zip(qualities, speeds, strict=False))], None)
    used = speeds[: len(qualities)]
    assert min(qualities) - 1e-9 <= row.quality <= max(qualities) + 1e-9
    assert min(used) * (1 - 1e-9) <= row.speedup <= max(used) * (1 + 1e-9)
    assert row.quality_low <= row.quality <= row.quality_high
    assert row.speedup_low <= row.speedup <= row.speedup_high
    assert row.speedup_runtime * row.speedup_technique == pytest.approx(row.speedup)


def test_optimize_repeats_and_keeps_every_seed(workload: Workload, store: RunStore) -> None:
    recipe = Prune(sparsity=0.5, epochs=1)
    found = optimize(workload, recipe, seed=4, seeds=2, runtimes=["onnxruntime"], threads=1, store=store)
    assert [run.name for run in found] == [
        *("baseline/torch", "baseline/onnxruntime", "prune/onnxruntime"),
        "control/onnxruntime",
    ]
    assert found["control/onnxruntime"].seeds == (4, 5)
    row = found["prune/onnxruntime"]
    assert row.seeds == (4, 5)
    members = [run for run in store.runs() if run.id in row.spread["runs"]]
    assert [run.seed for run in members] == [4, 5]
    assert row.quality == pytest.approx(np.mean([run.quality for run in members]))
    assert members[0].artifact_sha256 != members[1].artifact_sha256
    assert row.artifact in {run.artifact for run in members}
    kept = Comparison(history.latest(store.runs(row.workload_key)))
    assert row.id in {run.id for run in kept}
    assert not {run.id for run in kept} & set(row.spread["runs"])


def test_what_no_seed_changes_is_not_repeated_further(workload: Workload, store: RunStore) -> None:
    dynamic = Quantize(method="dynamic")
    found = optimize(workload, dynamic, seeds=5, runtimes=["onnxruntime"], threads=1, store=store)
    assert found["quantize/onnxruntime"].seeds == (0, 1)


@pytest.mark.parametrize("seeds", [0, 101])
def test_a_number_of_seeds_out_of_range_is_told(workload: Workload, seeds: int) -> None:
    with pytest.raises(OptionError, match="seeds between 1 and 100"):
        optimize(workload, Quantize(), seeds=seeds)


def test_a_gate_judges_the_mean(workload: Workload, store: RunStore) -> None:
    with pytest.raises(Exception, match="max_size") as caught:
        optimize(workload, Prune(sparsity=0.5), seeds=2, runtimes=["onnxruntime"], threads=1, store=store, max_size=10)
    rows: Comparison = caught.value.comparison  # type: ignore[attr-defined]
    assert rows["prune/onnxruntime"].seeds
    assert dataclasses.is_dataclass(rows["prune/onnxruntime"])
