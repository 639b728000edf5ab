"""Dimensions become Optuna's parameters and come back as their own values."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbopt.errors import OptionError
from nbopt.space import Dimension
from nbopt.studies.suggesting import contains, defaults, distributions, draw, in_order, values_of


def keep(draft: Any, value: Any) -> Any:
    return draft


class Odd:
    def __str__(self) -> str:
        return "odd"


ODD = Odd()
SPACE = (
    Dimension("momentum", keep, 0.9, low=0.0, high=0.99, when=("optimizer", ("sgd",))),
    Dimension("optimizer", keep, "adamw", choices=("adamw", "sgd")),
    Dimension("rate", keep, 1e-3, low=1e-5, high=1e-1, log=True),
    Dimension("width", keep, 64, low=16, high=128, step=16),
    Dimension("depth", keep, 2, low=1, high=64, step=1, log=True),
    Dimension("extra", keep, None, choices=(None, ODD)),
)


def test_those_that_others_depend_on_come_first() -> None:
    names = [each.name for each in in_order(SPACE)]
    assert names.index("optimizer") < names.index("momentum")


def test_the_default_is_the_first_trial_and_gives_back_what_was_meant() -> None:
    study = optuna.create_study()
    study.enqueue_trial(defaults(SPACE))
    drawn = draw(study.ask(), SPACE)
    assert drawn == {"optimizer": "adamw", "rate": 1e-3, "width": 64, "depth": 2, "extra": None}


@given(st.integers(0, 200))
def test_what_is_drawn_lies_in_the_space_and_comes_back_from_the_parameters(seed: int) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    trial = study.ask()
    drawn = draw(trial, SPACE)
    space = distributions(SPACE)
    assert ("momentum" in drawn) == (drawn["optimizer"] == "sgd")
    assert drawn["width"] % 16 == 0
    assert drawn["extra"] in (None, ODD)
    assert values_of(trial.params, SPACE) == drawn
    assert all(contains(space[name], value) for name, value in trial.params.items())
    assert space == {**space, **trial.distributions}


@pytest.mark.parametrize(
    "space",
    [
        (SPACE[1], SPACE[1]),
        (SPACE[0],),
        (
            Dimension("a", keep, 0.5, low=0, high=1, when=("b", (1,))),
            Dimension("b", keep, 1, choices=(1, 2), when=("a", (0,))),
        ),
    ],
)
def test_a_space_that_cannot_be_drawn_is_refused(space: tuple[Dimension, ...]) -> None:
    with pytest.raises(OptionError):
        in_order(space)
