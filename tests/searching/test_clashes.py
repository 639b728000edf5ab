"""No trial draws what its plan would refuse, whatever the techniques of a recipe leave open."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbopt.draft import Draft
from nbopt.loop import optimize
from nbopt.recipe import Recipe
from nbopt.searching.clashes import compatible
from nbopt.space import Dimension, Search
from nbopt.studies import draw
from nbopt.training import OPTIMIZERS, TrainingPlan
from nbopt.workload import Workload


def planned(name: str) -> Any:
    return lambda draft, value: draft if value == "off" else draft.with_(plan=draft.plan.adjusted(**{name: value}))


def field(name: str, default: Any, *others: Any) -> Dimension:
    return Dimension(name, planned(name), default, choices=(default, *others))


SCHEDULE = field("schedule", "constant", "cosine", "one_cycle", "schedule_free")
AVERAGING = field("averaging", "off", "ema", "swa")
OPTIMIZER = field("optimizer", "adamw", *(name for name in OPTIMIZERS if name != "adamw"))
RATE = Dimension("learning_rate", planned("learning_rate"), 1e-3, low=1e-4, high=1e-2, log=True)


@settings(max_examples=40)
@given(
    st.permutations([SCHEDULE, AVERAGING, OPTIMIZER, RATE]),
    st.integers(1, 4),
    st.sampled_from(["constant", "schedule_free"]),
    st.sampled_from(["none", "ema"]),
    st.integers(0, 9),
)
def test_whatever_is_drawn_is_a_plan(
    order: list[Dimension], count: int, schedule: str, averaging: str, seed: int
) -> None:
    if schedule == "schedule_free" and averaging == "ema":
        return  # a plan that is none
    plan = TrainingPlan(epochs=1, schedule=schedule, averaging=averaging)
    left = compatible(order[:count], Search(), plan).space
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed))
    for _ in range(20):
        values = draw(study.ask(), left)
        draft = Draft(None, plan)
        for dimension in left:
            if dimension.name in values:
                draft = dimension.apply(draft, values[dimension.name])


def test_of_two_that_clash_one_is_drawn_where_it_can_be() -> None:
    found = compatible((AVERAGING, SCHEDULE, OPTIMIZER, RATE), Search(), TrainingPlan())
    named = {each.name: each for each in found.space}
    allowed = ("constant", "cosine", "one_cycle")
    assert named["schedule"] == SCHEDULE
    assert named["averaging"].when == ("schedule", allowed)
    assert named["optimizer"].when == ("schedule", allowed)
    assert named["learning_rate"] == RATE
    assert found.notes == (
        "averaging was not searched with schedule schedule_free: ema of schedule_free, which averages already",
        "optimizer was not searched with schedule schedule_free: rmsprop, of which there is no schedule-free form",
    )


def test_what_the_plan_itself_excludes_is_left_out_and_not_tried_first() -> None:
    first = ({"schedule": "schedule_free"}, {"schedule": "cosine", "learning_rate": 1e-3})
    found = compatible((SCHEDULE, RATE), Search(first=first), TrainingPlan(averaging="ema"))
    assert found.space[0].choices == ("constant", "cosine", "one_cycle")
    assert found.search.first == first[1:]
    assert found.notes[0].startswith("schedule schedule_free was not searched: ema of schedule_free")
    none = compatible((AVERAGING, RATE), Search(), TrainingPlan(schedule="schedule_free"))
    assert none.space == (RATE,)


@given(st.lists(st.sampled_from([OPTIMIZER, RATE]), unique=True))
def test_what_does_not_clash_stays_as_it_is(space: list[Dimension]) -> None:
    found = compatible(space, Search(trials=7), TrainingPlan())
    assert (found.space, found.search, found.notes) == (tuple(space), Search(trials=7), ())


@pytest.mark.slow
def test_no_trial_of_a_recipe_fails_for_its_options(workload: Workload) -> None:
    recipe = Recipe.parse("schedule | regularize --cocktail --anyway --epochs 1 | tune --trials 12 --finalists 0")
    run = optimize(workload, *recipe.techniques, runtimes=["torch"], threads=1)["schedule+regularize+tune/torch"]
    assert not run.failed, run.reason
    assert any("averaging was not searched with schedule schedule_free" in note for note in run.notes)
    trials = run.search["trials"]
    assert len(trials) == 12
    assert not [each for each in trials if "OptionError" in str(each.get("reason", ""))]
