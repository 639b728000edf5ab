"""Sides in turns, on a machine whose time passes only where a side says so."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from nbopt.errors import OptionError
from nbopt.measurement.blocks import Block
from nbopt.measurement.budget import Budget
from nbopt.measurement.rounds import Rounds
from nbopt.measurement.turns import run_rounds


class Clock:
    """A machine whose time passes only where a side says so, so that tests need no real time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr("nbopt.measurement.turns.time.perf_counter", lambda: self.now)

    def side(
        self,
        call_ms: float,
        *,
        noise: float = 0.0,
        contention: Callable[[], float | None] = lambda: 1.0,
        seed: int = 0,
        log: list[str] | None = None,
        name: str = "",
        warm_after: int = 0,
    ) -> Callable[[int], Block]:
        rng = np.random.default_rng(seed)
        made = 0

        def side(iterations: int) -> Block:
            nonlocal made
            if log is not None:
                log.append(name)
            cold = 1 + 2 * math.exp(-made / warm_after) if warm_after else 1.0
            made += iterations
            stretch = contention()
            times = call_ms * 1e6 * cold * math.exp(noise * rng.normal()) * np.exp(noise * rng.normal(size=iterations))
            wall = times * (stretch or 1.0)
            self.now += wall.sum() / 1e9
            return Block(wall, float(times.sum()), iterations, stretch)

        return side


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_three_sides_share_each_round(clock: Clock) -> None:
    log: list[str] = []
    sides = {
        name: clock.side(ms, noise=0.02, seed=i, log=log, name=name)
        for i, (name, ms) in enumerate({"baseline": 4.0, "same runtime": 2.0, "variant": 1.0}.items())
    }
    rounds = run_rounds(sides, "quick", rng=1)
    assert rounds.complete
    assert all(len(blocks) == len(rounds) for blocks in rounds.blocks.values())
    assert rounds.ratio("baseline", "variant").value == pytest.approx(4, rel=0.03)
    assert rounds.ratio("same runtime", "variant").value == pytest.approx(2, rel=0.03)
    assert rounds.verdict("baseline", "variant") == "better"
    assert rounds.verdict("variant", "baseline") == "worse"
    turns = log[-3 * len(rounds) :]
    orders = {tuple(turns[i : i + 3]) for i in range(0, len(turns), 3)}
    assert all(len(set(order)) == 3 for order in orders)
    assert len(orders) > 2, "the order is random"


def test_the_order_follows_the_seed(clock: Clock) -> None:
    logs: list[list[str]] = [[], [], []]
    for log, seed in zip(logs, (1, 1, 2), strict=True):
        run_rounds({n: clock.side(5, log=log, name=n) for n in "fg"}, 0.5, rng=seed)
    assert logs[0] == logs[1] != logs[2]


def test_quick_stops_early_where_the_interval_is_narrow(clock: Clock) -> None:
    rounds = run_rounds({"f": clock.side(1.0, noise=0.001), "g": clock.side(1.1, noise=0.001)}, "quick")
    assert rounds.seconds < 0.9
    assert rounds.ratio("f", "g").relative_width < 0.02


def test_quick_asks_less_precision_of_a_ratio_that_leaves_no_question(clock: Clock) -> None:
    spent = {}
    for ratio in (1.1, 3.0):
        sides = {"f": clock.side(1.0, noise=0.05, seed=3), "g": clock.side(ratio, noise=0.05, seed=4)}
        rounds = run_rounds(sides, "quick")
        spent[ratio] = rounds.paired_ratio("f", "g").relative_width, rounds.fraction
    (near, _), (far, fraction) = spent[1.1], spent[3.0]
    assert near <= 0.035 or spent[1.1][1] > 0.9
    assert 0.035 < far <= 0.07
    assert fraction < spent[1.1][1]


def test_the_budget_is_kept(clock: Clock) -> None:
    for budget, seconds in (("quick", 1.0), ("full", 20.0), (3.0, 3.0)):
        sides = {"f": clock.side(1.0, noise=0.5), "g": clock.side(1.1, noise=0.5, seed=1)}
        rounds = run_rounds(sides, budget)  # type: ignore[arg-type]
        assert 0.8 * seconds < rounds.seconds < 1.1 * seconds


def test_slow_calls_still_get_three_rounds(clock: Clock) -> None:
    rounds = run_rounds({"f": clock.side(9000), "g": clock.side(3000)}, "quick")
    assert len(rounds) == 3
    assert rounds.ratio("f", "g").value == pytest.approx(3)


def test_warm_up_waits_until_times_are_steady(clock: Clock) -> None:
    side = clock.side(0.1, noise=0.001, warm_after=500)
    rounds = run_rounds({"f": side, "g": clock.side(0.1, noise=0.001)}, "full")
    assert rounds.warm_up["f"].steady
    assert rounds.warm_up["f"].calls > 1000
    assert rounds.warm_up["f"].first_ms == pytest.approx(0.3, rel=0.05)
    assert rounds.warm_up["f"].call_ns == pytest.approx(1e5, rel=0.1)
    assert rounds.steady


def test_only_quiet_rounds_count_where_there_are_enough(clock: Clock) -> None:
    stretches = iter(np.random.default_rng(3).choice([1.0, 4.0], size=10_000))
    busy = clock.side(1.0, noise=0.01, contention=lambda: float(next(stretches)), seed=5)
    rounds = run_rounds({"f": clock.side(1.0, noise=0.01), "g": busy}, 3.0)
    assert 10 <= rounds.kept().sum() < len(rounds)
    assert rounds.contention("g") > 1.5
    assert rounds.verdict("f", "g") == "same"


def test_a_machine_that_is_always_busy_is_not_ranked(clock: Clock) -> None:
    rounds = run_rounds({"f": clock.side(1.0), "g": clock.side(1.0, contention=lambda: 1.8)}, 1.0)
    assert rounds.ratio("f", "g").value == pytest.approx(1 / 1.8)
    assert rounds.verdict("f", "g") == "inconclusive"


def test_waiting_that_spares_the_median_does_not_count(clock: Clock) -> None:
    def spared(iterations: int) -> Block:
        return replace(inner(iterations), contention=1.8, distortion=1.02)

    inner = clock.side(1.0, noise=0.01)
    rounds = run_rounds({"f": clock.side(1.3, noise=0.01, seed=2), "g": spared}, 1.0)
    assert rounds.contention("f", "g") == pytest.approx(1.8)
    assert rounds.distortion("f", "g") == pytest.approx(1.02)
    assert rounds.verdict("f", "g") == "better"


def test_latency_in_milliseconds(clock: Clock) -> None:
    latency = run_rounds({"f": clock.side(2.0, noise=0.05)}, 2.0).latency("f")
    assert latency.low <= latency.median <= latency.high
    assert latency.median == pytest.approx(2.0, rel=0.05)
    assert latency.median < latency.p90 < latency.p99
    assert latency.cpu == pytest.approx(2.0, rel=0.05)
    assert latency.n > 100


def test_an_interrupt_keeps_complete_rounds(clock: Clock) -> None:
    kept = Rounds()

    def stop(rounds: Rounds) -> None:
        assert rounds is kept
        if len(rounds) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_rounds({"f": clock.side(1.0), "g": clock.side(2.0)}, "full", on_round=stop, into=kept)
    assert len(kept) == 4
    assert not kept.complete
    assert kept.ratio("g", "f").value == pytest.approx(2.0)


def test_a_round_that_breaks_off_does_not_count(clock: Clock) -> None:
    kept, made = Rounds(), 0
    inner = clock.side(1.0)

    def breaks(iterations: int) -> Block:
        nonlocal made
        made += 1
        if made > 12:
            raise RuntimeError("worker died")
        return inner(iterations)

    with pytest.raises(RuntimeError, match="worker died"):
        run_rounds({"f": clock.side(1.0), "g": breaks}, "full", into=kept)
    assert len(kept.blocks["f"]) == len(kept.blocks["g"]) == len(kept) > 0


def test_progress_goes_from_nothing_to_all(clock: Clock) -> None:
    seen: list[float] = []
    run_rounds({"f": clock.side(1.0, noise=0.4)}, 1.0, on_round=lambda rounds: seen.append(rounds.fraction))
    assert seen == sorted(seen)
    assert 0 < seen[0] < 0.5
    assert 0.9 < seen[-1] <= 1


@pytest.mark.parametrize("budget", ["fast", 0, -1, math.nan, math.inf, None, "2 s"])
def test_a_budget_that_is_none(budget: object) -> None:
    with pytest.raises(OptionError, match='"quick", "full"'):
        Budget.of(budget)  # type: ignore[arg-type]


def test_no_sides() -> None:
    with pytest.raises(OptionError, match="at least one side"):
        run_rounds({})


@pytest.mark.parametrize(("factor", "rounds"), [(1.0, 36), (2.0, 18)])
def test_what_is_far_faster_needs_half_as_many_rounds(clock: Clock, factor: float, rounds: int) -> None:
    sides = {"f": clock.side(1.0, noise=0.005, seed=0), "g": clock.side(1.0 / factor, noise=0.005, seed=1)}
    made = len(run_rounds(sides, Budget(30.0, precise=0.035, enough=36, far=2.0), rng=3))
    assert rounds <= made < rounds + 5


def test_no_side_is_first_more_often(clock: Clock) -> None:
    log: list[str] = []
    sides = {name: clock.side(1.0, noise=0.05, seed=i, log=log, name=name) for i, name in enumerate(("f", "g"))}
    rounds = run_rounds(sides, Budget(1.0), rng=3)
    firsts = log[-2 * len(rounds) :: 2]
    assert abs(firsts.count("f") - firsts.count("g")) <= 1
