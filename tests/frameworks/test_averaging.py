"""How much each state counts in an average: known without a framework."""

from __future__ import annotations

import pytest

from nbopt.errors import OptionError
from nbopt.frameworks._averaging import Pace, first_averaged
from nbopt.training import TrainingPlan


def test_a_moving_average_warms_up() -> None:
    pace = Pace(TrainingPlan(averaging="ema", ema_decay=0.9))
    weights = [pace.after_step() for _ in range(200)]
    assert weights[0] == pytest.approx(1 - 2 / 11)
    assert weights == sorted(weights, reverse=True)
    assert weights[-1] == pytest.approx(0.1)
    assert pace.after_epoch(1) == 0


def test_the_last_epochs_count_alike() -> None:
    plan = TrainingPlan(epochs=8, averaging="swa", swa_start=0.75)
    pace = Pace(plan)
    assert first_averaged(plan) == 7
    assert pace.after_step() == 0
    assert [pace.after_epoch(epoch) for epoch in range(9)] == [0] * 7 + [1.0, 0.5]
    assert first_averaged(TrainingPlan(epochs=1, averaging="swa")) == 1


def test_no_average_has_no_states() -> None:
    pace = Pace(TrainingPlan(epochs=3))
    assert not pace.after_step()
    assert not pace.after_epoch(3)
    assert not pace.active


@pytest.mark.parametrize(
    "wrong",
    [{"averaging": "mean"}, {"ema_decay": 1.0}, {"swa_start": 1.0}, {"mixup": -1.0}, {"label_smoothing": 1.0}],
)
def test_a_plan_refuses_what_it_does_not_know(wrong: dict[str, object]) -> None:
    with pytest.raises(OptionError):
        TrainingPlan(**wrong)  # type: ignore[arg-type]
