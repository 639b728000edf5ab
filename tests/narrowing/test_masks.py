"""Which single weights go is decided over NumPy alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbopt.errors import ModelError, OptionError
from nbopt.narrowing.masks import magnitude_masks, pattern_masks, read_pattern, smallest_go

shapes = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=4)


def arrays(sizes: list[tuple[int, int]], seed: int, *, ties: bool = False) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    weights = {str(i): rng.normal(size=size) for i, size in enumerate(sizes)}
    return {name: np.round(value) for name, value in weights.items()} if ties else weights


@settings(max_examples=100)
@given(shapes, st.floats(0.01, 0.99), st.integers(0, 1000), st.booleans())
def test_exactly_the_share_goes_and_none_larger_than_what_stays(
    sizes: list[tuple[int, int]], sparsity: float, seed: int, ties: bool
) -> None:
    weights = arrays(sizes, seed, ties=ties)
    masks = magnitude_masks(weights, sparsity)
    assert [mask.shape for mask in masks.values()] == [value.shape for value in weights.values()]
    assert all(mask.dtype == bool for mask in masks.values())
    assert all(mask.any() for mask in masks.values())  # no layer is emptied
    magnitudes = np.concatenate([np.abs(value).ravel() for value in weights.values()])
    keep = np.concatenate([mask.ravel() for mask in masks.values()])
    assert (~keep).sum() == min(round(sparsity * keep.size), keep.size - len(weights))
    best = np.concatenate([np.arange(v.size) == np.argmax(np.abs(v)) for v in weights.values()])
    free = keep & ~best
    if free.any() and not keep.all():
        assert magnitudes[free].min() >= magnitudes[~keep].max()


@settings(max_examples=50)
@given(shapes, st.floats(0.01, 0.99), st.integers(0, 1000))
def test_by_layer_each_gives_its_own_share(sizes: list[tuple[int, int]], sparsity: float, seed: int) -> None:
    weights = arrays(sizes, seed)
    masks = smallest_go({name: np.abs(value) for name, value in weights.items()}, dict.fromkeys(weights, sparsity))
    for mask in masks.values():
        assert (~mask).sum() == min(round(sparsity * mask.size), mask.size - 1)


def test_layers_share_one_threshold_and_none_is_emptied() -> None:
    masks = magnitude_masks({"small": np.full((2, 5), 0.1), "large": np.full((2, 5), 10.0)}, 0.5)
    assert masks["small"].sum() == 1
    assert masks["large"].sum() == 9


def test_ties_go_in_order_so_that_the_same_model_is_pruned_alike() -> None:
    masks = magnitude_masks({"a": np.array([[2.0, 1, 1, 1]]), "b": np.array([[2.0, 1, 1, 1]])}, 0.375)
    assert masks["a"].tolist() == [[True, False, False, False]]
    assert masks["b"].all()


def test_the_weights_are_not_written_to() -> None:
    weights = {"a": np.arange(10.0)[None]}
    weights["a"].setflags(write=False)
    magnitude_masks(weights, 0.3)


def test_no_weights_is_told() -> None:
    with pytest.raises(ModelError, match="layers with weights to prune"):
        magnitude_masks({}, 0.5)


@settings(max_examples=100)
@given(st.integers(1, 4), st.integers(1, 20), st.integers(1, 7), st.integers(0, 1), st.integers(0, 99))
def test_n_of_every_m_neighbours_stay(n: int, length: int, others: int, axis: int, seed: int) -> None:
    m = n + 2
    shape = (length, others) if axis == 0 else (others, length)
    scores = np.random.default_rng(seed).random(shape)
    mask = np.moveaxis(pattern_masks({"w": scores}, n, m, {"w": axis})["w"], axis, -1)
    scores = np.moveaxis(scores, axis, -1)
    whole = length // m * m
    assert mask[:, whole:].all()
    for row, kept in zip(scores[:, :whole].reshape(-1, m), mask[:, :whole].reshape(-1, m), strict=True):
        assert kept.sum() == n
        assert row[kept].min() > row[~kept].max()


@pytest.mark.parametrize("text", ["", "2", "4:2", "0:4", "2:2", "a:b", "2:4:8", "1:64", "-1:4"])
def test_what_is_no_pattern_is_told(text: str) -> None:
    with pytest.raises(OptionError, match="N:M"):
        read_pattern(text)
