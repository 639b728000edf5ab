"""A study starts from what earlier ones of the same found best, where the space agrees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import FloatDistribution

from nbopt.errors import OptionError
from nbopt.studies.choosing import Running
from nbopt.studies.ending import Budget
from nbopt.studies.opening import open_study
from nbopt.studies.running import run_study
from nbopt.studies.warm import earlier_best

SPACE = {"x": FloatDistribution(0, 10)}


def objective(trial: Any) -> float:
    return -abs(float(trial.suggest_float("x", 0, 10)) - 3)


def wider(trial: Any) -> float:
    return float(trial.suggest_float("x", 0, 20))


def made(name: str, key: str, objective: Any = objective, trials: int = 8) -> Any:
    opened = open_study(name, key=key)
    run_study(opened, objective, Running(Budget(trials, min_gain=0), sampler="random", seed=len(name), warm="none"))
    return opened


def test_the_best_of_the_same_come_first_and_fit_the_space(home: Path) -> None:
    one, two = made("one", "k"), made("another", "k")
    made("other", "another workload")
    new = open_study("new", key="k")
    found = earlier_best(new, SPACE)
    assert found[0] in (one.study.best_params, two.study.best_params)
    assert len(found) == 3
    assert earlier_best(new, {"y": SPACE["x"]}) == []
    narrow = earlier_best(new, {"x": FloatDistribution(0, 2.5)})
    assert all(params["x"] <= 2.5 for params in narrow)
    assert earlier_best(new, SPACE, "none") == []


def test_a_study_is_named_and_a_wrong_name_is_told(home: Path) -> None:
    made("other", "another workload")
    new = open_study("new", key="k")
    assert len(earlier_best(new, SPACE, "other")) == 3
    with pytest.raises(OptionError, match="other"):
        earlier_best(new, SPACE, "othr")


def test_other_directions_do_not_count(home: Path) -> None:
    made("one", "k")
    assert earlier_best(open_study("new", directions=("minimize",), key="k"), SPACE) == []


def test_a_search_tries_them_right_after_its_first(home: Path) -> None:
    best = made("one", "k").study.best_params
    new = open_study("new", key="k")
    ended = run_study(new, objective, Running(Budget(6, min_gain=0), start={"x": 9.0}))
    params = [trial.params for trial in new.study.trials]
    assert params[0] == {"x": 9.0}
    assert params[1] == best
    assert "earlier studies" in ended.notes[0]


def test_a_range_that_differs_takes_over_only_what_fits(home: Path) -> None:
    made("one", "k", wider)
    new = open_study("new", key="k")
    run_study(new, objective, Running(Budget(6, min_gain=0)))
    assert all(0 <= trial.params["x"] <= 10 for trial in new.study.trials)
