"""What rounds say of their sides: made up, so that the truth is known."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from nbopt.measurement.blocks import Block
from nbopt.measurement.rounds import Rounds


def test_without_the_kernels_help_contention_is_wall_over_cpu_time() -> None:
    rounds = Rounds(["f"])
    for wall in (1.0, 1.0, 1.0, 5.0):
        rounds.blocks["f"].append(Block(np.full(10, wall * 1e6), 10 * 1e6, 10))
    assert rounds.contention("f") == pytest.approx(2.0)
    assert rounds.kept().all(), "three quiet rounds are too few to leave the others out"


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


@pytest.mark.parametrize(("foreign", "verdict"), [(0.03, "better"), (0.15, "inconclusive"), (None, "inconclusive")])
def test_threads_that_wait_for_each_other_alone_on_the_machine_do_not_hang(foreign: float | None, verdict: str) -> None:
    rounds = threaded_rounds([1.3] * 20, [2.0] * 20)
    rounds.foreign = foreign
    assert rounds.verdict("f", "g") == verdict


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


def test_a_latency_may_be_as_much_shorter_as_its_threads_waited() -> None:
    busy = threaded_rounds([1.6] * 20, [1.0] * 20).latency("f")
    assert (busy.low, busy.median, busy.high) == pytest.approx((50 / 1.6, 50, 50))
    assert threaded_rounds([1.6] * 20, [2.0] * 20).latency("f").low == 0
    assert threaded_rounds([1.05] * 20, [2.0] * 20).latency("f").low == pytest.approx(50)
