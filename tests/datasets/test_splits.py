"""How rows are held out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbopt.datasets.splits import held_out, standardized


@given(st.lists(st.integers(0, 4), min_size=1, max_size=200), st.integers(0, 9), st.floats(0, 1))
def test_each_row_is_in_one_part_and_each_class_in_proportion(labels: list[int], seed: int, share: float) -> None:
    y = np.array(labels, dtype=np.int64)
    train, test = held_out(y, seed, share)
    assert sorted([*train, *test]) == list(range(len(y)))
    for label in set(labels):
        assert (y[test] == label).sum() == round(share * labels.count(label))


def test_rows_come_in_random_order() -> None:
    y = np.repeat(np.arange(2), 500)
    train, _ = held_out(y, seed=0)
    # Sorted by class, the first half would be all of one class.
    assert y[train][:350].mean() == pytest.approx(0.5, abs=0.1)


def test_a_column_that_is_constant_in_the_training_rows_stays_finite() -> None:
    x = np.array([[1.0, 5.0], [3.0, 5.0], [100.0, 6.0]])
    assert standardized(x, np.array([0, 1])).tolist() == [[-1, 0], [1, 0], [98, 1]]
