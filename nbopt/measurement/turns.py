"""Sides take turns in random order, so that whatever the machine does, it does to all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Literal

import numpy as np

from nbopt.errors import OptionError
from nbopt.measurement.blocks import Block, Side
from nbopt.measurement.budget import Budget
from nbopt.measurement.contention import ContentionSampler
from nbopt.measurement.intervals import Interval
from nbopt.measurement.rounds import Rounds, WarmUp

FAR = 1.25
"""Beyond this ratio no verdict hangs on a percent: see `Budget.far`."""

_STEADY = 0.05  # windows whose medians differ by less than this are steady
_WINDOWS = 10  # windows that the warm-up's time is divided into


def run_rounds(
    sides: Mapping[str, Side],
    budget: Literal["quick", "full"] | float | Budget = "quick",
    *,
    rng: np.random.Generator | int = 0,
    pids: Iterable[int] | None = None,
    apart: bool = False,
    before_round: Callable[[], None] = lambda: None,
    on_round: Callable[[Rounds], None] | None = None,
    into: Rounds | None = None,
    level: float = 0.95,
) -> Rounds:
    """Measure sides in rounds: in each, every side makes one block of calls, in random order.

    Warm-up comes first: windows of calls until the medians of three in a row agree within 5%, or a third of
    the budget is used. From it follows how many calls make a block of 2 to 20 ms; a call that takes longer is
    a block of its own.

    Args:
        sides: Name and side; the first is the baseline whose ratios decide on precision. A side may time
            calls in this process (`CallableSide`) or in another.
        budget: "quick" (1 s), "full" (20 s at most), seconds, or a `Budget`.
        rng: Generator or seed of the order.
        pids: Processes whose load is not foreign; None is this one alone.
        apart: Each side lives in a process of its own; see `Rounds`.
        before_round: Called before each round, to place its sides.
        on_round: Called after each complete round.
        into: Where rounds are kept, so that what is done survives an exception such as KeyboardInterrupt,
            which is passed on.
        level: Coverage of the intervals that decide on precision.

    Raises:
        OptionError: There are no sides, or the budget is not one.
    """
    plan = Budget.of(budget)
    if not sides:
        raise OptionError("at least one side to measure", "none", "pass sides={name: side}")
    generator = np.random.default_rng(rng)
    rounds = Rounds() if into is None else into
    rounds.apart = apart
    rounds.blocks = {name: [] for name in sides}
    firsts = {name: side(1) for name, side in sides.items()}
    machine = ContentionSampler(pids)
    began = time.perf_counter()
    try:
        for name, side in sides.items():
            rounds.warm_up[name] = _warm_up(side, firsts[name], plan.warm_up_ns(len(sides)))
        calls = {name: max(1, round(plan.block_ns(len(sides)) / rounds.warm_up[name].call_ns)) for name in sides}
        order = list(sides)
        while True:
            before_round()
            # Each order is followed by its reverse, so that none of two sides is first more often.
            order = order[::-1] if len(rounds) % 2 else [list(sides)[i] for i in generator.permutation(len(sides))]
            turn = {name: sides[name](calls[name]) for name in order}
            for name, block in turn.items():
                rounds.blocks[name].append(block)
            rounds.seconds = time.perf_counter() - began
            rounds.fraction = min(1.0, rounds.seconds / plan.seconds)
            rounds.complete = _done(rounds, plan, level)
            if on_round is not None:
                on_round(rounds)
            if rounds.complete:
                return rounds
    finally:
        rounds.seconds = time.perf_counter() - began
        rounds.foreign = machine.stop().foreign


def _done(rounds: Rounds, plan: Budget, level: float) -> bool:
    made = len(rounds)
    if made < plan.least:
        return False
    allowed = plan.seconds * (plan.patience if made < plan.fair else 1.0)
    if rounds.seconds * (made + 0.5) / made > allowed:  # another round would end past the budget
        return True
    # Judged every fifth round only: each look is a chance to stop at an interval that is narrow by luck.
    if plan.precise is None or made < plan.enough / plan.far or made % 5:
        return False
    baseline, *others = rounds.blocks
    return all(_precise(rounds.paired_ratio(baseline, other, level=level), made, plan) for other in others)


def _precise(ratio: Interval, made: int, plan: Budget) -> bool:
    leeway = plan.far if ratio.low > FAR or ratio.high < 1 / FAR else 1.0
    return plan.precise is not None and made >= plan.enough / leeway and ratio.relative_width <= plan.precise * leeway


def _warm_up(side: Side, first: Block, limit_ns: float) -> WarmUp:
    call_ns = float(np.median(first.wall_ns))
    medians: list[float] = []
    spent, calls, steady = 0.0, first.calls, False
    while not steady and spent + call_ns < limit_ns:
        block = side(max(1, round(limit_ns / _WINDOWS / call_ns)))
        spent += block.elapsed_ns
        calls += block.calls
        call_ns = float(np.median(block.wall_ns))
        medians.append(call_ns)
        recent = medians[-3:]
        steady = len(recent) == 3 and all(abs(b / a - 1) < _STEADY for a, b in pairwise(recent))
    return WarmUp(float(first.wall_ns.mean()) / 1e6, call_ns, calls, steady)
