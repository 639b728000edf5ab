"""Which candidates a step computes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from nbopt.architectures.sandwich import Pace, Sandwich
from nbopt.controllers import Grid

GRID = Grid((7, 3, 2), (True,) * 3, start=(6, 2, 1))


@pytest.mark.parametrize("done", [0.0, 0.1, 0.3, 0.5, 0.9, 1.0])
def test_candidates_are_of_what_is_open_and_never_the_whole(done: float) -> None:
    sandwich = Sandwich(GRID, between=5)
    lowest = sandwich.lowest(done)
    for _ in range(20):
        drawn = sandwich.draw(done)
        assert (drawn >= lowest).all()
        assert all(GRID.contains(row.tolist()) for row in drawn)
        assert [6, 2, 1] not in drawn.tolist()
        assert len(drawn) <= 6


def test_the_space_opens_from_the_whole_to_the_smallest() -> None:
    sandwich = Sandwich(GRID)
    assert len(sandwich.draw(0.0)) == 0
    opened = [sandwich.lowest(done) for done in np.linspace(0, 1, 11)]
    assert all((later <= earlier).all() for earlier, later in itertools.pairwise(opened))
    assert opened[5].tolist() == [0, 0, 0]
    assert sandwich.draw(1.0)[0].tolist() == [0, 0, 0]


def test_the_same_seed_draws_alike() -> None:
    one, other, third = Sandwich(GRID, 1), Sandwich(GRID, 1), Sandwich(GRID, 2)
    draws = [[each.draw(0.8).tolist() for _ in range(5)] for each in (one, other, third)]
    assert draws[0] == draws[1] != draws[2]


def test_a_training_that_its_time_ends_opens_the_space_too() -> None:
    clock = iter([0.0, *np.arange(20)]).__next__
    by_steps = Pace(10)
    assert [round(by_steps.next(), 3) for _ in range(12)] == [*(np.arange(10) / 10), 1.0, 1.0]
    # Of a thousand steps there is time for ten.
    by_time = Pace(1000, 10.0, clock)
    shares = [by_time.next() for _ in range(12)]
    assert shares[5] == pytest.approx(0.5)
    assert shares[-1] == 1.0
    assert Sandwich(GRID).lowest(shares[5]).tolist() == [0, 0, 0]
