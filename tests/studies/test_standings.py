"""The best few over fresh seeds: means, differences within a seed, and the setting to go on with."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from nbopt.measurement.intervals import Interval
from nbopt.studies.repeating import Repeats
from nbopt.studies.standings import (
    FINALIST,
    FIRST,
    RANDOM,
    Candidate,
    Standing,
    mean_interval,
    standings_of,
    verdict_of,
    winner,
)
from nbopt.studies.trials import Outcome

NOISE = np.array([0.3, -0.2, 0.1, -0.4, 0.2])


def repeats(values: Sequence[float]) -> Repeats:
    return Repeats({}, tuple(Outcome("complete", (float(v),)) for v in values))


def stand(
    start: Sequence[float], *others: Sequence[float], name: str = "start", up: bool = True
) -> tuple[Standing, ...]:
    kinds = [FIRST, *[FINALIST] * len(others)]
    names = [name, *(f"trial {i}" for i in range(1, len(others) + 1))]
    made = [Candidate(n, kind, i, {"x": i}, (0.0,)) for i, (n, kind) in enumerate(zip(names, kinds, strict=True))]
    return standings_of(made, [repeats(values) for values in (start, *others)], [up])


def test_the_interval_is_students() -> None:
    found = mean_interval(NOISE)
    low, high = stats.t.interval(0.95, 4, NOISE.mean(), stats.sem(NOISE))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert mean_interval([1.0]).high == math.inf


def test_differences_are_taken_within_a_seed_and_allow_for_all_finalists() -> None:
    first, better, worse = stand(NOISE, NOISE + 0.05 + 0.01 * NOISE, NOISE - 1)
    assert first.verdicts == ()
    assert better.verdicts == ("better",)
    assert worse.verdicts == ("worse",)
    alone = stand(NOISE, NOISE + 0.05 + 0.01 * NOISE)[1]
    assert alone.changes[0].high - alone.changes[0].low < better.changes[0].high - better.changes[0].low


def test_noise_alone_wins_in_no_more_than_one_of_twenty() -> None:
    rng = np.random.default_rng(0)
    wins = sum(any(row.won for row in stand(*rng.normal(size=(4, 5)))) for _ in range(600))
    assert wins / 600 < 0.05


def test_what_is_better_is_chosen_by_fresh_seeds_and_else_the_start_is_kept() -> None:
    rows = stand(NOISE, NOISE + 1, NOISE + 2)
    assert winner(rows, [True]) is rows[2]
    down = stand(NOISE, NOISE - 1, NOISE - 2, up=False)
    assert winner(down, [False]) is down[2]
    rows = stand(NOISE, NOISE[::-1] + 0.01)
    assert winner(rows, [True]) is rows[0]
    # A first trial at random is nobody's choice.
    rows = stand(NOISE, NOISE[::-1] + 0.01, name="trial 0 (the first)")
    assert winner(rows, [True]) is rows[1]
    assert winner((), [True]) is None


def test_the_random_search_is_never_what_is_chosen() -> None:
    made = [Candidate("start", FIRST, 0, {}, (0.0,)), Candidate("random, trial 1", RANDOM, 1, {}, (9.0,))]
    rows = standings_of(made, [repeats(NOISE), repeats(NOISE + 9)], [True])
    assert rows[1].verdicts == ("better",)
    assert winner(rows, [True]) is rows[0]


def test_failed_repeats_are_left_out_and_told() -> None:
    made = [Candidate("start", FIRST, 0, {}, (0.0,)), Candidate("trial 1", FINALIST, 1, {}, (0.0,))]
    broken = Repeats({}, (Outcome("failed", reason="out of memory"), *repeats(NOISE[1:] + 1).outcomes))
    first, other = standings_of(made, [repeats(NOISE), broken], [True])
    assert len(other.repeats) == 4
    assert other.failures == ("out of memory",)
    assert other.changes[0].value == pytest.approx(1)
    gone = standings_of(made, [repeats(NOISE), Repeats({}, broken.outcomes[:1])], [True])[1]
    assert gone.means == ()
    assert first.means[0].covers(0)


@pytest.mark.parametrize(
    ("low", "high", "up", "word"),
    [(0.1, 0.2, True, "better"), (0.1, 0.2, False, "worse"), (-1, 1, True, "inconclusive"), (0, 0, True, "same")],
)
def test_verdicts(low: float, high: float, up: bool, word: str) -> None:
    assert verdict_of(Interval((low + high) / 2, low, high), up) == word
