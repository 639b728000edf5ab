"""The instrument against known truths: the same artifact twice, and with a delay of known size."""

from __future__ import annotations

import pytest

from nbopt.artifacts import read_sidecar
from nbopt.comparison import Comparison
from nbopt.measurement.intervals import Interval
from nbopt.measurement.selfcheck import Check, Trial, check
from nbopt.workload import Workload

TRIALS = 20


def run_check(comparison: Comparison, workload: Workload, **options: object) -> Check:
    run = comparison["baseline/onnxruntime"]
    sidecar = read_sidecar(run.path)
    assert sidecar is not None
    return check(run.path, sidecar[0], workload.report_rows.folder, threads=1, **options)  # type: ignore[arg-type]


@pytest.mark.slow
def test_an_artifact_is_not_called_different_from_itself(comparison: Comparison, workload: Workload) -> None:
    found = run_check(comparison, workload, trials=TRIALS)
    assert len(found.trials) == TRIALS
    # At most 5% of many: of 20 trials, more than 3 would be chance once in sixty times.
    assert found.called_different * TRIALS <= 3


@pytest.mark.slow
def test_a_delay_of_a_fifth_is_found_and_never_called_a_gain(comparison: Comparison, workload: Workload) -> None:
    found = run_check(comparison, workload, trials=TRIALS, delay=0.2)
    assert found.share("better") == 0
    quiet = [trial for trial in found.trials if trial.contention < 1.05 and trial.foreign < 0.1]
    # Where other load was seen a trial may end without a verdict; where none was, it must find the delay.
    assert sum(trial.verdict == "worse" for trial in quiet) >= 0.9 * len(quiet)


def test_a_check_counts_its_trials() -> None:
    def trial(verdict: str, low: float, high: float) -> Trial:
        return Trial(1 / 1.2, Interval((low + high) / 2, low, high), verdict, 1.0, 0.0, 1.0)  # type: ignore[arg-type]

    found = Check(0.2, "quick", (trial("worse", 0.8, 0.9), trial("worse", 0.7, 0.8), trial("inconclusive", 0.8, 1.1)))
    assert found.called_different == pytest.approx(2 / 3)
    assert found.covered == pytest.approx(2 / 3)
    assert "+20%" in str(found)
    assert "inconclusive 1" in str(found)
