"""A setting once more with fresh seeds, in the kernel and in processes alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nbopt.studies.choosing import Running
from nbopt.studies.opening import open_study
from nbopt.studies.pool import Pool
from nbopt.studies.repeating import fresh_seeds, repeat_all


def seeds_too(trial: Any) -> float:
    return float(trial.suggest_float("x", -5, 5)) + trial.user_attrs["seed"] / 1e9


def test_repeats_are_the_same_in_processes_and_in_the_kernel(home: Path) -> None:
    opened, running = open_study("repeats"), Running(jobs=2)
    settings, seeds = [{"x": 1.0}, {"x": 2.0}], fresh_seeds(0, 3)
    here = repeat_all(seeds_too, settings, seeds, opened=opened, running=running)
    with Pool(seeds_too, opened, jobs=2) as pool:
        there = repeat_all(seeds_too, settings, seeds, opened=opened, running=running, pool=pool)
    assert here == there
    assert [outcome.values[0] > 2 for each in here for outcome in each.outcomes] == [False] * 3 + [True] * 3
    assert opened.study.trials == []
