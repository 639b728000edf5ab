"""What the intervals of a run leave open: how much it may have lost, and how little or much faster it may be."""

from __future__ import annotations

import math
from collections.abc import Iterable

from nbopt.runs import Run

DEFAULT_DROP = 0.01
"""Loss of quality that "same" may hide where the user sets no --max-drop: one point, or 1% of an unbounded metric."""


def asked_drop(runs: Iterable[Run]) -> float:
    """Return the loss that variants were asked to keep within: the strictest where they differ, else the usual one."""
    variants = [run for run in runs if not (run.is_baseline or run.is_control)]
    return min((DEFAULT_DROP if run.max_drop is None else run.max_drop for run in variants), default=DEFAULT_DROP)


def allowed_drop(run: Run, max_drop: float) -> float:
    """Return `max_drop` in the metric's units: as it is for metrics in [0, 1], else a share of the baseline's."""
    if run.bounded or run.quality is None:
        return max_drop
    return max_drop * abs(run.quality - (run.quality_delta or 0.0))


def loss_bound(run: Run) -> float | None:
    """Return the largest loss of quality that the interval allows, 0 or more; None where it was not measured."""
    if run.is_baseline and run.quality_delta is None:
        return 0.0
    bound = run.quality_delta_low if run.greater_is_better else run.quality_delta_high
    if bound is None:
        return None
    return max(0.0, -bound if run.greater_is_better else bound)


def within(run: Run, max_drop: float) -> bool:
    """Tell whether a run's outputs can be trusted, and its loss is within `max_drop` at the interval's bound."""
    bound = None if run.collapsed else loss_bound(run)
    return bound is not None and bound <= allowed_drop(run, max_drop) + 1e-12


def least_speedup(run: Run) -> float:
    """Return the lower bound of a run's speedup, the speedup itself where it is exact; 0 where nothing is known."""
    return (run.speedup or 0.0) if run.speedup_low is None else run.speedup_low


def most_speedup(run: Run) -> float:
    """Return the upper bound of a run's speedup, the speedup itself where it is exact; infinity where it is open."""
    if run.speedup_high is not None:
        return run.speedup_high
    # A stored run has no infinity: its upper bound is missing where the lower one is there.
    return (run.speedup or 0.0) if run.speedup_low is None else math.inf


def open_speedup(run: Run) -> bool:
    """Tell whether nothing supports a run's speedup, or slowdown: the bound towards 1 is open.

    The machine was too busy to tell, or there were few rounds.
    """
    if run.speedup is None:
        return False
    return least_speedup(run) <= 0 if run.speedup >= 1 else math.isinf(most_speedup(run))
