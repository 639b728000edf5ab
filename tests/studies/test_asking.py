"""Optuna's TPE as a controller keeps what every controller promises."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nbopt.controllers import Controller, Grid, History, Settings
from nbopt.errors import OptionError
from nbopt.studies.asking import proposer_of

GRID = Grid((5, 4, 6, 3), (True, False, True, False), start=(4, 0, 5, 0))


def far_from(target: tuple[int, ...], setting: Settings) -> float:
    return -float(np.abs(setting - np.asarray(target[: len(setting)])).sum())


def searched(controller: Controller, grid: Grid, trials: int, target: tuple[int, ...]) -> History:
    history = History.empty(grid)
    for _ in range(trials):
        setting = controller.propose(history)
        if setting is None:
            break
        history = history.then(setting, far_from(target, setting))
    return history


def tpe(grid: Grid = GRID, **more: Any) -> Controller:
    return proposer_of("tpe", grid, **more)


@pytest.mark.parametrize("sizes", [(3, 2, 2), (1, 1)])
def test_no_setting_is_tried_twice_and_a_space_has_an_end(sizes: tuple[int, ...]) -> None:
    grid = Grid(sizes)
    history = searched(tpe(grid), grid, 50, (1, 1, 1))
    assert len({tuple(row) for row in history.settings}) == len(history) == grid.size


def test_the_first_is_the_start_and_the_same_seed_goes_on_alike() -> None:
    whole = searched(tpe(), GRID, 25, (1, 2, 3, 1))
    assert whole.settings[0].tolist() == [4, 0, 5, 0]
    again = tpe().propose(History(whole.settings[:18], whole.scores[:18]))
    assert again is not None
    assert again.tolist() == whole.settings[18].tolist()
    assert not np.array_equal(whole.settings, searched(tpe(seed=1), GRID, 25, (1, 2, 3, 1)).settings)


def test_what_is_not_allowed_is_not_tried() -> None:
    history = searched(tpe(allowed=lambda settings: settings.sum(1) <= 3), GRID, 200, (1, 2, 3, 1))
    assert len(history) == (GRID.all().sum(1) <= 3).sum()
    assert (history.settings.sum(1) <= 3).all()


def test_candidates_that_failed_and_that_are_under_way_are_lived_with() -> None:
    history = searched(tpe(), GRID, 24, (1, 2, 3, 1))
    scores = np.where(np.arange(24) % 3 == 0, np.nan, history.scores)
    under_way = History(history.settings[:-4], scores[:-4], history.settings[-4:])
    proposed = tpe().propose(under_way)
    assert proposed is not None
    assert proposed.tolist() not in under_way.began.tolist()


def test_it_finds_more_than_chance() -> None:
    grid, target = Grid((8,) * 8, (True,) * 8), (1, 6, 3, 4, 0, 7, 2, 5)
    for seed in range(3):
        best = {
            word: searched(proposer_of(word, grid, seed=seed), grid, 60, target).scores.max()
            for word in ("tpe", "chance")
        }
        assert best["tpe"] > best["chance"]


def test_an_unknown_word_is_named_with_the_nearest() -> None:
    with pytest.raises(OptionError, match="surrogate"):
        proposer_of("surogate", GRID)
