"""A search ends when its trials, time or money are used up, or when the rest would add nothing."""

from __future__ import annotations

import math

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbopt.errors import OptionError
from nbopt.studies.ending import Budget, expected_gain, nothing_to_gain

optuna.logging.set_verbosity(optuna.logging.ERROR)


def test_time_and_money_are_one_limit() -> None:
    assert Budget().limit == math.inf
    assert Budget(seconds=60).limit == 60
    assert Budget(cost=2.0, price=4.0).limit == 1800
    assert Budget(seconds=60, cost=2.0, price=4.0).limit == 60
    assert Budget(price=3.6).spent(100) == pytest.approx(0.1)
    assert Budget().spent(100) is None


def test_at_most_half_of_it_is_kept_for_the_finalists() -> None:
    budget = Budget(seconds=100)
    assert not budget.over(79, reserve=20)
    assert "100 s" in budget.over(81, reserve=20)
    assert not budget.over(49, reserve=10_000)
    assert budget.over(51, reserve=10_000)
    assert "cost" in Budget(cost=1.0, price=3600.0).over(1.5)


@pytest.mark.parametrize("wrong", [{"trials": 0}, {"seconds": 0}, {"cost": 1.0}, {"min_gain": -1.0}, {"price": -2.0}])
def test_what_is_out_of_range_is_told(wrong: dict[str, float]) -> None:
    with pytest.raises(OptionError):
        Budget(**wrong)  # type: ignore[arg-type]


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=60), st.integers(1, 200))
def test_a_gain_is_never_negative_nor_more_than_the_whole_range(values: list[float], rest: int) -> None:
    gain = expected_gain(values, rest)
    assert -1e-9 <= gain <= max(values) - min(values) + 1e-9
    assert expected_gain(values, rest) <= expected_gain(values, rest + 50) + 1e-9


def test_the_gain_of_exponential_values_is_the_logarithm() -> None:
    # The best of n grows by log((n + rest) / n) there.
    rng = np.random.default_rng(0)
    guesses = [expected_gain(list(rng.exponential(size=100)), 100) for _ in range(400)]
    assert np.mean(guesses) == pytest.approx(math.log(2), rel=0.1)


def study_of(values: list[float], sampler: int = 0) -> optuna.Study:
    study = optuna.create_study(direction="maximize")
    space = {"x": optuna.distributions.FloatDistribution(0, 1)}
    for at, value in enumerate(values):
        study.add_trial(optuna.trial.create_trial(params={"x": at / 1000}, distributions=space, value=value))
    return study


def test_a_search_that_still_gains_goes_on_and_one_that_has_settled_ends() -> None:
    rng = np.random.default_rng(0)
    climbing = list(rng.exponential(size=40))
    settled = [*rng.exponential(size=15), *(5 + 1e-4 * rng.normal(size=25))]
    assert not nothing_to_gain(study_of(climbing), Budget(60))
    assert "would add" in nothing_to_gain(study_of(settled), Budget(60))
    assert not nothing_to_gain(study_of(settled), Budget(60, min_gain=0))
    assert not nothing_to_gain(study_of(settled[:20]), Budget(60))
    assert "would add" in nothing_to_gain(study_of(climbing), Budget(60, min_gain=10.0))


def test_a_finite_space_ends_when_it_is_used_up() -> None:
    study = optuna.create_study()
    space = {"x": optuna.distributions.IntDistribution(0, 11)}
    for x in range(12):
        assert not nothing_to_gain(study, Budget(60))
        study.add_trial(optuna.trial.create_trial(params={"x": x}, distributions=space, value=float(x)))
    assert nothing_to_gain(study, Budget(60)) == "all 12 settings were tried"
