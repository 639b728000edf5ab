"""What it costs to prune each layer alone: quality on the selection rows at several shares."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from nbopt.draft import Context
from nbopt.drawing import drawn
from nbopt.narrowing.subjects import Subject
from nbopt.progress import Progress
from nbopt.techniques._prune.allocation import LEVELS, allocate

SCANNED_ROWS = 2000
"""Selection rows that each state of the scan is judged on, drawn by chance where there are more."""
SHOWN = 60  # layers kept in a run, the most sensitive first: a bundle must stay small


@dataclass
class Scan:
    """Hold what the scan found.

    Args:
        losses: Of each layer, quality lost at each level, in the metric's own units.
        sizes: Weights or units of each layer.
        metric: The metric's name.
        split: Name of the split that it was measured on.
        seconds: Time that it took.
    """

    losses: dict[str, tuple[float, ...]]
    sizes: dict[str, int]
    metric: str
    split: str
    seconds: float
    chosen: dict[str, float] = field(default_factory=dict)

    def shares(self, share: float) -> dict[str, float]:
        """Return what each layer gives where all together give `share`."""
        self.chosen = allocate(self.losses, self.sizes, share)
        return self.chosen

    @property
    def note(self) -> str:
        """Return in words what was done, and which layers mind most."""
        most = sorted(self.losses, key=lambda name: -max(self.losses[name]))[:3]
        states = len(self.losses) * len(LEVELS)
        return (
            f"each of {len(self.losses)} layers pruned alone at {', '.join(f'{level:.0%}' for level in LEVELS)} "
            f"({states} states on {self.split}, {self.seconds:.0f} s); the most sensitive: {', '.join(most)}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for a run."""
        order = sorted(self.losses, key=lambda name: -max(self.losses[name]))[:SHOWN]
        return {
            "what": f"{self.metric} lost on {self.split} when one layer alone is pruned",
            "levels": list(LEVELS),
            "layers": {name: [round(loss, 6) for loss in self.losses[name]] for name in order},
            "chosen": {name: round(self.chosen[name], 4) for name in order if name in self.chosen},
            "left_out": len(self.losses) - len(order),
        }


def scan(subject: Subject, context: Context) -> Scan:
    """Prune each layer alone, score the model, and put the layer back."""
    began = time.perf_counter()
    framework, workload = context.workload.framework, context.workload
    model = framework.clone(subject.model)
    state = framework.state(model)
    rows = drawn(workload.select_rows, SCANNED_ROWS, context.rng())
    whole = context.score(model, rows)
    scores = subject.ranking.scores(model)
    losses: dict[str, tuple[float, ...]] = {}
    for index, name in enumerate(subject.sizes):
        context.progress(Progress("sensitivity", index, len(subject.sizes), name))
        found = []
        for level in LEVELS:
            subject.ranking.lowering.put_zeros(model, subject.choose(model, {name: level}, scores).masks, {})
            found.append(context.lost(whole, context.score(model, rows)))
            framework.load_state(model, state)
        losses[name] = tuple(found)
    metric = workload.metric_name
    return Scan(losses, dict(subject.sizes), metric, workload.select.name, time.perf_counter() - began)
