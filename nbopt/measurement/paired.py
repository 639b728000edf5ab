"""`nbopt.measure`: which of two callables is faster, and how sure is that."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from nbopt.errors import OptionError
from nbopt.measurement.blocks import CallableSide
from nbopt.measurement.budget import Budget
from nbopt.measurement.intervals import Interval
from nbopt.measurement.rounds import Latency, Rounds
from nbopt.measurement.statistics import QUIET, RatioVerdict
from nbopt.measurement.turns import run_rounds


@dataclass(frozen=True)
class Timing:
    """Hold how many times faster `g` is than `f`, with everything needed to doubt it.

    Args:
        ratio: Median of the paired ratios f / g of wall times: 2 means that g takes half the time.
        low: Lower bound of its interval.
        high: Upper bound.
        level: Coverage of the interval.
        verdict: g against f: better (faster), same, worse (slower) or inconclusive.
        contention: How many times longer calls took than on an idle machine, >= 1; of the side that waited most.
        distortion: The same of the median calls that the ratio comes from, and of load that slows without waiting:
            what the verdict allows for.
        foreign_load: Share of the CPUs that other processes used, 0 to 1; None where not known.
        f: Times of f, in ms.
        g: Times of g, in ms.
        cpu_ratio: The same as `ratio` in CPU time; None where the clock sees none.
        rounds: Rounds measured.
        seconds: Time spent, without the first call of each.
        steady: Both were steady after the warm-up.
        labels: What to call f and g.
    """

    ratio: float
    low: float
    high: float
    level: float
    verdict: RatioVerdict
    contention: float
    distortion: float
    foreign_load: float | None
    f: Latency
    g: Latency
    cpu_ratio: Interval | None
    rounds: int
    seconds: float
    steady: bool
    labels: tuple[str, str] = ("f", "g")

    @property
    def interval(self) -> Interval:
        """Return ratio and bounds as one interval."""
        return Interval(self.ratio, self.low, self.high, self.level)

    def __str__(self) -> str:
        f, g = self.labels
        state = "machine quiet"
        if self.contention > QUIET:
            state = f"machine busy, calls took {self.contention:.1f} times their own time"
        elif self.distortion > QUIET and self.foreign_load is not None:
            state = f"machine busy, others used {self.foreign_load:.0%} of it"
        tail = f"{f} {_ms(self.f)}, {g} {_ms(self.g)}; {self.rounds} rounds, {state}"
        if self.verdict == "better":
            return f"{g} is {_times(self.interval)} faster than {f} ({tail})"
        if self.verdict == "worse":
            inverse = Interval(1 / self.ratio, 1 / self.high, 1 / self.low if self.low else math.inf, self.level)
            return f"{g} is {_times(inverse)} slower than {f} ({tail})"
        if self.verdict == "same":
            return f"{g} is as fast as {f}: ratio {self.interval.text()} ({tail})"
        disturbed = self.distortion > QUIET
        why = "inconclusive, machine busy" if disturbed else "inconclusive"
        advice = "repeat when less else runs" if disturbed else 'measure longer (budget="full")'
        return f"{why}: {g} against {f}, ratio {self.interval.text()} ({tail}); {advice}"


def measure(
    f: Callable[[], Any],
    g: Callable[[], Any],
    *,
    budget: Literal["quick", "full"] | float = "quick",
    labels: tuple[str, str] | None = None,
    seed: int = 0,
    level: float = 0.95,
) -> Timing:
    """Time two callables against each other in this process.

    They take turns in blocks of random order after both are warm; wall and CPU time are kept, and the verdict
    rests on the median of paired ratios. Calls shorter than 50 microseconds are timed several at once.

    Args:
        f: The baseline, called without arguments. It must have finished its work when it returns: synchronize
            a GPU inside.
        g: What is judged against it.
        budget: "quick" (1 s at most), "full" (until the interval is within 1%, at most 20 s), or seconds.
            Whatever the budget, three rounds are made.
        labels: What to call the two in sentences, default ("f", "g").
        seed: Seed of the order of turns.
        level: Coverage of the interval, 0.5 to 1 exclusive, default 0.95.

    Raises:
        OptionError: Not callables, or the budget or level is out of range. What f or g raise is passed on.

    Examples:
        >>> timing = measure(lambda: sum(range(2000)), lambda: sum(range(1000)), budget=0.2)
        >>> timing.ratio > 1
        True
    """
    for name, side in (("f", f), ("g", g)):
        if not callable(side):
            raise OptionError(
                f"{name} as something to call without arguments",
                type(side).__name__,
                "measure(lambda: model(x), ...)",
            )
    if not 0.5 <= level < 1:
        raise OptionError("a level from 0.5 to below 1", repr(level), "level=0.95")
    rounds = run_rounds({"f": CallableSide(f), "g": CallableSide(g)}, Budget.of(budget), rng=seed, level=level)
    return timing_of(rounds, "f", "g", labels=labels or ("f", "g"), level=level)


def timing_of(
    rounds: Rounds, baseline: str, variant: str, *, labels: tuple[str, str] | None = None, level: float = 0.95
) -> Timing:
    """Return the comparison of two sides of finished (or interrupted) rounds.

    Args:
        rounds: From `run_rounds`, at least one complete round.
        baseline: Name of the side that is f.
        variant: Name of the side that is g.
        labels: What to call them, default their names.
        level: Coverage of the intervals.

    Raises:
        OptionError: No round is complete.
    """
    if not len(rounds):
        raise OptionError("at least one complete round", "none", "let the measurement run longer")
    interval = rounds.ratio(baseline, variant, level=level)
    return Timing(
        ratio=interval.value,
        low=interval.low,
        high=interval.high,
        level=level,
        verdict=rounds.verdict(baseline, variant, level=level),
        contention=rounds.contention(baseline, variant),
        distortion=rounds.doubt(baseline, variant),
        foreign_load=rounds.foreign,
        f=rounds.latency(baseline, level=level),
        g=rounds.latency(variant, level=level),
        cpu_ratio=rounds.cpu_ratio(baseline, variant, level=level),
        rounds=len(rounds),
        seconds=rounds.seconds,
        steady=rounds.steady,
        labels=labels or (baseline, variant),
    )


def _ms(latency: Latency) -> str:
    return Interval(latency.median, latency.low, latency.high).text().split(" ")[0] + " ms"


def _times(interval: Interval) -> str:
    number, bounds = interval.text().split(" ", 1)
    return f"{number}x {bounds}"
