"""Every controller, on problems whose best is known and on the tables of NAS-Bench-201."""

from __future__ import annotations

from functools import cache
from statistics import median
from typing import Any

import numpy as np
import pytest

from nbopt.controllers import CONTROLLERS, Evolution, Grid, History, Policy, Settings, Surrogate, controller_of
from nbopt.controllers.surrogate import _erf, drawn_in, fit
from nbopt.datasets import hpo_table
from nbopt.errors import OptionError

Array = np.ndarray[Any, Any]
EACH = pytest.mark.parametrize("word", CONTROLLERS)
GRID = Grid((5, 4, 6, 3), (True, False, True, False), start=(4, 0, 5, 0))


def far_from(target: tuple[int, ...], setting: Settings) -> float:
    return -float(np.abs(setting - np.asarray(target[: len(setting)])).sum())


def searched(word: str, trials: int, seed: int = 0, grid: Grid = GRID, **more: Any) -> History:
    controller = controller_of(word, grid, seed=seed, **more)
    history = History.empty(grid)
    for _ in range(trials):
        setting = controller.propose(history)
        if setting is None:
            break
        history = history.then(setting, far_from((1, 2, 3, 1), setting))
    return history


@EACH
def test_no_setting_is_tried_twice_and_a_space_has_an_end(word: str) -> None:
    grid = Grid((3, 2, 2), start=(2, 1, 1))
    history = searched(word, 50, grid=grid)
    assert len(history) == grid.size
    assert len({tuple(row) for row in history.settings}) == grid.size


@EACH
def test_a_space_of_one_point_is_tried_once(word: str) -> None:
    assert searched(word, 5, grid=Grid((1, 1))).settings.tolist() == [[0, 0]]


@EACH
def test_the_same_seed_searches_alike_and_goes_on_alike(word: str) -> None:
    whole = searched(word, 40)
    assert np.array_equal(whole.settings, searched(word, 40).settings)
    assert not np.array_equal(whole.settings, searched(word, 40, seed=1).settings)
    # Another controller, told what the first had tried, goes on as the first did.
    cut = History(whole.settings[:25], whole.scores[:25])
    again = controller_of(word, GRID, seed=0).propose(cut)
    assert again is not None
    assert again.tolist() == whole.settings[25].tolist()


@EACH
def test_what_is_not_allowed_is_not_tried(word: str) -> None:
    def light(settings: Settings) -> Array:
        return np.asarray(settings.sum(1) <= 5)

    history = searched(word, 200, allowed=light)
    assert light(history.settings).all()
    assert len(history) == sum(sum(row) <= 5 for row in GRID.all().tolist())


@EACH
def test_candidates_that_failed_and_that_are_under_way_are_lived_with(word: str) -> None:
    controller = controller_of(word, GRID)
    history = History.empty(GRID)
    for count in range(30):
        setting = controller.propose(history)
        assert setting is not None
        history = history.then(setting, np.nan if count % 3 == 0 or count < 8 else far_from((1, 2, 3, 1), setting))
    under_way = History(history.settings[:-4], history.scores[:-4], history.settings[-4:])
    proposed = controller_of(word, GRID).propose(under_way)
    assert proposed is not None
    assert proposed.tolist() not in under_way.began.tolist()


@pytest.mark.parametrize(("word", "trials"), [("surrogate", 60), ("evolution", 300), ("policy", 600)])
def test_what_learns_finds_more_than_chance(word: str, trials: int) -> None:
    grid = Grid((8,) * 8, (True,) * 8)

    def best(which: str, seed: int) -> float:
        controller = controller_of(which, grid, seed=seed)
        history = History.empty(grid)
        for _ in range(trials):
            setting = controller.propose(history)
            assert setting is not None
            history = history.then(setting, far_from((1, 6, 3, 4, 0, 7, 2, 5), setting))
        return float(history.scores.max())

    assert all(best(word, seed) > best("chance", seed) for seed in range(3))


def test_an_unknown_controller_is_named_with_the_nearest() -> None:
    with pytest.raises(OptionError, match="surrogate"):
        controller_of("surogate", GRID)


def test_the_oldest_die_whatever_they_scored() -> None:
    evolution = Evolution(GRID, population=4, sample=4)
    lucky, others = [4, 3, 5, 2], [[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0], [0, 0, 1, 1]]
    history = History(np.asarray([lucky, *others]), np.asarray([9.0, 0, 1, 2, 3]))
    child = evolution.propose(history)
    assert child is not None
    assert (child != others[3]).sum() == 1


def test_a_policy_prefers_what_scored_above_the_mean() -> None:
    policy = Policy(GRID)
    rng = np.random.default_rng(0)
    drawn = GRID.draw(rng, 200)
    odds = policy.odds(History(drawn, (drawn[:, 2] == 3).astype(float)))
    assert odds[2].argmax() == 3
    assert odds[2][3] > 0.5
    # It looks at a shorter history as if it had never seen more.
    assert policy.odds(History.empty(GRID))[2].tolist() == [1 / 6] * 6


def test_a_fit_knows_which_dimension_matters_and_is_sure_where_it_looked() -> None:
    rng = np.random.default_rng(0)
    tried = GRID.all()[rng.permutation(GRID.size)[:60]]
    fitted = fit(GRID, tried, drawn_in(np.sin(tried[:, 2] * 1.3)))
    assert fitted.weights.argmax() == 2
    mean, spread = fitted.predict(tried)
    assert np.corrcoef(mean, np.sin(tried[:, 2] * 1.3))[0, 1] > 0.99
    left = GRID.all()
    assert spread.mean() < fitted.predict(left)[1].mean()
    assert (fitted.improvement(left) >= -1e-9).all()


def test_a_better_one_that_is_not_allowed_is_no_rival() -> None:
    surrogate = Surrogate(GRID, allowed=lambda settings: settings[:, 2] <= 3)
    settings, scores = np.asarray([[0, 0, 5, 0], [0, 0, 3, 0], [1, 1, 1, 1]]), np.asarray([9.0, 2.0, 1.0])
    assert surrogate._best(settings, scores) == 2
    assert surrogate._best(settings[:1], scores[:1]) == 9
    assert Surrogate(GRID)._best(settings, scores) == 9


def test_how_bad_a_bad_one_is_does_not_count() -> None:
    good = [1.0, 2.0, 3.0, 2.5]
    assert drawn_in(np.asarray([*good, -10.0])) == pytest.approx(drawn_in(np.asarray([*good, -1000.0])))


def test_the_error_function_is_that_of_the_standard_library() -> None:
    from math import erf

    values = np.linspace(-4, 4, 101)
    assert _erf(values) == pytest.approx([erf(value) for value in values], abs=2e-7)


@cache
def cells(task: str) -> Array:
    """Return one training of each of NAS-Bench-201's cells, by the places of its six operations."""
    table = hpo_table("nasbench201", task, seed=0)
    names, options = list(table.search_space), list(table.search_space.values())
    found = np.empty([len(each) for each in options])
    for at in np.ndindex(found.shape):
        found[at] = table({name: values[i] for name, values, i in zip(names, options, at, strict=True)})["val_acc"]
    return found


@pytest.mark.parametrize("task", ["cifar10", "cifar100", "imagenet"])
def test_thirty_trials_reach_the_best_of_a_hundred_at_random(task: str) -> None:
    scores = cells(task)
    grid = Grid(scores.shape)
    target = median(np.random.default_rng(seed).choice(scores.ravel(), 100, replace=False).max() for seed in range(20))
    needed = []
    for seed in range(20):
        controller, history = Surrogate(grid, seed=seed), History.empty(grid)
        while len(history) < 60 and (not len(history) or history.scores.max() < target):
            setting = controller.propose(history)
            assert setting is not None
            history = history.then(setting, scores[tuple(setting)])
        needed.append(len(history))
    assert median(needed) <= 30
