"""Shares of a batch: all rows, dealt evenly, and a mean over processes that is the mean over the batch."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nbopt.batches import Batch
from nbopt.frameworks._sharing import shares

RNG = np.random.default_rng(0)


@given(st.integers(1, 70), st.integers(1, 9), st.booleans())
def test_shares_hold_each_row_once_and_their_means_make_that_of_the_batch(
    rows: int, processes: int, weighted: bool
) -> None:
    x, y = RNG.normal(size=(rows, 3)), RNG.normal(size=rows)
    weight = RNG.random(rows) + 0.1 if weighted else None
    found = shares(Batch({"a": x}, y, weight), processes)
    assert len(found) == processes
    if rows >= 2 * processes:
        assert np.array_equal(np.concatenate([each.inputs["a"] for each in found]), x)
        assert max(each.rows for each in found) - min(each.rows for each in found) <= 1
        assert min(each.rows for each in found) >= 2
    means = [each.factor * np.average(each.targets, weights=each.weight) for each in found]
    np.testing.assert_allclose(np.mean(means), np.average(y, weights=weight), rtol=1e-9)


@given(st.integers(2, 30), st.integers(1, 5))
def test_of_token_labels_those_count_that_are_not_ignored(rows: int, processes: int) -> None:
    values, labels = RNG.normal(size=(rows, 4)), RNG.integers(0, 3, (rows, 4))
    labels[RNG.random((rows, 4)) < 0.5] = -100
    labels[0, 0] = 0
    found = shares(Batch((values,), labels), processes)

    def mean(part: Batch) -> float:
        (own,) = part.inputs
        kept = part.targets != -100
        return float(own[kept].sum() / max(1, kept.sum()))

    whole = mean(Batch((values,), labels))
    np.testing.assert_allclose(np.mean([each.factor * mean(each) for each in found]), whole, rtol=1e-9)


def test_tensors_come_as_arrays_of_their_own() -> None:
    import torch

    batch = Batch((torch.arange(12.0).reshape(6, 2), torch.ones(6, dtype=torch.bfloat16)), torch.arange(6))
    first, second = shares(batch, 2)
    assert [type(leaf) for leaf in first.inputs] == [np.ndarray, np.ndarray]
    assert second.targets.tolist() == [3, 4, 5]


def test_a_batch_without_labels_or_with_weights_of_zero_is_dealt_too() -> None:
    assert [each.targets for each in shares(Batch((np.ones((4, 1)),)), 2)] == [None, None]
    zero = shares(Batch((np.ones((4, 1)),), np.ones(4), np.zeros(4)), 2)
    assert [each.factor for each in zero] == [1.0, 1.0]
