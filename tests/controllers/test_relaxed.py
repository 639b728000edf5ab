"""The differentiable controller on losses whose gradient is known, and the table of costs beside it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbopt.controllers import Grid
from nbopt.controllers.relaxed import COLD, HOT, Relaxed, softmax
from nbopt.controllers.table import Table, Term
from nbopt.errors import OptionError

Array = np.ndarray[Any, Any]
GRID = Grid((3, 4, 2), start=(2, 3, 1))
RNG = np.random.default_rng(0)
TABLE = Table(
    (Term((0,), RNG.random(3)), Term((2, 0), RNG.random((2, 3))), Term((0, 1, 2), RNG.random((3, 4, 2)))), 0.5
)


def one_hot(setting: Array) -> list[Array]:
    return [np.eye(size)[place] for size, place in zip(GRID.sizes, setting, strict=True)]


def test_an_expected_cost_of_one_setting_is_its_cost() -> None:
    everything = GRID.all()
    assert [TABLE.expected(one_hot(row))[0] for row in everything] == pytest.approx(TABLE.at(everything))


@given(st.integers(0, 1000))
def test_the_gradient_of_an_expected_cost_is_that_of_differences(seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = [softmax(rng.normal(size=size)) for size in GRID.sizes]
    _, gradients = TABLE.expected(weights)
    for at, row in enumerate(weights):
        for option in range(len(row)):
            up, down = [[*map(np.copy, weights)] for _ in range(2)]
            up[at][option] += 1e-5
            down[at][option] -= 1e-5
            slope = (TABLE.expected(up)[0] - TABLE.expected(down)[0]) / 2e-5
            assert gradients[at][option] == pytest.approx(slope, rel=1e-5)


def test_costs_with_too_few_axes_are_refused() -> None:
    with pytest.raises(OptionError, match="axis for each dimension"):
        Term((0, 1), np.zeros(3))


def searched(table: Table | None, power: float, steps: int = 400) -> Relaxed:
    """Search where the loss is 1 plus what options lose: the third, fourth and second lose nothing."""
    lost = [np.asarray([0.5, 0.2, 0.0]), np.asarray([0.6, 0.4, 0.2, 0.0]), np.asarray([0.3, 0.0])]
    relaxed = Relaxed(GRID, steps, table, power=power)
    for _ in range(steps):
        weights = relaxed.draw()
        loss = 1 + sum(float(row @ weight) for row, weight in zip(lost, weights, strict=True))
        relaxed.learn(weights, loss, lost)
    return relaxed


def test_where_only_the_loss_counts_the_best_options_win() -> None:
    assert searched(None, 0.0).settings(1).tolist() == [[2, 3, 1]]


def test_costs_that_weigh_enough_win_over_the_loss() -> None:
    steep = Table((Term((0,), np.asarray([0.1, 1.0, 4.0])), Term((1,), np.asarray([0.0, 1, 2, 3]))), 0.1)
    relaxed = searched(steep, 2.0)
    (best,) = relaxed.settings(1).tolist()
    assert best[:2] == [0, 0]  # the cheapest
    assert best[2] == 1  # costs nothing, so the loss decides
    assert [len(row) for row in relaxed.odds()] == list(GRID.sizes)


def test_a_step_follows_the_slope_of_what_is_made_smaller() -> None:
    relaxed = Relaxed(GRID, 10, TABLE, power=0.7)
    gumbel = [RNG.gumbel(size=size) for size in GRID.sizes]
    lost = [RNG.random(size) for size in GRID.sizes]

    def total(logits: list[Array]) -> float:
        weights = [softmax((row + noise) / HOT) for row, noise in zip(logits, gumbel, strict=True)]
        loss = 1 + sum(float(row @ weight) for row, weight in zip(lost, weights, strict=True))
        return float(loss * (TABLE.expected(weights)[0] / TABLE.at(np.asarray([[2, 3, 1]]))[0]) ** 0.7)

    before = [row.copy() for row in relaxed.logits]
    weights = [softmax((row + noise) / HOT) for row, noise in zip(before, gumbel, strict=True)]
    loss = 1 + sum(float(row @ weight) for row, weight in zip(lost, weights, strict=True))
    assert relaxed.learn(weights, loss, lost) == pytest.approx(total(before))
    for at, size in enumerate(GRID.sizes):
        for option in range(size):
            moved = [row.copy() for row in before]
            moved[at][option] += 1e-6
            slope = (total(moved) - total(before)) / 1e-6
            # Adam's first moment after one step is a tenth of the gradient.
            assert relaxed._first[at][option] * 10 == pytest.approx(slope, abs=1e-5)


def test_the_temperature_falls_and_stays_low() -> None:
    relaxed = searched(None, 0.0, steps=5)
    assert Relaxed(GRID, 5).temperature == HOT
    assert relaxed.temperature == pytest.approx(COLD)


def test_settings_are_allowed_and_each_is_there_once() -> None:
    found = Relaxed(GRID, 5).settings(99, lambda settings: settings[:, 0] == 1)
    assert len(found) == 8
    assert set(found[:, 0]) == {1}
    assert len({tuple(row) for row in found}) == 8
