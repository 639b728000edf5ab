"""The hunt for architectures: one budget for all of it, and candidates that are worth a training."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from torch import nn

from nbopt.architectures.family import Family
from nbopt.draft import Context, Deployed, Draft
from nbopt.errors import ModelError, OptionError
from nbopt.fitting import train as train_draft
from nbopt.measurement.intervals import Interval
from nbopt.progress import silent
from nbopt.recipe import Recipe
from nbopt.studies import Budget
from nbopt.techniques._nas.choosing import Tried, best_place
from nbopt.techniques._nas.hunting import TOLERANCE, Finalist, Hunt
from nbopt.techniques._nas.purse import Purse, budget_of, price_of
from nbopt.techniques.nas import Nas
from nbopt.training import TrainingPlan
from nbopt.workload import Workload
from tests.conftest import Digits
from tests.models import train

Array = np.ndarray[Any, Any]


class Clock:
    """Tell a time that only the test moves."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_purse_is_spent_from_when_it_was_made() -> None:
    clock = Clock()
    purse = Purse(Budget(cost=3.0, price=0.3), clock)  # ten hours
    assert purse.left() == 36_000
    clock.now += 3_600
    assert purse.spent == 3_600
    assert purse.left(0.15) == pytest.approx(1_800)
    assert purse.seconds_for(0.05) == 0
    assert purse.going(0.15, lambda: 1_000)()
    assert not purse.going(0.15, lambda: 2_000)()
    assert purse.note == "3600 s of 36000 s were spent, which cost 0.3"
    purse.refuse_spent(0.15)
    with pytest.raises(OptionError, match="lasts for what stands beside"):
        purse.refuse_spent(0.05)


def test_without_a_limit_there_is_always_time() -> None:
    purse = Purse(Budget(), Clock())
    assert math.isinf(purse.left())
    assert purse.seconds_for(0.5) is None
    assert purse.going(0.1, lambda: 1e9)()
    assert purse.note == "0 s were spent"


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.two = nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, x: Any) -> Any:
        return torch.relu(x + self.two(torch.relu(self.norm(self.one(x)))))


def counted(model: nn.Module) -> Deployed:
    """Say of a model that it takes a millisecond for a thousand parameters: a time that no load on a machine moves."""
    parameters = sum(p.numel() for p in model.parameters())
    return Deployed("a count of parameters", 4 * parameters, 0.2 + parameters / 1000)


@cache
def trained_residual() -> nn.Module:
    """Return a trained classifier of digits. Shared: what is tested leaves it as it is."""
    torch.manual_seed(0)
    x, y = load_digits(return_X_y=True)
    head = [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 10)]
    model = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), Residual(), nn.MaxPool2d(2), Residual(), *head)
    train(model, (x[:1000] / 16).astype(np.float32).reshape(-1, 1, 8, 8), y[:1000].astype(np.int64))
    return model.eval()


def hunt_of(digits: Digits, budget: Budget, **limits: Any) -> Hunt:
    x, y, model = digits.x.reshape(-1, 1, 8, 8), digits.y, trained_residual()
    work = Workload(model, train=(x[:1000], y[:1000]), valid=(x[1000:1250], y[1000:1250]), metric="accuracy")
    context = Context(work, deploy=counted, **limits)
    plan = TrainingPlan(epochs=10, learning_rate=3e-3, schedule="cosine")
    return Hunt(Family.of(model, context), plan, Purse(budget), trials=16, timed=20)


@pytest.mark.slow
def test_a_hunt_finds_candidates_that_are_faster_and_its_rivals_are_no_slower(digits: Digits) -> None:
    hunt = hunt_of(digits, Budget())
    whole = counted(hunt.family.model).latency_ms
    found = hunt.chosen()
    assert hunt.latency is not None
    assert hunt.latency.error < 0.05
    assert 1 <= len(found) <= 3
    assert all(each.there.latency_ms < 0.85 * whole for each in found)
    assert [each.there.latency_ms for each in found] == sorted(each.there.latency_ms for each in found)
    assert max(each.quality for each in found) > 0.5
    for rival in (hunt.uniform(found[-1].there.latency_ms), hunt.at_random(found[-1].there.latency_ms)):
        assert rival.there.latency_ms <= 1.1 * TOLERANCE * found[-1].there.latency_ms
    assert any("learned together for 10 epochs" in note for note in hunt.notes)


def test_a_rival_that_is_not_as_fast_says_what_is(digits: Digits) -> None:
    hunt = hunt_of(digits, Budget())
    hunt.plan = TrainingPlan(epochs=0)
    with pytest.raises(ModelError, match=r"narrowest takes [\d.]+ ms") as told:
        hunt.uniform(0.001)
    assert "scaled alike throughout within 0.001 ms" in str(told.value)
    assert "--max-latency" not in str(told.value)  # beside a search it is none of the user's
    with pytest.raises(ModelError, match="none is as fast by the table"):
        hunt.at_random(0.001)
    hunt.family = replace(hunt.family, context=replace(hunt.context, max_latency=0.001))
    with pytest.raises(ModelError, match="a higher --max-latency"):
        hunt.uniform(0.001)


def test_finalists_that_are_no_faster_than_the_model_are_left_out(digits: Digits) -> None:
    hunt = hunt_of(digits, Budget())
    start = hunt.family.space.grid.start
    assert start is not None
    hunt.timings[start] = 1.0
    slow, fast = (Finalist(start, None, 0.9, Deployed("", 0, taken)) for taken in (1.1, 0.7))
    assert hunt.faster([fast, slow]) == [fast]
    assert "1 finalists were no faster" in hunt.notes[-1]
    assert hunt.faster([slow]) == [slow]
    assert "no finalist was measured to be faster" in hunt.notes[-1]


def test_a_latency_that_is_asked_for_is_kept(digits: Digits) -> None:
    hunt = hunt_of(digits, Budget(), max_latency=3.0)
    hunt.plan = TrainingPlan()
    found = hunt.chosen()
    assert len(found) == hunt.finalists
    assert all(each.there.latency_ms <= 3.0 for each in found)
    assert any("did not learn together" in note for note in hunt.notes)


def test_a_latency_is_kept_as_it_is_measured_not_as_the_table_guesses(digits: Digits) -> None:
    hunt = hunt_of(digits, Budget(), max_latency=3.0)
    hunt.plan = TrainingPlan()
    off = 1.0

    def slower(model: nn.Module) -> Deployed:
        there = counted(model)
        return replace(there, latency_ms=off * there.latency_ms)

    hunt.family = replace(hunt.family, context=replace(hunt.context, deploy=slower))
    hunt.timed_table()
    off = 1.6  # what is built takes longer than the table has it
    found = hunt.chosen()
    assert all(each.there.latency_ms <= 3.0 for each in found)
    assert any("measured above the limit" in note for note in hunt.notes)
    off = 100.0
    with pytest.raises(OptionError, match="the fastest was measured at"):
        hunt.chosen()


def test_candidates_learn_classes_where_the_model_has_them() -> None:
    x = np.random.default_rng(0).normal(size=(40, 1, 6, 6)).astype(np.float32)
    model = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 3, 1)).eval()
    labels = np.digitize(x[:, 0], (-0.5, 0.5))
    work = Workload(model, train=(x, labels), valid=(x, labels))
    hunt = Hunt(Family.of(model, Context(work)), TrainingPlan(epochs=1), Purse(Budget()))
    assert hunt.teacher.axis == 1
    hunt.share()
    assert any("learned together for 1 epochs" in note for note in hunt.notes)


def test_a_budget_too_small_for_a_table_is_refused(digits: Digits) -> None:
    with pytest.raises(OptionError, match="a budget for 8 candidates"):
        hunt_of(digits, Budget(seconds=1e-3)).chosen()


def test_where_nothing_is_measured_weights_are_counted(digits: Digits) -> None:
    hunt = hunt_of(digits, Budget())
    object.__setattr__(hunt.family.context, "deploy", None)
    setting = [0] * len(hunt.family.space.choices)
    built = hunt.family.built(setting)
    assert hunt.there(built, setting).latency_ms == pytest.approx(sum(p.numel() for p in built.parameters()), rel=1e-3)
    assert any("how many weights" in note for note in hunt.notes)
    object.__setattr__(hunt.family.context, "max_latency", 1.0)
    hunt.latency = None
    with pytest.raises(OptionError, match="a run that measures"):
        hunt.timed_table()


def test_an_interrupt_keeps_what_was_looked_at_and_the_same_line_goes_on(digits: Digits) -> None:
    hunt = hunt_of(digits, Budget())
    looks = 0

    def told(progress: Any) -> None:
        nonlocal looks
        looks += progress.what == "looking at candidates"
        if looks == 6:
            raise KeyboardInterrupt

    context = replace(hunt.family.context, progress=told)
    step = Nas(trials=12, timed=12, shared_epochs=0, epochs=1, finalists=2)
    draft = step.apply(Draft(context.workload.model), context)
    assert draft.interrupted
    assert len(draft.tested["trials"]) == 5
    assert any("interrupted after 5 of 12" in note for note in draft.notes)
    again = step.apply(Draft(context.workload.model), replace(context, progress=silent))
    assert not again.interrupted
    assert len(again.tested["trials"]) == 12
    assert again.tested["trials"][:5] == draft.tested["trials"]
    assert any("cut off" in note for note in again.notes)


@given(st.floats(0.01, 1e6), st.floats(0.01, 100))
def test_budgets_are_times_or_money_at_a_price(amount: float, price: float) -> None:
    assert budget_of(amount, None).limit == pytest.approx(amount)
    text = f"${amount:.2f}"
    assert budget_of(text, price).limit == pytest.approx(float(text[1:]) / price * 3600)
    assert price_of(f"{price:.3f}/h") == pytest.approx(price, abs=1e-3)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"budget": "$3"}, "--price beside"),
        ({"budget": "soon"}, "as a time or as money"),
        ({"budget": "$-1", "price": 1.0}, "as a time or as money"),
        ({"budget": -5.0}, "above 0 seconds"),
        ({"price": "cheap"}, "of an hour"),
        ({"change": ("depth",)}, "width, kernel, block"),
        ({"build": 3}, "function of a trial"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(OptionError, match=told):
        Nas(**options)


def test_a_line_has_budgets_in_both_forms() -> None:
    (step,) = Recipe.parse("nas --budget 20m").techniques
    assert isinstance(step, Nas)
    assert step.budget == 1200
    (paid,) = Recipe.parse("nas --budget '$3' --price 0.30/h").techniques
    assert isinstance(paid, Nas)
    assert budget_of(paid.budget, price_of(paid.price)).limit == pytest.approx(36_000)
    assert Recipe.parse(Recipe.of(paid).text()).techniques == (paid,)


def test_uniform_scaling_and_a_random_search_stand_beside() -> None:
    recipe = Recipe.parse("nas --trials 30 | distill --alpha 0.0")
    assert [other.text() for other in recipe.beside()] == [
        "nas --controller random --trials 30 | distill --alpha 0.0",
        "nas --controller uniform --trials 30 | distill --alpha 0.0",
    ]
    assert not recipe.beside()[0].beside()

    def make(trial: Any) -> Any:
        return trial

    random, uniform = Nas(build=make).beside()
    assert isinstance(random, Nas)
    assert isinstance(uniform, Nas)
    assert random.build is make
    assert uniform.build is None  # the bound model, scaled


def tried(latency: float, value: float, half: float) -> Tried:
    return Tried(latency, 0.9 + value, Interval(value, value - half, value + half))


def test_the_fastest_is_chosen_that_surely_loses_no_more_than_may_be_lost() -> None:
    found = [tried(1.0, -0.05, 0.01), tried(2.0, 0.0, 0.02), tried(3.0, -0.001, 0.005), tried(4.0, 0.01, 0.005)]
    assert best_place(found, 0.01, greater=True) == (2, True)
    assert best_place(found, 0.02, greater=True) == (1, True)
    assert best_place(found, -1.0, greater=True) == (3, False)
    assert best_place(found, 0.01, greater=False) == (0, True)
    failed = Tried(0.5, float("nan"), reason="it diverged")
    assert best_place([failed, *found], 0.01, greater=True) == (3, True)
    assert "diverged" in failed.text


def test_what_was_quantized_or_masked_is_not_searched(digits: Digits) -> None:
    work = hunt_of(digits, Budget()).context.workload
    context = Context(work)
    for line, told in (("quantize", "nas before quantize"), ("prune --schedule cubic", "nas before what masks")):
        (step,) = Recipe.parse(line).techniques
        draft = step.apply(Draft(work.model), context)
        with pytest.raises(OptionError, match=told):
            Nas().apply(draft, context)
    with pytest.raises(OptionError, match="prune before quantize"):
        Recipe.parse("quantize | prune").techniques[1].apply(Draft(work.model, dtype="int8"), Context(work))


def test_distillation_teaches_what_was_found(digits: Digits) -> None:
    context = hunt_of(digits, Budget()).context
    draft = Draft(context.workload.model)
    line = "nas --trials 12 --timed 12 --shared-epochs 8 --finalists 3 --epochs 6 | distill --epochs 15"
    for step in Recipe.parse(line).techniques:
        draft = step.apply(draft, context)
    count = context.workload.framework.count
    assert count(draft.model)[0] < 0.9 * count(context.workload.model)[0]
    assert draft.plan.teacher is not None
    assert draft.plan.epochs == 15
    trained, _ = train_draft(draft, context, 0)
    assert context.score(trained.model) > 0.7


@pytest.mark.parametrize("controller", ["relaxed", "evolution", "policy", "tpe"])
def test_every_controller_finds_candidates(digits: Digits, controller: str) -> None:
    context = hunt_of(digits, Budget()).context
    step = Nas(controller=controller, trials=8, timed=12, shared_epochs=1, finalists=2, epochs=1)
    draft = step.apply(Draft(context.workload.model), context)
    assert draft.tested["trials"]
    assert counted(draft.model).latency_ms < 0.85 * counted(context.workload.model).latency_ms


def test_a_budget_holds_the_whole_search(digits: Digits) -> None:
    context = hunt_of(digits, Budget()).context
    step = Nas(trials=10_000, timed=30, shared_epochs=1000, epochs=1000, budget=12.0)
    began = time.monotonic()
    draft = step.apply(Draft(context.workload.model), context)
    train_draft(draft, context, 0)
    assert time.monotonic() - began < 12.0
    assert any("of 12 s were spent" in note for note in draft.notes)


def dense(trial: Any) -> nn.Module:
    hidden = trial.suggest_int("hidden", 8, 64, step=8)
    if hidden == 24:
        raise ValueError("not this one")
    return nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))


def test_a_space_of_the_users_own_is_trained_within_its_latency(digits: Digits) -> None:
    context = hunt_of(digits, Budget(), max_latency=2.5).context
    before = [p.clone() for p in context.workload.model.parameters()]
    step = Nas(build=dense, trials=8, epochs=15, learning_rate=1e-2, finalists=2)
    draft = step.apply(Draft(context.workload.model), context)
    assert counted(draft.model).latency_ms <= 2.5
    table = draft.tested
    assert {row["state"] for row in table["trials"]} <= {"complete", "pruned", "failed"}
    assert any(row["state"] == "complete" for row in table["trials"])
    slow = [row for row in table["trials"] if row["values"].get("latency", 0) > 2.5]
    assert all("not trained" in row["reason"] and row["score"] is None for row in slow)
    failed = [row for row in table["trials"] if row["state"] == "failed"]
    assert all("not this one" in row["reason"] for row in failed)
    assert all((p == q).all() for p, q in zip(before, context.workload.model.parameters(), strict=True))
    trained, _ = train_draft(draft, context, 0)
    assert context.score(trained.model) > 0.7


def some_fail(trial: Any) -> nn.Module:
    hidden = trial.suggest_categorical("hidden", [16, 24, 32, 48])
    if hidden in (24, 48):
        raise ValueError("no 24 here" if hidden == 24 else "neither this")
    return nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))


def test_candidates_that_fail_are_told_beside_the_choice_with_each_reason_once(digits: Digits) -> None:
    context = hunt_of(digits, Budget()).context
    draft = Nas(build=some_fail, trials=8, epochs=1).apply(Draft(context.workload.model), context)
    failed = {row["number"]: row["reason"] for row in draft.tested["trials"] if row["state"] == "failed"}
    (note,) = [note for note in draft.notes if "failed (" in note]
    assert note.startswith(f"{len(failed)} candidates failed (")
    assert "line" in note
    assert "raise ValueError(" in note  # the line of the function, not one of what calls it
    assert {reason for reason in failed.values() if note.count(reason) == 1} == set(failed.values())
    assert failed


def test_a_body_that_builds_no_candidate_is_told(digits: Digits) -> None:
    context = hunt_of(digits, Budget()).context
    draft = Draft(context.workload.model)
    for build, told in (
        (lambda _: None, "NoneType"),
        (lambda _: nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), "shape"),
        (lambda _: nn.Linear(7, 10), "takes the inputs|mat1"),
        (lambda _: context.workload.model, "bound model itself"),
    ):
        with pytest.raises(ModelError, match=told):
            Nas(build=build, trials=4, epochs=1).apply(draft, context)
    with pytest.raises(OptionError, match=r"within 0\.1 ms"):
        Nas(build=dense, trials=4, epochs=1).apply(draft, replace(context, max_latency=0.1))
    with pytest.raises(OptionError, match="leave one of them out"):
        Nas(build=dense, change=("width",)).apply(draft, context)
