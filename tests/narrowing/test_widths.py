"""Which units go, and what goes with them."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from nbopt.narrowing.widths import Cut, Width, choose, importance, least, shared_fractions, unit_masks


def width(name: str = "a", size: int = 4, **more: Any) -> Width:
    cuts = (Cut("in", 0, np.arange(size)), Cut("out", 1, np.repeat(np.arange(size), 2)))
    return Width(name, (name,), size, cuts, **more)


@settings(max_examples=60)
@given(st.integers(2, 9), st.integers(0, 12), st.integers(0, 99))
def test_the_least_units_go_and_each_maker_keeps_one(size: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.random(size)
    going = least(width(size=size), values, count)
    assert len(going) == min(count, size - 1)
    stays = np.setdiff1d(np.arange(size), going)
    if len(going):
        assert values[going].max() < values[stays].min()
    half = (np.arange(size // 2), np.arange(size // 2, size))
    kept = np.setdiff1d(np.arange(size), least(width(size=size, makers=half), values, count))
    assert all(np.isin(part, kept).any() for part in half if len(part))


def test_importance_counts_each_weight_relative_to_its_mean() -> None:
    scores = {"in": np.array([[4.0], [1.0], [1.0], [0.0]]), "out": np.ones((3, 8)) * 1e6, "other": np.ones(3)}
    values = importance(width(), scores)
    assert np.argmax(values) == 0
    assert np.argmin(values) == 3
    np.testing.assert_allclose(
        importance(width(), {"in": scores["in"] * 1e12}), importance(width(), {"in": scores["in"]})
    )


def test_masks_zero_what_holds_a_unit_and_nothing_else() -> None:
    going = {"a": np.array([1, 3])}
    masks = unit_masks([width()], going, {"in": (4, 2), "out": (3, 8)})
    assert masks["in"].tolist() == [[True] * 2, [False] * 2, [True] * 2, [False] * 2]
    assert masks["out"][0].tolist() == [True, True, False, False, True, True, False, False]
    assert unit_masks([width()], {}, {"in": (4, 2)}) == {}


@settings(max_examples=50)
@given(st.lists(st.integers(2, 12), min_size=1, max_size=5), st.floats(0.05, 0.95), st.integers(0, 99))
def test_ranked_together_the_whole_gives_its_share_and_no_layer_vanishes(
    sizes: list[int], share: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    importances = {str(i): rng.random(size) for i, size in enumerate(sizes)}
    fractions = shared_fractions(importances, share)
    widths = [width(name, len(values)) for name, values in importances.items()]
    going = choose(widths, importances, fractions)
    gone = sum(map(len, going.values()))
    assert gone <= round(share * sum(sizes))
    assert gone >= min(round(share * sum(sizes)), sum(int(0.9 * size) for size in sizes)) - len(sizes)
    assert all(len(units) < size for units, size in zip(going.values(), sizes, strict=True))
