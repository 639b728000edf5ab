"""A study's trials in this kernel: counted, kept, ended, given up where the objective can't be right."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import optuna
import pytest

from nbopt.errors import OptionError, StudyError
from nbopt.progress import Progress
from nbopt.studies.choosing import Running
from nbopt.studies.ending import Budget
from nbopt.studies.opening import open_study
from nbopt.studies.running import run_study


def square(trial: Any) -> float:
    return float(trial.suggest_float("x", -5, 5)) ** 2


def test_it_takes_as_many_trials_as_allowed_and_goes_on_where_it_stopped(home: Path) -> None:
    told: list[Progress] = []
    running = Running(Budget(7, min_gain=0))
    opened = open_study("mine", directions=("minimize",))
    ended = run_study(opened, square, running, progress=told.append)
    assert len(opened.study.trials) == 7
    assert ended.reason == ""
    assert [progress.done for progress in told] == list(range(8))
    assert told[-1].total == 7
    assert "best" in told[-1].note
    again = open_study("mine", directions=("minimize",))
    run_study(again, square, running)
    assert len(again.study.trials) == 7
    run_study(again, square, Running(Budget(9, min_gain=0)))
    assert len(again.study.trials) == 9


def test_one_seed_gives_one_search_and_it_is_optunas_tpe(home: Path) -> None:
    runs = []
    for name in ("one", "two"):
        opened = open_study(name, directions=("minimize",))
        run_study(opened, square, Running(Budget(15, min_gain=0), seed=3, pruner="none", warm="none"))
        runs.append([trial.params["x"] for trial in opened.study.trials])
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=3))
    study.optimize(square, n_trials=15)
    assert runs[0] == runs[1] == [trial.params["x"] for trial in study.trials]


def test_failed_trials_are_kept_with_their_reasons_and_the_rest_goes_on(home: Path) -> None:
    def objective(trial: Any) -> float:
        x = square(trial)
        if trial.number == 2:
            raise ValueError("this one")
        return float("nan") if trial.number == 3 else x

    opened = open_study("mine", directions=("minimize",))
    run_study(opened, objective, Running(Budget(8, min_gain=0)))
    states = [trial.state.name for trial in opened.study.trials]
    assert states.count("FAIL") == 2
    assert states.count("COMPLETE") == 6


def test_an_objective_that_cannot_be_right_is_given_up_soon_and_the_study_is_whole(home: Path) -> None:
    calls = []

    def wrong(trial: Any) -> float:
        calls.append(trial.number)
        raise KeyError("feature")

    with pytest.raises(StudyError, match="KeyError: 'feature'"):
        run_study(open_study("wrong"), wrong, Running(Budget(50)))
    assert calls == [0, 1, 2]
    with pytest.raises(StudyError, match="gave None"):
        run_study(open_study("none"), lambda trial: None, Running(Budget(50)))
    assert [trial.state.name for trial in open_study("none").study.trials] == ["FAIL"]


def test_a_space_whose_kind_changes_is_told_in_the_trial_and_a_range_in_a_note(home: Path) -> None:
    def kinds(trial: Any) -> float:
        if trial.number % 2:
            return float(trial.suggest_categorical("x", [1, 2]))
        return float(trial.suggest_float("x", 0, 1))

    opened = open_study("kinds")
    run_study(opened, kinds, Running(Budget(4, min_gain=0)))
    failed = [trial for trial in opened.study.trials if trial.state.name == "FAIL"]
    assert [trial.number for trial in failed] == [1, 3]
    assert "kind changed between trials" in failed[0].user_attrs["nbopt:reason"]
    opened = open_study("ranges")
    ended = run_study(opened, lambda t: t.suggest_float("x", 0, 1 + t.number), Running(Budget(4, min_gain=0)))
    assert "x (0 to 1, in trial 1 0 to 2)" in ended.notes[0]


def test_the_untuned_default_is_the_first_trial_and_must_fit(home: Path) -> None:
    opened = open_study("start")
    run_study(opened, square, Running(Budget(2, min_gain=0), start={"x": 1.25}))
    assert opened.study.trials[0].params == {"x": 1.25}
    with pytest.raises(OptionError, match="y, which it does not ask for"):
        run_study(open_study("unknown"), square, Running(Budget(2), start={"y": 1.0}))
    with pytest.warns(UserWarning, match="out of range"), pytest.raises(OptionError, match=r"x=7\.0"):
        run_study(open_study("outside"), square, Running(Budget(2), start={"x": 7.0}))


def test_time_ends_it_but_never_before_the_first_trial(home: Path) -> None:
    def slow(trial: Any) -> float:
        time.sleep(0.05)
        return square(trial)

    opened = open_study("slow")
    ended = run_study(opened, slow, Running(Budget(1000, seconds=0.5)))
    assert 1 < len(opened.study.trials) < 12
    assert "used up" in ended.reason
    opened = open_study("none")
    run_study(opened, slow, Running(Budget(1000, seconds=1e-6)))
    assert len(opened.study.trials) == 1


def test_reports_are_pruned(home: Path) -> None:
    def objective(trial: Any) -> float:
        x = square(trial)
        for step in range(4):
            trial.report(x, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return x

    opened = open_study("pruned", directions=("minimize",))
    run_study(opened, objective, Running(Budget(25, min_gain=0)))
    assert sum(trial.state.name == "PRUNED" for trial in opened.study.trials) > 2


@pytest.mark.parametrize("wrong", [{"jobs": 0}, {"timeout": 0.0}, {"sampler": "tpa"}, {"pruner": "x"}])
def test_options_out_of_range_are_told(wrong: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        Running(**wrong)
