"""How many steps each part of a schedule has."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbopt.errors import OptionError
from nbopt.schedules import SCHEDULES, one_cycle_ends, phases
from nbopt.training import TrainingPlan


@given(
    st.sampled_from(SCHEDULES), st.integers(0, 5000), st.floats(0, 0.9), st.floats(0.01, 1), st.integers(1, 9),
    st.integers(1, 9),
)  # fmt: skip
def test_the_parts_fill_the_training(
    schedule: str, total: int, warmup: float, cooldown: float, drops: int, cycles: int
) -> None:
    found = phases(schedule, total, warmup=warmup, cooldown=cooldown, drops=drops, cycles=cycles)
    assert found.warmup + found.main + found.cooldown == found.total == max(1, total)
    assert min(found.warmup, found.main, found.cooldown) >= 0
    assert (found.warmup > 0) == (warmup > 0 and total > 1)
    assert list(found.drops) == sorted(found.drops)
    assert all(0 <= drop <= found.main for drop in found.drops)
    assert found.cycle * cycles >= found.main
    rise, fall = one_cycle_ends(max(1, total), warmup)
    assert rise >= 0
    assert fall > 0


def test_what_a_plan_refuses() -> None:
    for bad in (
        {"schedule": "linear"}, {"warmup": 1.0}, {"warmup": -0.1}, {"cooldown": 0.0}, {"decay": 0.0},
        {"schedule": "step", "decay": 1.0}, {"cycles": 0}, {"drops": 0}, {"plateau": 0}, {"patience": -1},
        {"min_delta": -1.0}, {"monitor": "auc"}, {"schedule": "schedule_free", "optimizer": "rmsprop"},
    ):  # fmt: skip
        with pytest.raises(OptionError):
            TrainingPlan(**bad)


def test_when_validation_steers() -> None:
    assert not TrainingPlan(monitor="loss").watches_loss
    assert TrainingPlan(monitor="loss", patience=1).watches_loss
    assert not TrainingPlan(monitor="metric", patience=1).watches_loss
    assert TrainingPlan(schedule="plateau").watches_loss
