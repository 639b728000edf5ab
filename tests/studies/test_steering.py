"""A study of Optuna led by a controller: what it draws, what it is told, and what it leaves to others."""

from __future__ import annotations

from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from nbopt.errors import OptionError
from nbopt.studies import Budget, Running, open_study, run_study
from nbopt.studies.samplers import STEERED, Problem, sampler_of
from nbopt.studies.steering import history_of

optuna.logging.set_verbosity(optuna.logging.ERROR)
SPACE = {
    "width": IntDistribution(16, 128, step=16),
    "norm": CategoricalDistribution(["batch", "layer", None]),
    "scale": FloatDistribution(0.5, 1.0, step=0.25),
}
EACH = pytest.mark.parametrize("word", STEERED)


def objective(trial: Any) -> float:
    width = trial.suggest_int("width", 16, 128, step=16)
    norm = trial.suggest_categorical("norm", ["batch", "layer", None])
    scale = trial.suggest_float("scale", 0.5, 1.0, step=0.25)
    return abs(width - 48) / 16 + {"batch": 2, "layer": 0, None: 3}[norm] + scale


@EACH
@pytest.mark.parametrize("told", [True, False])
def test_a_finite_space_is_walked_once(word: str, told: bool) -> None:
    problem = Problem(SPACE, 40, told=True) if told else None
    study = optuna.create_study(sampler=sampler_of(word, seed=3, problem=problem))
    study.optimize(objective, n_trials=40)
    drawn = [tuple(trial.params.values()) for trial in study.trials]
    assert len(set(drawn)) == len(drawn)
    assert all(
        SPACE[name]._contains(SPACE[name].to_internal_repr(v)) for t in study.trials for name, v in t.params.items()
    )
    assert study.best_value == 0.5


def test_other_parameters_are_left_to_another_sampler() -> None:
    def mixed(trial: Any) -> float:
        rate = trial.suggest_float("rate", 1e-4, 1e-1, log=True)
        fine = trial.suggest_int("fine", 0, 1000)
        return objective(trial) + abs(np.log10(rate) + 2) + fine / 1000

    study = optuna.create_study(sampler=sampler_of("surrogate", seed=0))
    study.optimize(mixed, n_trials=30)
    assert len({trial.params["rate"] for trial in study.trials}) == 30
    assert study.best_value < np.median([trial.value for trial in study.trials])


def test_what_failed_broke_a_limit_or_goes_on_is_told() -> None:
    study = optuna.create_study(direction="maximize")
    space = {"c": CategoricalDistribution(["a", "b"]), "w": IntDistribution(8, 32, step=8)}
    for values in ({"c": "a", "w": 8}, {"c": "b", "w": 16}, {"c": "b", "w": 24}, {"c": "a", "w": 32}):
        study.enqueue_trial(values)
    for outcome in (0.75, None, 1.0):
        trial = study.ask(space)
        if outcome == 1.0:
            trial.set_constraint("latency", 0.5)
        study.tell(trial, outcome, state=None if outcome else optuna.trial.TrialState.FAIL)
    study.ask(space)
    told = history_of(study, space)
    assert told.settings.tolist() == [[0, 0], [1, 1], [1, 2]]
    assert told.scores[0] == 0.75
    assert np.isnan(told.scores[1:]).all()
    assert told.pending is not None
    assert told.pending.tolist() == [[0, 3]]


def test_a_study_that_minimizes_is_told_the_negative() -> None:
    study = optuna.create_study()
    study.optimize(objective, n_trials=3)
    assert history_of(study, SPACE).scores.tolist() == [-trial.value for trial in study.trials]


def test_limits_known_beforehand_are_kept_by_each_trial() -> None:
    problem = Problem(SPACE, 30, told=True)
    # In the order of the names: norm, scale, width.
    sampler = sampler_of("surrogate", seed=0, problem=problem, allowed=lambda settings: settings[:, 2] >= 3)
    study = optuna.create_study(sampler=sampler)
    study.optimize(objective, n_trials=30)
    assert min(trial.params["width"] for trial in study.trials) == 64


def test_several_objectives_are_refused() -> None:
    with pytest.raises(OptionError, match="tpe, nsga2 or random"):
        sampler_of("evolution", problem=Problem(SPACE, 30, objectives=2))


def test_the_start_comes_first_and_a_study_goes_on() -> None:
    storage = optuna.storages.InMemoryStorage()
    start = {"width": 128, "norm": "batch", "scale": 1.0}
    for trials in (8, 24):
        opened = open_study("s", directions=("minimize",), storage=storage)
        budget = Budget(trials, min_gain=0)
        run_study(opened, objective, Running(budget, sampler="surrogate", start=start, space=SPACE, warm="none"))
    assert opened.study.trials[0].params == start
    assert len(opened.study.trials) == 24
    assert len({tuple(sorted(map(str, trial.params.values()))) for trial in opened.study.trials}) == 24
    assert opened.study.best_value <= 1.5
