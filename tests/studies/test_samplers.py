"""Samplers go by the problem, and a finite space is not walked twice."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from nbopt.errors import OptionError
from nbopt.studies.extra import has
from nbopt.studies.samplers import SAMPLERS, Fresh, Problem, changed, choose, problem_of, sampler_of

optuna.logging.set_verbosity(optuna.logging.ERROR)
NUMBERS = {"x": FloatDistribution(0, 1), "y": IntDistribution(0, 9)}
FEW = {"y": IntDistribution(0, 9), "c": CategoricalDistribution(["a", "b"])}
WORDS = {**NUMBERS, "c": CategoricalDistribution(["a", "b"])}


@pytest.mark.parametrize(
    ("problem", "word"),
    [
        (Problem(WORDS, 60, seconds=60.0), "tpe"),
        (Problem(NUMBERS, 60, seconds=60.0, conditional=True), "tpe"),
        (Problem(NUMBERS, 60, seconds=60.0), "gp"),
        (Problem(NUMBERS, 60, seconds=1.0), "tpe"),  # 0.2 s a trial would be 20%
        (Problem(NUMBERS, 60), "tpe"),
        (Problem({f"x{i}": FloatDistribution(0, 1) for i in range(30)}, 60, seconds=60.0), "tpe"),
        (Problem(NUMBERS, 60, objectives=2, seconds=60.0), "tpe"),
        (Problem(NUMBERS, 5000, objectives=2), "nsga2"),
        (Problem(NUMBERS, 5000, constrained=True), "tpe"),
        (Problem({}, 60), "tpe"),
        (Problem(FEW, 60), "surrogate"),
        (Problem({**FEW, "one": IntDistribution(3, 3)}, 60), "surrogate"),
        (Problem(FEW, 5000), "tpe"),  # its cost grows with the cube of the trials
        (Problem(FEW, 60, conditional=True), "tpe"),
        (Problem(FEW, 60, objectives=2), "tpe"),
        (Problem({**FEW, "x": FloatDistribution(0, 1)}, 60), "tpe"),
    ],
)
def test_the_problem_decides(problem: Problem, word: str) -> None:
    assert choose(problem)[0] == word
    assert choose(problem)[1]


def test_many_trials_of_numbers_go_to_cmaes_where_it_is_installed() -> None:
    assert choose(Problem(NUMBERS, 5000))[0] == ("cmaes" if has("cmaes") else "tpe")


@pytest.mark.parametrize("word", [word for word in SAMPLERS if word != "cmaes" or has("cmaes")])
def test_each_word_is_a_sampler_that_runs(word: str) -> None:
    study = optuna.create_study(sampler=sampler_of(word, seed=0), directions=["minimize"])
    study.optimize(lambda t: t.suggest_float("x", -1, 1) ** 2 + t.suggest_int("y", 0, 3), n_trials=13)
    assert len(study.trials) == 13
    assert study.best_value < 1.5


def test_a_sampler_object_is_taken_as_it_is_and_a_wrong_word_is_told() -> None:
    own = optuna.samplers.RandomSampler()
    assert sampler_of(own) is own
    with pytest.raises(OptionError, match="tpe"):
        sampler_of("tpa")


def test_a_finite_space_is_walked_once() -> None:
    study = optuna.create_study(sampler=sampler_of("tpe", seed=0))
    for _ in range(25):
        trial = study.ask()
        study.tell(trial, trial.suggest_int("x", 0, 4) ** 2 + trial.suggest_categorical("y", [0, 1, 2, 3, 4]))
    after_startup = [tuple(trial.params.values()) for trial in study.trials[10:]]
    assert len(set(after_startup)) == len(after_startup)


def test_optunas_tpe_alone_walks_it_again() -> None:
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))
    study.optimize(lambda t: t.suggest_int("x", 0, 4) ** 2 + t.suggest_categorical("y", [0, 1, 2, 3, 4]), n_trials=25)
    settings = [tuple(trial.params.values()) for trial in study.trials]
    assert len(set(settings)) < 20


def test_what_lies_beside_a_setting_differs_in_one_parameter_and_lies_in_the_space() -> None:
    fresh = Fresh(optuna.samplers.RandomSampler(seed=0), seed=0)
    space = {
        "i": IntDistribution(2, 8, step=2),
        "f": FloatDistribution(0.5, 1.5, step=0.25),
        "c": CategoricalDistribution(["a", "b"]),
        "one": IntDistribution(3, 3),
    }
    drawn: dict[str, Any] = {"i": 8, "f": 0.5, "c": "a", "one": 3}
    for _ in range(50):
        beside = fresh._beside(drawn, space)
        assert sum(beside[name] != drawn[name] for name in drawn) == 1
        assert all(space[name]._contains(space[name].to_internal_repr(value)) for name, value in beside.items())
    assert fresh._beside({"one": 3}, space) == {"one": 3}


def objective(trial: Any) -> float:
    kind = trial.suggest_categorical("kind", ["a", "b"])
    return trial.suggest_float("x", 0, 1) if kind == "a" else trial.suggest_float("y", 0, 1 + trial.number)


def test_what_trials_tell_of_a_problem() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    study.optimize(objective, n_trials=10)
    problem = problem_of(study, 60)
    assert set(problem.space) == {"kind", "x", "y"}
    assert problem.conditional
    assert problem.categorical
    assert problem.seconds is not None
    (told,) = changed(study)
    assert told.startswith("y (0 to ")
