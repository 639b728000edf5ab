"""When weights are averaged during a training, and how much each state counts."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nbopt.training import TrainingPlan

RECALIBRATED_ROWS = 2048
"""Rows of train that BatchNorm's statistics are measured on again."""


@dataclass
class Pace:
    """Count states, and tell the weight of each new one in the average.

    Args:
        plan: Has `averaging`, `ema_decay`, `swa_start` and the epochs.
    """

    plan: TrainingPlan
    states: int = 0

    @property
    def active(self) -> bool:
        """Tell whether there is an average yet."""
        return self.states > 0

    def after_step(self) -> float:
        """Return the weight of the state after a step, 0 where steps don't count."""
        if self.plan.averaging != "ema":
            return 0.0
        self.states += 1
        return 1.0 - min(self.plan.ema_decay, (1 + self.states) / (10 + self.states))

    def after_epoch(self, epoch: int) -> float:
        """Return the weight of the state after an epoch, counted from 1; 0 where it does not count."""
        if self.plan.averaging != "swa" or epoch < first_averaged(self.plan):
            return 0.0
        self.states += 1
        return 1.0 / self.states


def first_averaged(plan: TrainingPlan) -> int:
    """Return the first epoch, counted from 1, whose end SWA averages: the last one at the latest."""
    return min(plan.epochs, math.floor(plan.swa_start * plan.epochs) + 1)
