"""The plan of one training."""

from __future__ import annotations

import pytest

from nbopt.draft import Draft
from nbopt.training import TrainingPlan
from nbopt.workload import Workload


@pytest.mark.parametrize(
    ("rows", "size"), [(1, 16), (200, 16), (600, 32), (1437, 64), (2047, 64), (2048, 128), (60_000, 128), (None, 128)]
)
def test_an_epoch_over_few_rows_has_steps_all_the_same(rows: int | None, size: int) -> None:
    assert TrainingPlan().suited(rows).batch_size == size


def test_a_smaller_batch_stays(workload: Workload) -> None:
    assert TrainingPlan(batch_size=8).suited(50).batch_size == 8
    assert workload.train is not None
    assert Draft.of(workload).plan == TrainingPlan().suited(workload.train.whole_rows)
