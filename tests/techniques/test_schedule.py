"""Schedules, fixed and compared; what has no effect is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import nbopt
from nbopt.candidate import Candidate
from nbopt.draft import Context, Draft
from nbopt.errors import DataError, OptionError
from nbopt.recipe import Recipe
from nbopt.techniques.schedule import FACTORS, Schedule, usable_schedules
from nbopt.training import TrainingPlan, TrainingRecord
from nbopt.workload import Workload
from tests.conftest import Digits
from tests.models import mlp
from tests.runtimes.keras_models import model as keras_model


@pytest.fixture
def work(digits: Digits) -> Workload:
    return Workload(mlp(), train=digits.train, valid=digits.valid, test=digits.test, name="fresh digits")


def test_a_fixed_schedule_is_in_the_plan_and_its_control_has_a_constant_rate(work: Workload) -> None:
    step = Schedule(schedule="cosine", warmup=0.1, cycles=2, patience=3, monitor="loss", epochs=8)
    draft = step.apply(Draft(work.model), Context(work))
    plan = draft.plan
    assert (plan.schedule, plan.warmup, plan.cycles, plan.patience) == ("cosine", 0.1, 2, 3)
    assert (plan.epochs, plan.learning_rate, plan.monitor) == (8, 1e-3, "loss")
    assert draft.control
    control = draft.control_plan
    assert control is not None
    assert (control.schedule, control.patience, control.warmup) == ("constant", 0, 0.0)
    assert (control.epochs, control.learning_rate) == (8, 1e-3)
    assert draft.space == ()


def test_it_keeps_what_other_steps_of_the_recipe_say(work: Workload) -> None:
    plan = TrainingPlan(epochs=9, learning_rate=3e-4, optimizer="sgd")
    draft = Schedule(schedule="wsd", epochs=2).apply(Draft(work.model, plan, control=True), Context(work))
    assert (draft.plan.epochs, draft.plan.learning_rate, draft.plan.optimizer) == (9, 3e-4, "sgd")
    assert draft.control_plan is None  # the other step's control stands


def planned(work: Workload, recipe: str) -> Draft:
    draft = Draft.of(work)
    for step in Recipe.parse(recipe).techniques:
        draft = step.apply(draft, Context(work))
    return draft


def test_what_a_step_was_told_holds_whatever_comes_after_it(work: Workload) -> None:
    stopping = planned(work, "regularize --dropout 0.2 --patience 5 --anyway | schedule --schedule cosine").plan
    assert (stopping.patience, stopping.schedule) == (5, "cosine")
    told = "schedule --schedule one_cycle --learning-rate 0.0003 --warmup 0.2"
    for later in ("prune", "quantize --method qat", "schedule --schedule one_cycle"):
        plan = planned(work, f"{told} | {later}").plan
        assert (plan.schedule, plan.learning_rate, plan.warmup) == ("one_cycle", 3e-4, 0.2), later
    for later in ("prune --learning-rate 0.01", "quantize --method qat --learning-rate 0.01"):
        assert planned(work, f"{told} | {later}").plan.learning_rate == 0.01
    for alone in ("prune", "quantize --method qat"):
        assert (planned(work, alone).plan.schedule, planned(work, alone).plan.learning_rate) == ("cosine", 1e-3)


def test_what_of_a_search_has_no_effect_beside_tune_is_said(work: Workload) -> None:
    notes = planned(work, "tune --trials 4 | schedule --trials 50 --budget 1m").notes
    assert any("--trials and --budget of schedule had no effect" in note for note in notes)
    assert not any("no effect" in note for note in planned(work, "tune --trials 4 | schedule").notes)


def test_the_control_trains_as_long_as_the_candidate_in_the_end(work: Workload) -> None:
    for recipe in (
        "tune --trials 4 | regularize --dropout 0.2 --anyway",
        "schedule --schedule cosine | amp --epochs 9",
    ):
        draft = planned(work, recipe)
        candidate = Candidate(draft, TrainingRecord(), (0, 0), untouched=False)
        assert draft.control_plan is not None
        assert candidate.control_plan.epochs == draft.plan.epochs > 5
        assert candidate.control_plan.schedule == "constant"


def test_auto_gives_each_schedule_and_the_constant_rate_the_same_rates(work: Workload) -> None:
    draft = Schedule(epochs=3).apply(Draft(work.model), Context(work))
    kinds, rates = draft.space
    assert (kinds.name, rates.name) == ("schedule", "learning_rate")
    assert kinds.default == "constant"
    assert {"constant", "cosine", "one_cycle", "wsd", "step", "plateau"} <= set(kinds.choices)
    assert draft.search is not None
    assert draft.search.pruner == "none"
    tried = [(each["schedule"], each["learning_rate"]) for each in draft.search.first]
    assert len(tried) == len(set(tried)) == len(kinds.choices) * len(FACTORS) - 1
    for kind in kinds.choices:
        mine = {round(rate / 1e-3, 3) for other, rate in tried if other == kind}
        assert mine | ({1.0} if kind == "constant" else set()) == {1.0, 3.0, 0.333}
    changed = kinds.apply(rates.apply(draft, 0.005), "cosine")
    assert (changed.plan.schedule, changed.plan.learning_rate) == ("cosine", 0.005)
    assert draft.plan.schedule == "constant"


def test_schedule_free_is_compared_where_it_can_be_had() -> None:
    import importlib.util

    usable, missing = usable_schedules("torch", "adamw")
    assert ("schedule_free" in usable) == (importlib.util.find_spec("schedulefree") is not None) == (not missing)
    assert "schedule_free" in usable_schedules("keras", "adamw")[0]
    assert "no sgd" in usable_schedules("keras", "sgd")[1]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"schedule": "step", "cycles": 3}, "--cycles"),
        ({"schedule": "cosine", "drops": 3}, "--drops"),
        ({"schedule": "cosine", "cooldown": 0.5}, "--cooldown"),
        ({"schedule": "cosine", "trials": 5}, "--trials"),
        ({"schedule": "wsd", "decay": 0.5}, "--decay"),
        ({"schedule": "cosine", "monitor": "loss"}, "--monitor"),
        ({"schedule": "cosine", "range_test": True, "learning_rate": 0.1}, "--range-test"),
    ],
)
def test_an_option_without_effect_is_refused(work: Workload, options: dict[str, Any], expected: str) -> None:
    with pytest.raises(OptionError, match=expected):
        Schedule(**options).apply(Draft(work.model), Context(work))


def test_without_train_there_is_nothing_to_schedule(digits: Digits) -> None:
    work = Workload(mlp(), valid=digits.valid)
    with pytest.raises(DataError, match="train"):
        Schedule().apply(Draft(work.model), Context(work))


def test_the_range_test_sets_the_rate_and_its_picture_is_kept(work: Workload) -> None:
    draft = Schedule(schedule="one_cycle", range_test=True).apply(Draft(work.model), Context(work))
    tested = draft.tested["range"]
    assert draft.plan.learning_rate == tested["suggested"] != 1e-3
    assert draft.control_plan is not None
    assert draft.control_plan.learning_rate == tested["suggested"]
    assert len(tested["rates"]) == len(tested["losses"]) > 10
    assert any("range test" in note for note in draft.notes)


def test_the_range_test_is_of_the_candidate_and_not_of_what_it_came_from(work: Workload) -> None:
    torch.manual_seed(1)
    student = mlp()
    draft = nbopt.Distill(student=student, epochs=1, alpha=0.0).apply(Draft.of(work), Context(work))
    tested = Schedule(schedule="cosine", range_test=True).apply(draft, Context(work)).tested["range"]
    alone = Workload(student, train=work.train.source, valid=work.valid.source)  # type: ignore[union-attr]
    assert tested["losses"] == list(nbopt.lr_range(alone, batch_size=draft.plan.batch_size).losses)
    assert tested["losses"] != list(nbopt.lr_range(work, batch_size=draft.plan.batch_size).losses)


def test_labels_say_the_schedule() -> None:
    assert Schedule().label == "schedule auto"
    assert Schedule(schedule="cosine", patience=3).label == "schedule cosine patience 3"
    assert Recipe.parse("schedule --schedule cosine --patience 3").techniques == (
        Schedule(schedule="cosine", patience=3),
    )


@pytest.mark.slow
def test_early_stopping_ends_a_training_of_the_loop_and_the_control_goes_on(work: Workload) -> None:
    recipe = Schedule(schedule="cosine", epochs=40, patience=3, learning_rate=0.02)
    result = nbopt.optimize(work, recipe, runtimes=["onnxruntime"], threads=1)
    run, control = result["schedule/onnxruntime"], result["control/onnxruntime"]
    assert run.epochs < 40 == control.epochs
    assert "constant rate 0.02" in control.label
    assert any("did not get better in 3 epochs" in note for note in run.notes)
    assert run.quality > 0.85


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["torch", "keras"])
def test_auto_compares_them_in_the_loop(kind: str, digits: Digits) -> None:
    model: Any = mlp() if kind == "torch" else keras_model("mlp")
    work = Workload(model, train=digits.train, valid=digits.valid, test=digits.test, name="fresh digits")
    result = nbopt.optimize(work, "schedule --epochs 2 --trials 6 --finalists 1", runtimes=["onnxruntime"], threads=1)
    run = result["schedule/onnxruntime"]
    assert run.epochs == 6 * 2 + 4 * 2
    assert len({row["values"]["schedule"] for row in run.search["trials"]}) == 6
    assert run.quality > result["baseline/onnxruntime"].quality
