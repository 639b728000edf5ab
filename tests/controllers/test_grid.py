"""A space as numbers: what is drawn lies in it, is allowed, and was not tried."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbopt.controllers import Grid, History, Settings
from nbopt.controllers.grid import Untried, starting
from nbopt.errors import OptionError

SIZES = st.lists(st.integers(1, 6), min_size=1, max_size=6).map(tuple)


@given(SIZES, st.integers(0, 9), st.integers(1, 20))
def test_a_balanced_draw_holds_every_option_equally_often(sizes: tuple[int, ...], seed: int, count: int) -> None:
    grid = Grid(sizes)
    drawn = grid.balanced(np.random.default_rng(seed), count)
    assert drawn.shape == (count, len(sizes))
    for column, size in zip(drawn.T, sizes, strict=True):
        often = np.bincount(column, minlength=size)
        assert len(often) == size
        assert often.max() - often.min() <= 1


@given(SIZES, st.data())
def test_what_lies_beside_differs_in_one_dimension_and_is_all_there_is(
    sizes: tuple[int, ...], data: st.DataObject
) -> None:
    setting = np.asarray([data.draw(st.integers(0, size - 1)) for size in sizes])
    beside = Grid(sizes).beside(setting)
    assert len(beside) == sum(size - 1 for size in sizes)
    assert all((other != setting).sum() == 1 and Grid(sizes).contains(other.tolist()) for other in beside)


@settings(max_examples=30)
@given(st.lists(st.integers(1, 3), min_size=1, max_size=6).map(tuple), st.integers(0, 99))
def test_a_space_can_be_tried_to_its_end_and_not_further(sizes: tuple[int, ...], seed: int) -> None:
    grid = Grid(sizes)
    rng = np.random.default_rng(seed)
    tried = grid.all()[rng.permutation(grid.size)]
    cut = int(rng.integers(grid.size + 1))
    left = Untried(grid).some(History(tried[:cut], np.zeros(cut)), rng)
    assert {tuple(row) for row in left} == {tuple(row) for row in tried[cut:]}


def test_a_large_space_is_drawn_from_and_limits_are_kept() -> None:
    grid = Grid((10,) * 30)  # 10**30: no number of 64 bits counts it

    def cheap(these: Settings) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        return np.asarray(these.sum(1) <= 120)

    left = Untried(grid, cheap).some(History.empty(grid), np.random.default_rng(0), 50)
    assert len(left) >= 50
    assert left.sum(1).max() <= 120
    assert len({tuple(row) for row in left}) == len(left)


def test_where_nothing_is_allowed_nothing_is_found() -> None:
    grid = Grid((10,) * 8)
    left = Untried(grid, lambda these: np.zeros(len(these), bool)).some(History.empty(grid), np.random.default_rng(0))
    assert len(left) == 0


def test_options_with_an_order_have_distances() -> None:
    grid = Grid((5, 5, 1), (True, False, True))
    some, others = np.asarray([[0, 0, 0]]), np.asarray([[4, 4, 0], [1, 1, 0], [0, 0, 0]])
    assert grid.distances(some, others).tolist() == [[[1, 1, 0], [0.25, 1, 0], [0, 0, 0]]]


def test_what_is_planned_begins_with_the_start_and_is_the_same_again() -> None:
    grid = Grid((3, 4), start=(2, 1))
    planned = starting(grid, 7, 5)
    assert planned[0].tolist() == [2, 1]
    assert np.array_equal(planned, starting(grid, 7, 5))


@pytest.mark.parametrize(
    ("sizes", "ordered", "start"), [((), (), None), ((3, 0), (), None), ((3,), (True, False), None), ((3,), (), (3,))]
)
def test_a_space_that_is_none_is_refused(
    sizes: tuple[int, ...], ordered: tuple[bool, ...], start: tuple[int, ...] | None
) -> None:
    with pytest.raises(OptionError):
        Grid(sizes, ordered, start)


def test_failed_candidates_are_as_bad_as_the_worst() -> None:
    told = History(np.zeros((3, 1), np.int64), np.asarray([2.0, np.nan, 1.0]))
    assert told.filled().tolist() == [2, 1, 1]
    assert History(np.zeros((1, 1), np.int64), np.asarray([np.nan])).filled().tolist() == [0]
