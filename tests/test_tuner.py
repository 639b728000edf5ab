"""`nbopt.tune`: what comes out of a search, over fresh seeds, and what stays when it is stopped."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

import nbopt
from nbopt.errors import Interrupted, OptionError, StudyError
from nbopt.tuner import directions_of, key_of

NOISE = 0.02


def noisy(trial: Any) -> float:
    x = trial.suggest_float("x", -1, 1)
    kind = trial.suggest_categorical("kind", ["a", "b"])
    return float(-(x**2) - 0.5 * (kind == "a") + NOISE * np.random.normal())  # noqa: NPY002 - what users draw from


START = {"x": -1.0, "kind": "a"}


@pytest.fixture
def tuning(home: Path) -> nbopt.Tuning:
    return nbopt.tune(noisy, trials=30, start=START, vs="random", finalists=2, repeats=4)


def test_the_best_is_better_than_the_start_over_fresh_seeds(tuning: nbopt.Tuning) -> None:
    assert isinstance(tuning.study, optuna.Study)
    assert tuning.best is not None
    assert tuning.best.won
    assert tuning.best_params == tuning.best.params
    assert tuning.best_params["kind"] == "b"
    assert abs(tuning.best_params["x"]) < 0.5
    names = [row.name for row in tuning.comparison.rows]
    assert names[0] == "start"
    assert names[-1].startswith("random, trial ")
    assert len(names) == 4
    assert tuning.comparison["start"].params == START


def test_what_is_claimed_is_the_mean_over_fresh_seeds_and_not_the_luckiest_trial(tuning: nbopt.Tuning) -> None:
    best = tuning.best
    assert best is not None
    assert best.means[0].value == pytest.approx(float(best.repeats.mean()))
    assert len(set(best.repeats[:, 0])) == 4
    assert best.found[0] not in best.repeats
    seeds = {trial.user_attrs["seed"] for trial in tuning.study.trials}
    assert seeds == set(range(len(tuning.study.trials)))


def test_random_search_has_as_many_trials_in_a_study_beside_it(tuning: nbopt.Tuning) -> None:
    assert len(tuning.rival.trials) == len(tuning)
    assert tuning.rival.study_name == f"{tuning.name}, random"
    assert tuning.rival.trials[0].params == START


def test_frames_have_every_trial_and_every_setting(tuning: nbopt.Tuning) -> None:
    trials = tuning.frame()
    assert list(trials["trial"]) == list(range(len(tuning)))
    assert {"state", "score", "x", "kind", "seconds", "reason"} <= set(trials.columns)
    settings = tuning.comparison.frame()
    assert (settings["score_low"] <= settings["score"]).all()
    assert list(settings["setting"]) == [row.name for row in tuning.comparison.rows]


def test_it_is_resumed_by_name_and_by_optuna(home: Path) -> None:
    first = nbopt.tune(noisy, trials=5, study="mine", finalists=0)
    again = nbopt.tune(noisy, trials=8, study="mine", finalists=0)
    assert (len(first.study.trials), len(again)) == (8, 8)
    assert "resumed with 5 trials" in again.notes
    done = nbopt.tune(noisy, trials=8, study="mine", finalists=0)
    assert len(done) == 8

    other = nbopt.tune(lambda trial: noisy(trial) + 1, trials=9, study="mine", finalists=0)
    assert any("code is not that" in note for note in other.notes)
    with pytest.raises(OptionError, match="continued in its direction"):
        nbopt.tune(noisy, trials=9, study="mine", direction="minimize")


def test_a_second_search_of_the_same_starts_from_the_first(home: Path) -> None:
    first = nbopt.tune(noisy, trials=12, finalists=0)
    second = nbopt.tune(noisy, trials=6, finalists=0, seed=1)
    assert first.study.best_params in [trial.params for trial in second.study.trials[1:4]]
    alone = nbopt.tune(noisy, trials=6, finalists=0, seed=1, warm="none")
    assert first.study.best_params not in [trial.params for trial in alone.study.trials]


def test_an_interrupt_keeps_what_there_is(home: Path) -> None:
    def stopping(trial: Any) -> float:
        if trial.number == 4:
            signal.raise_signal(signal.SIGINT)
        return noisy(trial)

    with pytest.raises(Interrupted) as caught:
        nbopt.tune(stopping, trials=30, study="mine")
    kept = caught.value.comparison
    assert isinstance(kept, nbopt.Tuning)
    assert len(kept) == 5
    assert kept.best_params == kept.study.best_params
    assert "mine" in str(caught.value)
    assert len(nbopt.tune(noisy, trials=7, study="mine", finalists=0)) == 7


def test_an_interrupt_among_the_finalists_keeps_the_search(home: Path) -> None:
    calls = []

    def stopping(trial: Any) -> float:
        calls.append(1)
        if len(calls) == 14:
            raise KeyboardInterrupt
        return noisy(trial)

    with pytest.raises(Interrupted) as caught:
        nbopt.tune(stopping, trials=10)
    kept = caught.value.comparison
    assert len(kept) == 10
    assert len(kept.comparison) == 0  # no seed was run with every setting


@pytest.mark.parametrize(("before", "rounds"), [(6, 1), (11, 2), (15, 3)])
def test_an_interrupt_among_the_finalists_keeps_the_seeds_that_all_have(before: int, rounds: int, home: Path) -> None:
    calls = []

    def stopping(trial: Any) -> float:
        calls.append(1)
        if len(calls) == 10 + before + 1:
            raise KeyboardInterrupt
        return noisy(trial)

    with pytest.raises(Interrupted) as caught:
        nbopt.tune(stopping, trials=10, finalists=3, repeats=5)
    kept = caught.value.comparison
    assert [len(row.repeats) for row in kept.comparison.rows] == [rounds] * 4
    assert kept.best is not None
    assert kept.best_params == dict(kept.best.params)
    assert any("interrupted before all settings" in note for note in kept.notes)


def test_one_that_gives_the_same_with_every_seed_is_told_and_not_run_more_than_twice(home: Path) -> None:
    calls = []

    def fixed(trial: Any) -> float:
        calls.append(trial.user_attrs["seed"])
        return float(trial.suggest_float("x", 0, 1))

    found = nbopt.tune(fixed, trials=6, finalists=2, repeats=10)
    assert any("the same with every seed" in note for note in found.notes)
    assert len(calls) == 6 + 2 * 3
    assert found.best is not None
    assert found.best.verdicts == ("better",)


def test_where_nothing_is_better_the_start_is_kept(home: Path) -> None:
    def flat(trial: Any) -> float:
        trial.suggest_float("x", -1, 1)
        return float(np.random.normal())  # noqa: NPY002 - as above

    found = nbopt.tune(flat, trials=12, start={"x": 0.25}, repeats=4)
    assert found.best_params == {"x": 0.25}
    assert "Nothing was better than start" in repr(found)


def test_several_scores_have_a_front(home: Path) -> None:
    def two(trial: Any) -> tuple[float, float]:
        x = trial.suggest_float("x", 0, 1)
        return x, x**2

    found = nbopt.tune(two, trials=15, direction="maximize,minimize", finalists=2, repeats=2)
    assert found.maximize == (True, False)
    assert len(found.study.best_trials) > 3
    assert 0 < found.best_params["x"] < 1
    assert "Pareto front" in repr(found)
    assert list(found.frame().columns[2:4]) == ["score 1", "score 2"]


def test_limits_keep_slow_settings_out(home: Path) -> None:
    def objective(trial: Any) -> float:
        x = trial.suggest_float("x", 0, 10)
        trial.set_user_attr("latency_ms", x)
        return float(x)

    found = nbopt.tune(objective, trials=15, limits={"latency_ms": 4.0}, finalists=2)
    assert found.best_params["x"] <= 4
    assert all(row.params["x"] <= 4 for row in found.comparison.rows[1:])


def test_processes_give_the_same_kind_of_result(home: Path) -> None:
    found = nbopt.tune(noisy, trials=12, start=START, jobs=2, finalists=1, repeats=3)
    assert len(found) == 12
    assert found.best is not None
    assert len(found.best.repeats) == 3


def test_money_is_counted(home: Path) -> None:
    found = nbopt.tune(noisy, trials=3, price=36.0, finalists=0)
    assert found.cost == pytest.approx(found.seconds / 100)


@pytest.mark.parametrize(
    ("direction", "metric", "found"),
    [
        (None, None, ("maximize",)),
        (None, "rmse", ("minimize",)),
        (None, "auc", ("maximize",)),
        (None, "profit", ("maximize",)),
        ("minimize", "profit", ("minimize",)),
        ("maximize, minimize", "auc", ("maximize", "minimize")),
        (["minimize", "minimize"], None, ("minimize", "minimize")),
    ],
)
def test_directions(direction: Any, metric: str | None, found: tuple[str, ...]) -> None:
    assert directions_of(direction, metric) == found


@pytest.mark.parametrize(
    "wrong",
    [
        {"direction": "minimize", "metric": "auc"},
        {"direction": "maximize", "metric": "log_loss"},
        {"direction": "up"},
        {"trials": 0},
        {"finalists": -1},
        {"repeats": 0},
        {"vs": "grid"},
        {"sampler": "tpa"},
        {"jobs": 0},
        {"max_cost": 1.0},
        {"warm": "no such study"},
    ],
)
def test_wrong_options_are_told_before_the_first_trial_or_after_it(wrong: dict[str, Any], home: Path) -> None:
    with pytest.raises(OptionError):
        nbopt.tune(noisy, **wrong)


def test_what_is_no_objective_is_told(home: Path) -> None:
    with pytest.raises(OptionError, match="a function that takes a trial"):
        nbopt.tune(3)  # type: ignore[arg-type]
    with pytest.raises(StudyError, match="gave None"):
        nbopt.tune(lambda trial: None)


def test_the_key_is_the_code_and_not_what_it_reads() -> None:
    assert key_of(noisy) == key_of(noisy) != key_of(key_of)
    assert key_of(len) == ""
