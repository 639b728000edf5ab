"""Which finalist is gone on with: each is trained, and the fastest is taken that surely loses no more than may be lost.

With shared weights a candidate is judged by weights that all of them pull at: that ranks candidates, and says nothing
of what one is worth. So each finalist gets the training that the recipe would give it, and is compared with the
untouched model on the same selection rows. It is chosen by the bound of that interval, not by its middle: the best of
several by their middles is likely the luckiest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nbopt.draft import Context
from nbopt.errors import NbOptError
from nbopt.measurement.intervals import Interval
from nbopt.measurement.metrics import metric_of
from nbopt.measurement.quality import judge
from nbopt.progress import Progress
from nbopt.techniques._nas.hunting import Finalist, Hunt
from nbopt.techniques._nas.purse import FINALISTS
from nbopt.training import TrainingPlan

Array = np.ndarray[Any, Any]

USUAL_DROP = 0.01
"""Loss that counts as none where the user sets no --max-drop: one point, or 1% of a metric without bounds."""


@dataclass(frozen=True)
class Tried:
    """Say what a finalist was worth after its training.

    Args:
        latency_ms: Where it will run.
        quality: On the selection rows, NaN where its training failed.
        change: Against the untouched model on the same rows, None where its training failed.
        reason: Why it failed, or "".
    """

    latency_ms: float
    quality: float
    change: Interval | None = None
    reason: str = ""

    def lost(self, *, greater: bool) -> float:
        """Return the most that it may have lost: the bound of the interval; infinity where it failed."""
        if self.change is None:
            return np.inf
        return -self.change.low if greater else self.change.high

    @property
    def text(self) -> str:
        """Return it for people: `0.21 ms 0.9132 (-0.004 [-0.011, +0.002])`."""
        at = f"{self.latency_ms:.3g}" + (" ms" if self.latency_ms < 1e4 else "")
        if self.change is None:
            return f"{at} failed: {self.reason}"
        return f"{at} {self.quality:.4f} ({self.change.value:+.4f} [{self.change.low:+.4f}, {self.change.high:+.4f}])"


def best_place(tried: Sequence[Tried], margin: float, *, greater: bool) -> tuple[int, bool]:
    """Return the place of the fastest that surely loses at most a margin, else of that which loses least; and which.

    Args:
        tried: Finalists.
        margin: What may be lost, in the metric's units.
        greater: Larger qualities are better.
    """
    lost = [each.lost(greater=greater) for each in tried]
    within = [at for at, loss in enumerate(lost) if loss <= margin]
    if within:
        return min(within, key=lambda at: (tried[at].latency_ms, lost[at])), True
    return int(np.argmin(lost)), False


def settled(found: Sequence[Finalist], plan: TrainingPlan, hunt: Hunt) -> tuple[Finalist, list[str], list[Tried]]:
    """Train each finalist by the plan of the recipe, and return the one to go on with, not trained, and notes.

    Args:
        found: Finalists, the fastest first.
        plan: The training that the chosen one will have.
        hunt: Whose budget it is.
    """
    context, purse = hunt.context, hunt.purse
    if hunt.interrupted:
        # Nothing more is trained: the best by the weights that it shares.
        return max(found, key=lambda each: context.lost(each.quality, 0.0)), [], []
    untrained = not plan.epochs or context.workload.train is None
    if len(found) == 1 or context.workload.select_rows.targets is None:
        return found[0], [], []
    metric = metric_of(context.workload.metric, output=context.workload.output)
    base = context.outputs(context.workload.model)
    margin = context.max_drop
    if margin is None:
        margin = USUAL_DROP if metric.bounded else USUAL_DROP * abs(context.quality(base))
    tried: list[Tried] = []
    for number, each in enumerate(found):
        context.progress(Progress("training finalists", number, len(found)))
        model = each.model
        try:
            if not untrained:
                most = purse.seconds_for(FINALISTS, len(found) - number)
                model = context.trained(model, plan.adjusted(seed=context.seed, max_seconds=most)).model
            tried.append(_compared(each, model, base, context))
        except NbOptError as error:
            tried.append(Tried(each.there.latency_ms, np.nan, reason=error.one_line))
    at, within = best_place(tried, margin, greater=metric.greater_is_better)
    how = (
        f"the fastest that loses at most {margin:.3g} by the bound of its interval"
        if within
        else f"none loses at most {margin:.3g} by the bound of its interval; this one loses least"
    )
    told = f"finalists{'' if untrained else ' after training'}: {'; '.join(each.text for each in tried)}"
    return found[at], [told, f"chosen: {tried[at].text}, {how}"], tried


def _compared(finalist: Finalist, model: Any, base: Array, context: Context) -> Tried:
    rows, metric = context.workload.select_rows, metric_of(context.workload.metric, output=context.workload.output)
    found = judge(metric, context.outputs(model), rows.targets, rows.weight, base, seed=context.seed)
    latency = finalist.there.latency_ms
    if found.value is None or found.difference is None:
        return Tried(latency, np.nan, reason=found.warning or "its outputs can't be judged")
    return Tried(latency, found.value.value, found.difference.interval)
