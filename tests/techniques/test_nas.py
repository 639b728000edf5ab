"""The hunt for architectures: one budget for all of it, and candidates that are worth a training."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nbopt.architectures.family import Family
from nbopt.errors import OptionError
from nbopt.studies import Budget
from nbopt.technique import Context, Deployed
from nbopt.techniques._nas.hunting import TOLERANCE, Hunt
from nbopt.techniques._nas.purse import Purse
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


def hunt_of(digits: Digits, budget: Budget, **limits: Any) -> Hunt:
    torch.manual_seed(0)
    x, y = digits.x.reshape(-1, 1, 8, 8), digits.y
    head = [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 10)]
    model = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), Residual(), nn.MaxPool2d(2), Residual(), *head)
    train(model, x[:1000], y[:1000])
    work = Workload(model.eval(), train=(x[:1000], y[:1000]), valid=(x[1000:1250], y[1000:1250]), metric="accuracy")
    context = Context(work, deploy=counted, **limits)
    plan = TrainingPlan(epochs=3, learning_rate=3e-3, schedule="cosine")
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
        assert rival is not None
        assert rival.there.latency_ms <= 1.1 * TOLERANCE * found[-1].there.latency_ms
    assert any("learned together for 3 epochs" in note for note in hunt.notes)


def test_a_latency_that_is_asked_for_is_kept(digits: Digits) -> None:
    hunt = hunt_of(digits, Budget(), max_latency=3.0)
    hunt.plan = TrainingPlan()
    (found,) = hunt.chosen()
    assert found.there.latency_ms <= 3.0 * 1.1
    assert any("did not learn together" in note for note in hunt.notes)


def test_a_budget_too_small_for_a_table_is_refused(digits: Digits) -> None:
    with pytest.raises(OptionError, match="a budget for 8 candidates"):
        hunt_of(digits, Budget(seconds=1e-3)).chosen()


def test_nothing_measured_is_refused(digits: Digits) -> None:
    hunt = hunt_of(digits, Budget())
    object.__setattr__(hunt.family.context, "deploy", None)
    with pytest.raises(OptionError, match="a run that measures"):
        hunt.timed_table()
