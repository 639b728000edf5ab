"""Which weights go is decided over NumPy alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbopt.errors import ModelError
from nbopt.techniques.prune import Prune, magnitude_masks

shapes = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=4)


@settings(deadline=None, max_examples=100)
@given(shapes, st.floats(0.01, 0.99), st.integers(0, 1000), st.booleans())
def test_exactly_the_share_goes_and_none_larger_than_what_stays(
    sizes: list[tuple[int, int]], sparsity: float, seed: int, ties: bool
) -> None:
    rng = np.random.default_rng(seed)
    weights = {str(i): rng.normal(size=size) for i, size in enumerate(sizes)}
    if ties:
        weights = {name: np.round(value) for name, value in weights.items()}
    masks = magnitude_masks(weights, sparsity)
    assert [mask.shape for mask in masks.values()] == [value.shape for value in weights.values()]
    assert all(mask.dtype == bool for mask in masks.values())
    magnitudes = np.concatenate([np.abs(value).ravel() for value in weights.values()])
    keep = np.concatenate([mask.ravel() for mask in masks.values()])
    assert (~keep).sum() == round(sparsity * keep.size)
    if keep.any() and not keep.all():
        assert magnitudes[keep].min() >= magnitudes[~keep].max()


def test_layers_share_one_threshold() -> None:
    masks = magnitude_masks({"small": np.full((2, 5), 0.1), "large": np.full((2, 5), 10.0)}, 0.5)
    assert not masks["small"].any()
    assert masks["large"].all()


def test_ties_go_in_order_so_that_the_same_model_is_pruned_alike() -> None:
    masks = magnitude_masks({"a": np.ones((1, 4)), "b": np.ones((1, 4))}, 0.5)
    assert not masks["a"].any()
    assert masks["b"].all()


def test_the_weights_are_not_written_to() -> None:
    weights = {"a": np.arange(10.0)[None]}
    weights["a"].setflags(write=False)
    magnitude_masks(weights, 0.3)


def test_no_weights_is_told() -> None:
    with pytest.raises(ModelError, match="layers with weights to prune"):
        magnitude_masks({}, 0.5)


def test_the_label_names_what_matters() -> None:
    assert Prune(sparsity=0.3).label == "prune 0.3 unstructured"
    assert Prune(sparsity=0.25, structured=True).label == "prune 0.25 structured"
