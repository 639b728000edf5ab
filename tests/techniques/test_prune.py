"""Which weights and units go is decided over NumPy alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbopt.errors import ModelError, OptionError
from nbopt.techniques._prune.allocation import allocate, share_for
from nbopt.techniques._prune.layers import selected
from nbopt.techniques._prune.lowering import is_added
from nbopt.techniques._prune.masks import pattern_masks, read_pattern, smallest_go
from nbopt.techniques._prune.schedules import SCHEDULES, default_rounds, share_at
from nbopt.techniques._prune.search import Tried, least_within, most_within
from nbopt.techniques._prune.widths import Cut, Width, choose, importance, least, shared_fractions, unit_masks
from nbopt.techniques.prune import Prune, magnitude_masks

shapes = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=4)


def arrays(sizes: list[tuple[int, int]], seed: int, *, ties: bool = False) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    weights = {str(i): rng.normal(size=size) for i, size in enumerate(sizes)}
    return {name: np.round(value) for name, value in weights.items()} if ties else weights


@settings(deadline=None, max_examples=100)
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


@settings(deadline=None, max_examples=50)
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


@settings(deadline=None, max_examples=100)
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


@pytest.mark.parametrize("schedule", SCHEDULES)
@given(rounds=st.integers(1, 30), times=st.lists(st.floats(0, 1), min_size=2, max_size=20))
def test_a_schedule_only_rises_and_reaches_its_target(schedule: str, rounds: int, times: list[float]) -> None:
    shares = [share_at(schedule, done, rounds) for done in sorted(times)]
    assert shares == sorted(shares)
    assert all(0 < share <= 1 for share in shares)
    assert share_at(schedule, 1.0, rounds) == 1.0


def test_a_schedule_prunes_as_often_as_it_is_told() -> None:
    for schedule, rounds in (("iterative", 4), ("cubic", 6)):
        shares = {share_at(schedule, done, rounds) for done in np.linspace(0, 1, 500)}
        assert len(shares) == rounds + (schedule == "cubic")
    # Each iterative round has an equal part of the training after it, the last too.
    assert share_at("iterative", 0.0, 4) == 0.25
    assert share_at("iterative", 0.74, 4) < 1.0 == share_at("iterative", 0.75, 4)
    # Cubic takes most at first (Zhu & Gupta 2017), and leaves the last quarter to recover.
    early, late = share_at("cubic", 0.3, 100), share_at("cubic", 0.6, 100)
    assert early > 0.75
    assert late - early < early
    assert share_at("cubic", 0.76, 100) == 1.0
    assert [default_rounds(schedule, 3) for schedule in SCHEDULES] == [1, 3, 10]
    assert default_rounds("iterative", 1) == 2


def width(name: str = "a", size: int = 4, **more: Any) -> Width:
    cuts = (Cut("in", 0, np.arange(size)), Cut("out", 1, np.repeat(np.arange(size), 2)))
    return Width(name, (name,), size, cuts, **more)


@settings(deadline=None, max_examples=60)
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


@settings(deadline=None, max_examples=50)
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


def test_layers_are_meant_by_name_by_glob_and_by_the_part_they_lie_in() -> None:
    names = ["features.0", "features.4", "head"]

    def take(include: tuple[str, ...] = (), exclude: tuple[str, ...] = ()) -> list[str]:
        return selected(names, lambda name: [name], include, exclude, also=["features"])

    assert take() == names
    assert take(("features",)) == names[:2]
    assert take(("*.4", "head")) == names[1:]
    assert take(("features",), ("features.0",)) == ["features.4"]
    with pytest.raises(OptionError) as caught:
        take(exclude=("haed",))
    assert "head" in caught.value.do
    assert "--exclude" in caught.value.expected


def test_the_label_names_what_matters() -> None:
    assert Prune(sparsity=0.3).label == "prune 0.3 unstructured"
    assert Prune(sparsity=0.25, structured=True).label == "prune 0.25 structured"
    assert Prune(pattern="1:4").label == "prune 0.75 unstructured pattern 1:4"
    assert (
        Prune(importance="taylor", schedule="cubic").label == "prune 0.5 unstructured importance taylor schedule cubic"
    )


losses_of = st.lists(st.floats(-0.05, 0.5), min_size=3, max_size=3)


@settings(deadline=None, max_examples=100)
@given(losses_of, st.floats(0, 0.6), st.floats(0, 0.6))
def test_a_layer_gives_more_the_more_it_may_cost(losses: list[float], one: float, other: float) -> None:
    less, more = share_for(losses, min(one, other)), share_for(losses, max(one, other))
    assert 0 <= less <= more <= 0.9


def test_a_layer_gives_up_to_where_its_loss_is() -> None:
    assert share_for((0.1, 0.2, 0.4), 0.0) == 0.0
    assert share_for((0.1, 0.2, 0.4), 0.1) == pytest.approx(0.25)
    assert share_for((0.1, 0.2, 0.4), 0.3) == pytest.approx(0.625)
    assert share_for((0.0, 0.0, 0.0), 0.0) == 0.9
    assert share_for((0.1, -0.3, 0.2), 0.05) == pytest.approx(0.125)  # a dip after a loss is noise


@settings(deadline=None, max_examples=60)
@given(
    st.lists(losses_of, min_size=1, max_size=6),
    st.lists(st.integers(1, 500), min_size=6, max_size=6),
    st.floats(0.05, 0.95),
)
def test_layers_together_give_the_share(losses: list[list[float]], numbers: list[int], share: float) -> None:
    names = [str(i) for i in range(len(losses))]
    sizes = dict(zip(names, numbers, strict=False))
    fractions = allocate(dict(zip(names, losses, strict=True)), sizes, share)
    given_share = sum(fractions[name] * sizes[name] for name in names) / sum(sizes.values())
    assert given_share == pytest.approx(share, abs=0.02)
    assert all(0 <= fraction < 1 for fraction in fractions.values())


def test_what_minds_least_gives_most() -> None:
    fractions = allocate({"soft": (0.0, 0.01, 0.02), "hard": (0.2, 0.4, 0.6)}, {"soft": 10, "hard": 10}, 0.45)
    assert fractions["soft"] > 0.8
    assert fractions["hard"] < 0.1


@settings(deadline=None, max_examples=60)
@given(st.floats(0.06, 0.94))
def test_a_search_ends_at_the_limit_within_its_tries(edge: float) -> None:
    def attempt(share: float, *, above: bool) -> Tried:
        return Tried(share, f"{share}", share >= edge if above else share <= edge)

    share, tried = least_within(lambda s: attempt(s, above=True), "it")
    assert edge <= share <= edge + 0.02
    assert len(tried) <= 8
    share, tried = most_within(lambda s: attempt(s, above=False), "it")
    assert edge - 0.02 <= share <= edge
    assert len(tried) <= 8


def test_a_limit_that_nothing_meets_is_told_with_what_came_nearest() -> None:
    with pytest.raises(ModelError, match="900 bytes, too much") as caught:
        least_within(lambda share: Tried(share, "900 bytes", False), "500 bytes")
    assert "500 bytes" in caught.value.expected
    with pytest.raises(ModelError, match="too much"):
        most_within(lambda share: Tried(share, "0.2 lost", False), "0.1")


@pytest.mark.parametrize(
    ("name", "added"),
    [
        ("features.0.weight", False),
        ("features.0.bias", True),
        ("lstm.bias_ih_l0", True),
        ("attention.in_proj_bias", True),
        ("3:block/conv/kernel", False),
        ("4:norm/gamma", False),
        ("5:norm/beta", True),
        ("6:dense/bias", True),
        ("bias", True),
        ("biased/kernel", False),
    ],
)
def test_what_is_added_does_not_rank_units(name: str, added: bool) -> None:
    assert is_added(name) == added
