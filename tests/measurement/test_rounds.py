from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from nbopt.errors import OptionError
from nbopt.measurement.blocks import Block, CallableSide
from nbopt.measurement.budget import Budget
from nbopt.measurement.rounds import Rounds, run_rounds


class Clock:
    """A machine whose time passes only where a side says so, so that tests need no real time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr("nbopt.measurement.rounds.time.perf_counter", lambda: self.now)

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


def test_without_the_kernels_help_contention_is_wall_over_cpu_time() -> None:
    rounds = Rounds(["f"])
    for wall in (1.0, 1.0, 1.0, 5.0):
        rounds.blocks["f"].append(Block(np.full(10, wall * 1e6), 10 * 1e6, 10))
    assert rounds.contention("f") == pytest.approx(2.0)
    assert rounds.kept().all(), "three quiet rounds are too few to leave the others out"


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


def test_short_calls_are_timed_several_at_once() -> None:
    side = CallableSide(lambda: None)
    side(1000)
    block = side(100_000)
    assert block.calls >= 100_000
    assert len(block.wall_ns) < 20_000
    assert block.elapsed_ns == pytest.approx(block.wall_ns.mean() * block.calls)
    assert len(block.settled) < len(block.wall_ns)


def test_what_a_callable_raises_is_passed_on_and_the_collector_runs_again() -> None:
    import gc

    def broken() -> None:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        CallableSide(broken)(1)
    assert gc.isenabled()


def placed_side(call_ms: float, places: list[list[float]], rng: np.random.Generator) -> Callable[[int], Block]:
    """Return a side of several processes with several instances each, each of which is faster or slower by a factor."""
    turn = 0

    def side(iterations: int) -> Block:
        nonlocal turn
        process, instance = turn % len(places), turn // len(places) % len(places[0])
        turn += 1
        factor = places[process][instance]
        wall = call_ms * 1e6 * factor * np.exp(0.03 * rng.normal() + 0.02 * rng.normal(size=iterations))
        return Block(wall, float(wall.sum()), iterations, 1.0, 1.0, 1.0, instance, process)

    return side


def placed_rounds(
    rng: np.random.Generator, instances: int, spread: float, *, apart: bool, processes: int = 1, rounds: int = 40
) -> Rounds:
    made = Rounds(apart=apart)
    for name in ("baseline", "variant"):
        each = 1 + 0.008 * rng.normal(size=(processes, 1))
        side = placed_side(1.0, (each * (1 + spread * rng.normal(size=(processes, instances)))).tolist(), rng)
        made.blocks[name] = [side(20) for _ in range(rounds)]
    return made


@pytest.mark.parametrize(
    ("processes", "instances", "spread"),
    [(1, 1, 0.007), (1, 4, 0.007), (1, 4, 0.013), (1, 8, 0.0), (3, 4, 0.009), (3, 1, 0.0)],
)
def test_the_interval_of_a_ratio_holds_the_luck_of_places(processes: int, instances: int, spread: float) -> None:
    covered, narrow = 0, 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        rounds = placed_rounds(rng, instances, spread, apart=True, processes=processes)
        covered += rounds.ratio("baseline", "variant").covers(1.0)
        narrow += rounds.paired_ratio("baseline", "variant").covers(1.0)
    # 93% of 300 is promised; 90% would be met by chance one time in thirty.
    assert covered >= 0.9 * 300
    assert narrow < covered  # what one process shows is less than what differs between two


def test_more_processes_make_an_interval_narrower() -> None:
    widths = [
        np.mean(
            [
                placed_rounds(np.random.default_rng(seed), 4, 0.008, apart=True, processes=processes, rounds=96)
                .ratio("baseline", "variant")
                .relative_width
                for seed in range(20)
            ]
        )
        for processes in (1, 3)
    ]
    assert widths[1] < 0.75 * widths[0]


def test_sides_of_one_process_are_as_far_apart_as_they_measure() -> None:
    rounds = placed_rounds(np.random.default_rng(0), 4, 0.01, apart=False)
    assert rounds.ratio("baseline", "variant") == rounds.paired_ratio("baseline", "variant")


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


def threaded_rounds(contentions: list[float], parallel: list[float]) -> Rounds:
    """Return rounds of two sides, of which one is a hundred times faster."""
    rounds = Rounds()
    for name, call_ms in (("f", 50.0), ("g", 0.5)):
        wall = np.full(10, call_ms * 1e6)
        rounds.blocks[name] = [
            Block(wall, float(wall.sum()), 10, contention, contention, threads)
            for contention, threads in zip(contentions, parallel, strict=True)
        ]
    return rounds


@pytest.mark.parametrize(
    ("parallel", "contention", "verdict"),
    [
        ([2.0], 1.6, "inconclusive"),
        ([1.0], 1.6, "better"),
        ([2.0], 1.05, "better"),
        # The second thread never got a processor within most blocks: it is a side of two threads all the same.
        ([1.0] * 8 + [2.0] * 2, 1.6, "inconclusive"),
    ],
)
def test_threads_that_wait_for_each_other_are_not_judged_beside_other_load(
    parallel: list[float], contention: float, verdict: str
) -> None:
    rounds = threaded_rounds([contention] * 20, parallel * (20 // len(parallel)))
    assert rounds.verdict("f", "g") == verdict
    interval = rounds.ratio("f", "g")
    assert (interval.low, interval.high) == (0, math.inf) or verdict == "better"
    assert rounds.busy == (contention > 1.1)


def test_quiet_rounds_do_not_clear_threads_that_hung_in_most_others() -> None:
    rounds = threaded_rounds([1.0] * 10 + [2.0] * 30, [2.0] * 40)
    assert rounds.distortion() == 1
    assert rounds.verdict("f", "g") == "inconclusive"
    assert threaded_rounds([1.0] * 15 + [2.0] * 5, [2.0] * 20).verdict("f", "g") == "better"


@pytest.mark.parametrize(("f", "g", "low", "high"), [(1.5, 1.0, 2 / 1.5, 2.0), (1.0, 1.5, 2.0, 3.0)])
def test_the_interval_that_is_told_holds_what_other_load_may_have_done(
    f: float, g: float, low: float, high: float
) -> None:
    rounds = Rounds()
    for name, call_ms, contention in (("f", 2.0, f), ("g", 1.0, g)):
        wall = np.full(10, call_ms * 1e6)
        rounds.blocks[name] = [Block(wall, float(wall.sum()), 10, contention, contention, 1.0) for _ in range(20)]
    interval = rounds.ratio("f", "g")
    assert (interval.low, interval.high) == pytest.approx((low, high))
