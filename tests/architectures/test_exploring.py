"""Looks at candidates: within their latency, each once, the best of them found, and an end to the budget."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from nbopt.architectures import Block, Parts, space_of
from nbopt.architectures.exploring import Explored, Look, explored, judged, limits_of, uniform_within
from nbopt.architectures.factors import Factors
from nbopt.architectures.latency import Latency, fitted, parts_of, to_measure
from nbopt.controllers import Settings
from nbopt.controllers.table import Table, Term
from nbopt.errors import ModelError, OptionError
from nbopt.narrowing.widths import Width
from tests.architectures.small import IMPORTANCES, PARTS

Array = np.ndarray[Any, Any]
SPACE = space_of(PARTS)
PIECES = parts_of(Factors(SPACE, IMPORTANCES))


def milliseconds(settings: Array) -> Array:
    return np.asarray(0.1 + sum(part.at(settings) for part in PIECES))


@pytest.fixture(scope="module")
def latency() -> Latency:
    settings = to_measure(SPACE, 60, np.random.default_rng(0))
    return fitted(PIECES, settings, milliseconds(settings))


def quality(setting: Settings) -> float:
    """Give more for wider inner layers than for the stream, and nothing for kernels."""
    return float(setting[0] * 0.2 + setting[1] + setting[2] * 0.5 + setting[5] + setting[6])


@pytest.mark.parametrize("word", ["surrogate", "evolution", "chance"])
def test_candidates_are_within_a_latency_and_none_is_looked_at_twice(word: str, latency: Latency) -> None:
    whole = float(milliseconds(np.asarray([SPACE.grid.start]))[0])
    found = explored(SPACE, quality, latency, (0.6 * whole,), word=word, trials=40)
    assert len(found.looks) == 40
    assert len({look.setting for look in found.looks}) == 40
    assert all(look.latency_ms <= 0.6 * whole for look in found.looks)
    plain = SPACE.plain(found.history.settings)
    assert np.array_equal(plain, found.history.settings)


def test_the_default_finds_more_than_chance_within_a_latency(latency: Latency) -> None:
    limit = 0.5 * float(milliseconds(np.asarray([SPACE.grid.start]))[0])

    def best(word: str, seed: int) -> float:
        look = explored(SPACE, quality, latency, (limit,), word=word, trials=30, seed=seed).best_within(limit)
        assert look is not None
        return look.quality

    assert np.mean([best("surrogate", seed) - best("chance", seed) for seed in range(4)]) > 0


def test_what_fails_is_kept_with_its_reason_and_the_search_goes_on(latency: Latency) -> None:
    def judge(setting: Settings) -> float:
        if setting[3] == 0:
            raise ModelError("a candidate that runs", "ValueError: too small")
        return quality(setting)

    found = explored(SPACE, judge, latency, (1e9,), trials=25)
    failed = [look for look in found.looks if look.reason]
    assert failed
    assert all("too small" in look.reason and np.isnan(look.quality) for look in failed)
    assert all(not look.reason for look in found.ranked(1e9))


def test_a_budget_ends_it_and_it_goes_on_from_there(latency: Latency) -> None:
    calls = iter([True] * 7)
    first = explored(SPACE, quality, latency, (1e9,), trials=20, going=lambda: next(calls, False))
    assert len(first.looks) == 7
    assert "7 of 20" in first.ended
    again = explored(SPACE, quality, latency, (1e9,), trials=20, known=first)
    assert again.looks[:7] == first.looks
    assert len({look.setting for look in again.looks}) == 20
    assert again.ended == ""


def test_the_best_within_a_latency_come_first() -> None:
    looks = [((0,), 1.0, 3.0), ((1,), 2.0, 2.0), ((2,), float("nan"), 0.1), ((3,), 0.5, 1.0), ((4,), 0.4, 1.5)]
    found = Explored(tuple(Look(*each) for each in looks))
    assert [look.setting for look in found.ranked(2.0)] == [(1,), (3,), (4,)]
    assert found.best_within(0.5) is None


def test_a_latency_that_no_candidate_has_is_refused(latency: Latency) -> None:
    with pytest.raises(OptionError, match="smallest is guessed at"):
        limits_of(latency, 3.0, 1e-3)
    assert limits_of(latency, 3.0, 2.5) == (2.5,)
    ladder = limits_of(latency, 3.0, None)
    assert ladder[0] == pytest.approx(2.4)
    assert len(ladder) == 4
    assert list(ladder) == sorted(ladder, reverse=True)
    smallest = float(latency.table.at(np.zeros((1, len(SPACE.choices)), np.int64))[0])
    assert ladder[-1] == pytest.approx(max(0.9, 1.05 * smallest))
    assert len(limits_of(latency, smallest, None)) == 1  # nothing is much faster than such a model


def test_an_interrupt_ends_it_with_what_it_has(latency: Latency) -> None:
    seen = 0

    def judge(setting: Settings) -> float:
        nonlocal seen
        seen += 1
        if seen > 4:
            raise KeyboardInterrupt
        return quality(setting)

    found = explored(SPACE, judge, latency, (1e9,), trials=20)
    assert (len(found.looks), found.interrupted) == (4, True)
    with pytest.raises(KeyboardInterrupt):
        explored(SPACE, judge, latency, (1e9,), trials=20)
    seen = 2
    some = SPACE.grid.draw(np.random.default_rng(0), 5)
    assert len(judged(some, judge, latency).looks) == 2


def test_candidates_that_are_given_are_judged_once_each(latency: Latency) -> None:
    some = np.repeat(SPACE.grid.draw(np.random.default_rng(0), 5), 2, axis=0)
    assert len(judged(some, quality, latency).looks) == len(np.unique(some, axis=0))
    assert len(judged(some, quality, latency, going=lambda: False).looks) == 1


@pytest.mark.parametrize("word", ["surrogate", "evolution", "policy", "chance", "tpe"])
def test_what_lies_in_a_block_that_is_left_out_makes_no_other_candidate(word: str) -> None:
    names = [[f"b{block}.w{at}" for at in range(2)] for block in range(4)]
    blocks = [Block(f"b{block}", (), tuple(row)) for block, row in enumerate(names)]
    space = space_of(Parts([Width(name, (name,), 64, ()) for row in names for name in row], (), blocks))
    table = Table(tuple(Term((8 + block,), np.array([0.0, 1.0])) for block in range(4)), 0.5)
    latency = Latency(table, np.zeros((0, 12), np.int64), np.zeros(0), 0.0, 0.0)
    found = explored(space, lambda _: 1.0, latency, (0.6,), word=word, trials=10)
    assert [look.setting for look in found.looks] == [(6,) * 8 + (0,) * 4]
    assert "every candidate within the latency was tried" in found.ended
    found = explored(space, lambda _: 1.0, latency, (2.6,), word=word, trials=30)
    assert len({look.setting for look in found.looks}) == 30


def test_an_interrupt_while_the_next_candidate_is_sought_keeps_the_others(latency: Latency) -> None:
    calls = 0

    def at(settings: Settings) -> Array:
        nonlocal calls
        calls += 1
        if calls == 12:
            raise KeyboardInterrupt
        return np.zeros(len(settings))

    table = SimpleNamespace(at=at)
    found = explored(SPACE, quality, replace(latency, table=cast("Table", table)), (1.0,), trials=40)
    assert found.interrupted
    assert 0 < len(found.looks) < 12


def test_uniform_scaling_is_measured_and_the_widest_within_is_taken() -> None:
    asked: list[Settings] = []

    def measure(setting: Settings) -> float:
        asked.append(setting)
        return float(milliseconds(setting[None])[0])

    whole = measure(np.asarray(SPACE.grid.start))
    found = uniform_within(SPACE, measure, 0.7 * whole)
    assert found is not None
    setting, taken = found
    assert taken <= 0.7 * whole
    wider = SPACE.uniform(min(1.0, SPACE.choices[0].options[setting[0]] + 0.125))
    assert measure(wider) > 0.7 * whole
    assert uniform_within(SPACE, measure, 1e-6) is None
