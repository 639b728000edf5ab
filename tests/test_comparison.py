"""Rows of runs: unique names, the contract's columns, the front, the best under limits, saved and read."""

from __future__ import annotations

import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from nbopt.comparison import COLUMNS, Comparison, Limits
from nbopt.errors import ArtifactError, NbOptError, NbOptWarning, OptionError, StoreError
from nbopt.runs import Run

CONTRACT = """run, recipe, framework, runtime, dtype, metric, quality, quality_low, quality_high, quality_delta,
    quality_p, size_bytes, params, nonzero_params, latency_ms, latency_low_ms, latency_high_ms, latency_p90_ms, cpu_ms,
    contention, speedup, speedup_low, speedup_high, speedup_runtime, speedup_technique, throughput, peak_memory_bytes,
    train_seconds, search_seconds, epochs, cost_usd, verdict, reason, artifact"""


def run(name: str, **fields: Any) -> Run:
    """Return a measured run, one point lost at most, twice as fast; fields change it."""
    figures: dict[str, Any] = {
        "recipe": name.split("/", maxsplit=1)[0],
        "runtime": name.split("/")[1],
        "metric": "accuracy",
        "quality": 0.90,
        "quality_delta": 0.0,
        "quality_delta_low": -0.005,
        "quality_delta_high": 0.005,
        "size_bytes": 1000,
        "latency_ms": 1.0,
        "speedup": 2.0,
        "speedup_low": 1.9,
        "speedup_high": 2.1,
        "peak_memory_bytes": 100,
        "cpu_ms": 1.0,
    }
    return Run(name=name, **(figures | fields))


BASELINE = run(
    "baseline/torch", quality_delta=None, quality_delta_low=None, quality_delta_high=None, latency_ms=2.0,
    speedup=1.0, speedup_low=None, speedup_high=None, size_bytes=4000,
)  # fmt: skip
FAST = run("quantize/openvino", speedup=4.0, speedup_low=3.9, speedup_high=4.1, latency_ms=0.5, size_bytes=1200)
AS_FAST = run("quantize/onnxruntime", speedup=3.9, speedup_low=3.7, speedup_high=4.05, latency_ms=0.51, size_bytes=900)
LOSSY = run(
    "prune/openvino", speedup=8.0, speedup_low=7.5, speedup_high=8.5, latency_ms=0.25, quality=0.85,
    quality_delta=-0.05, quality_delta_low=-0.07, quality_delta_high=-0.03,
)  # fmt: skip
FAILED = Run(
    name="quantize/litert", recipe="quantize", runtime="litert", status="failed", reason="operator X is missing"
)
ALL = Comparison([BASELINE, FAST, AS_FAST, LOSSY, FAILED])


def test_the_columns_are_the_contracts() -> None:
    assert ALL.frame().columns.tolist() == list(COLUMNS) == [name.strip() for name in CONTRACT.split(",")]
    assert ALL.frame()["run"].tolist() == [r.name for r in ALL]
    assert ALL.frame().set_index("run").loc["quantize/openvino", "speedup"] == 4.0


def test_equal_names_become_unique_and_stay_so_when_added() -> None:
    twins = Comparison([FAST, dataclasses.replace(FAST, id="2")])
    assert [r.name for r in twins] == ["quantize/openvino", "quantize/openvino#2"]
    both = twins + Comparison([dataclasses.replace(FAST, id="3"), BASELINE])
    assert [r.name for r in both] == [
        "quantize/openvino", "quantize/openvino#2", "quantize/openvino#3", "baseline/torch",
    ]  # fmt: skip
    assert len(both + both) == len(both)


def test_a_run_is_found_by_name_and_the_nearest_is_suggested() -> None:
    assert ALL["quantize/openvino"] == FAST
    with pytest.raises(OptionError, match="did you mean 'quantize/openvino'"):
        ALL["quantise/openvino"]
    with pytest.raises(OptionError, match="the name of a run"):
        ALL[0]  # type: ignore[index]


def test_the_baseline_is_the_untouched_model() -> None:
    assert ALL.baseline == BASELINE
    assert Comparison([FAST]).baseline is None


def test_the_baseline_is_the_one_on_its_own_framework_wherever_it_stands() -> None:
    other, own = run("baseline/openvino", framework="tf_keras"), run("baseline/keras", framework="tf_keras")
    assert Comparison([other, own]).baseline == own
    assert Comparison([other]).baseline == other
    assert Comparison([other, dataclasses.replace(own, status="failed")]).baseline == other


def test_best_keeps_within_the_loss_at_the_bound_not_at_the_estimate() -> None:
    assert ALL.best(max_drop=0.01).name != LOSSY.name
    assert ALL.best(max_drop=0.06).name != LOSSY.name  # 0.05 lost, but it may be 0.07
    assert ALL.best(max_drop=0.08) == LOSSY


def test_among_equally_fast_runs_the_smaller_file_wins() -> None:
    assert ALL.best(max_drop=0.01) == AS_FAST
    clearly_slower = dataclasses.replace(AS_FAST, speedup_high=3.8)
    assert Comparison([BASELINE, FAST, clearly_slower]).best(max_drop=0.01) == FAST


def test_a_speed_that_a_busy_machine_left_open_ties_with_what_it_reaches_and_not_with_the_baseline() -> None:
    still = run("baseline/onnxruntime", speedup=3.5, speedup_low=3.3, speedup_high=3.7, size_bytes=6000)
    open_ = run("quantize/onnxruntime", speedup=4.4, speedup_low=0.9, speedup_high=8.0, size_bytes=9000)
    assert Comparison([BASELINE, still, open_]).best() == still
    assert Comparison([BASELINE, open_]).best() == BASELINE


def test_a_speed_that_nothing_supports_wins_only_on_other_axes_and_where_no_speed_is_known() -> None:
    unknown = run("prune/openvino", speedup=5.0, speedup_low=0.0, speedup_high=None, latency_ms=0.4, size_bytes=500)
    assert Comparison([BASELINE, FAST, unknown]).best() == FAST
    assert Comparison([BASELINE, FAST, unknown]).best(minimize="size") == unknown
    assert Comparison([unknown]).best() == unknown


def test_best_on_other_axes_and_under_limits() -> None:
    assert ALL.best(max_drop=0.01, minimize="size") == AS_FAST
    assert ALL.best(max_drop=0.1, minimize="latency", runtime="openvino", max_size=1100) == LOSSY
    assert ALL.best(max_drop=0.01, max_latency_ms=0.505) == FAST
    assert ALL.best(max_drop=0.01, runtime="torch") == BASELINE


def test_limits_are_numbers_and_a_recipe_alone_names_its_runs() -> None:
    limits: dict[str, Any] = {"max_size": "1 kB", "max_latency_ms": "2ms", "max_memory": "1GB"}
    for name, limit in limits.items():
        with pytest.raises(OptionError, match=f"{name} as a number"):
            ALL.best(**{name: limit})
    failed = run("quantize/torch", status="failed", reason="no")
    with pytest.raises(OptionError) as caught:
        Comparison([BASELINE, failed, FAST, AS_FAST])["quantize"]
    assert caught.value.do == "one of: quantize/openvino, quantize/onnxruntime"


def test_where_nothing_wins_the_baseline_is_kept() -> None:
    slower = dataclasses.replace(FAST, speedup=0.5, speedup_low=0.4, speedup_high=0.6)
    assert Comparison([BASELINE, slower, LOSSY, FAILED]).best(max_drop=0.01) == BASELINE


def test_a_lower_metric_may_rise_by_the_drop_in_shares_of_the_baseline() -> None:
    rmse = {"metric": "rmse", "greater_is_better": False, "bounded": False}
    small = run("a/x", quality=102.0, quality_delta=2.0, quality_delta_low=1.0, quality_delta_high=3.0, **rmse)
    assert Comparison([small]).best(max_drop=0.031) == small
    with pytest.raises(NbOptError, match="within the limits"):
        Comparison([small]).best(max_drop=0.029)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"minimize": "latncy"}, "did you mean 'latency'"),
        ({"max_drop": -0.1}, "max_drop"),
        ({"max_drop": "1%"}, "max_drop"),
        ({"max_drop": float("nan")}, "max_drop"),
    ],
)
def test_arguments_out_of_range_are_told(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        ALL.best(**arguments)


@pytest.mark.parametrize("comparison", [Comparison([]), Comparison([FAILED])])
def test_nothing_measured_is_told(comparison: Comparison) -> None:
    with pytest.raises(NbOptError, match="within the limits"):
        comparison.best()
    assert len(comparison.pareto()) == 0
    assert isinstance(comparison.frame(), pd.DataFrame)
    assert repr(comparison)


def test_the_front_has_what_no_other_run_beats() -> None:
    assert {r.name for r in ALL.pareto()} == {FAST.name, LOSSY.name}
    assert {r.name for r in ALL.pareto("size")} == {AS_FAST.name}
    unknown = dataclasses.replace(FAST, name="unknown/openvino", speedup=300.0, speedup_low=0.0, speedup_high=None)
    assert {r.name for r in Comparison([*ALL, unknown]).pareto()} == {FAST.name, LOSSY.name}
    assert [r.name for r in Comparison([FAST, dataclasses.replace(FAST, name="twin/openvino")]).pareto()] == [
        "quantize/openvino", "twin/openvino",
    ]  # fmt: skip
    with pytest.raises(OptionError, match="minimize among"):
        ALL.pareto("beauty")


def test_each_workload_has_a_front_of_its_own() -> None:
    error = {"metric": "rmse", "greater_is_better": False, "bounded": False, "workload_key": "houses"}
    good = run("quantize/openvino", quality=4.0, speedup=3.0, **error)
    bad = run("prune/openvino", quality=9.0, speedup=2.0, **error)
    both = Comparison([*ALL, good, bad]).pareto()
    assert {each.id for each in both} == {FAST.id, LOSSY.id, good.id}


def test_saved_and_read_back_it_is_the_same(tmp_path: Path) -> None:
    path = ALL.save(tmp_path / "deep" / "cmp.json")
    assert Comparison.read(path).runs == ALL.runs
    assert [r.home for r in Comparison.read(path)] == [r.home for r in ALL]
    table = pd.read_csv(ALL.save(tmp_path / "cmp.csv"))
    assert table["run"].tolist() == [r.name for r in ALL]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "a comparison that cmp.save"),
        ("[]", "a comparison that cmp.save"),
        ('{"format": "nbopt.comparison", "version": 1}', "a comparison that cmp.save"),
        ('{"format": "nbopt.comparison", "version": 99, "runs": []}', "version 99"),
        ('{"format": "something else", "version": 1, "runs": []}', "a comparison that cmp.save"),
    ],
)
def test_what_is_no_comparison_is_told(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "cmp.json"
    path.write_text(content)
    with pytest.raises(ArtifactError, match=message):
        Comparison.read(path)
    with pytest.raises(ArtifactError, match="nowhere"):
        Comparison.read(tmp_path / "nowhere.json")


def test_saving_where_nothing_can_be_written_is_told_and_leaves_the_older_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="can be written"):
        ALL.save(tmp_path / "file" / "cmp.json")
    with pytest.raises(StoreError, match="can be written"):
        ALL.save("/proc/nbopt.json")
    assert json.loads(ALL.save(tmp_path / "cmp.json").read_text())["version"] == 1


def test_limits_are_told_figure_by_figure() -> None:
    limits = Limits(max_drop=0.01, min_speedup=3.0, max_size=800)
    reasons = " ".join(limits.reasons(LOSSY))
    assert "0.07" in reasons
    assert "1,000 bytes" in reasons
    assert "speedup" not in reasons
    assert limits.broken_by(ALL).count(";") == 3
    assert "operator X is missing" in limits.broken_by(ALL)
    assert Limits(max_drop=0.08).broken_by(ALL) == ""
    assert Limits().broken_by(Comparison([FAILED])) == ""


def test_the_baseline_alone_keeps_no_limit() -> None:
    assert Limits(max_drop=0.5).broken_by(Comparison([BASELINE])) == "no variant was measured"


@pytest.mark.parametrize("limit", ["max_drop", "min_speedup", "max_size", "max_latency", "max_memory"])
@pytest.mark.parametrize("value", [-1, "much", float("nan")])
def test_a_limit_that_is_none_is_told(limit: str, value: Any) -> None:
    with pytest.raises(OptionError, match=f"{limit} as a number of 0 or more"):
        Limits(**{limit: value})


COLLAPSED = run("quantize/torch", speedup=99.0, speedup_low=98.0, speedup_high=100.0, size_bytes=10, latency_ms=0.01,
    verdict="collapsed: every row gets the same output", reason="collapsed: every row gets the same output; cause; do",
)  # fmt: skip


@pytest.mark.parametrize("quality", [{}, {"quality": None, "quality_delta": None, "quality_delta_low": None}])
def test_a_collapsed_run_is_never_chosen_and_breaks_every_limit(quality: dict[str, Any]) -> None:
    broken = dataclasses.replace(COLLAPSED, **quality)
    both = Comparison([BASELINE, broken])
    for minimize in ("latency", "size", "memory", "cpu"):
        assert both.best(max_drop=1.0, minimize=minimize) == BASELINE
        assert broken.name not in {each.name for each in both.pareto(minimize)}
    with pytest.raises(NbOptError, match="within the limits"):
        Comparison([broken]).best(max_drop=1.0)
    for limits in (Limits(max_drop=1.0), Limits(min_speedup=1.0), Limits(max_size=100), Limits(max_latency=1.0)):
        assert "every row gets the same output" in limits.broken_by(both)
    assert Limits(min_speedup=1.0).broken_by(Comparison([BASELINE, broken, FAST])) == ""


def test_best_among_runs_of_different_conditions_warns_and_says_so() -> None:
    here = {"threads": 2, "versions": {"openvino": "2026.1", "onnxruntime": "1.32"}}
    alike = [dataclasses.replace(each, environment=here) for each in (BASELINE, FAST, AS_FAST, LOSSY)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Comparison(alike).best() == alike[2]
        other = {**here, "versions": {"openvino": "2026.2", "onnxruntime": "1.32"}}
        # What is not ranked, and a version that a run does not depend on, are no matter.
        assert Comparison([*alike[:3], dataclasses.replace(alike[3], environment=other)]).best() == alike[2]
        moved = dataclasses.replace(alike[2], environment=other)
        assert Comparison([alike[0], alike[1], moved]).best() == moved
    slower = dataclasses.replace(alike[1], environment={**here, "threads": 1})
    with pytest.warns(NbOptWarning, match=r"different conditions: threads \(1, 2\); measure them again"):
        best = Comparison([alike[0], slower, alike[2]]).best()
    assert (best.name, best.id) == (AS_FAST.name, AS_FAST.id)
    assert best.notes == ("chosen among runs that were measured under different conditions: threads (1, 2)",)
    with pytest.warns(NbOptWarning, match="openvino"):
        Comparison([alike[1], dataclasses.replace(alike[1], environment=other)]).best()


def test_bytes_are_written_in_full() -> None:
    large = dataclasses.replace(FAST, size_bytes=1_350_000, peak_memory_bytes=50_000_000)
    assert Limits(max_size=10**6, max_memory=10**7).reasons(large) == ["1,350,000 bytes", "50,000,000 bytes of memory"]
    assert (
        str(Limits(max_size=5_000_000, max_latency=0.5))
        == "a run within max_size (bytes) 5,000,000, max_latency (ms) 0.5"
    )
