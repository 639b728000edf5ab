"""How long to measure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from nbopt.errors import OptionError

LEAST_ROUNDS = 3
_ROUNDS_WANTED = 100
"""Machines drift at every scale of time: halving the blocks of a round, so that there are twice as many, made the
interval of a ratio a quarter narrower at the same cost, down to blocks of some milliseconds."""

_THOROUGH_SECONDS = 5.0


@dataclass(frozen=True)
class Budget:
    """Say how long to measure.

    Args:
        seconds: Time for warm-up and rounds of all sides together; the first call of each comes on top.
        precise: Stop once every interval's width over its ratio is below this; None: use the whole time.
        enough: Rounds below which precision is not judged, since an interval is narrow by chance sometimes.
        least: Rounds that are made even where they take longer than `seconds`.
        fair: Rounds that an interval needs to be of use; fewer are made only where they take longer than
            `patience` times `seconds`.
        far: Times `precise` that will do for a ratio beyond 1.25, 1 or more; so many times fewer rounds will, too.
        patience: How much longer than `seconds` the rounds of a slow model may take, 1 or more.
    """

    seconds: float
    precise: float | None = None
    enough: int = 20
    least: int = LEAST_ROUNDS
    fair: int = LEAST_ROUNDS
    patience: float = 1.0
    far: float = 1.0

    @classmethod
    def of(cls, budget: Literal["quick", "full"] | float | Budget) -> Budget:
        """Return the budget of a word or a number of seconds.

        quick: 1 s, less where the interval is within 2% (width 3.5%) before, or 4% beyond a ratio of 1.25, which
        needs half as many rounds; a model of which that is less than eight rounds gets up to five times as long for
        them. full: until the interval is within 1%, at most 20 s.

        Raises:
            OptionError: Neither a known word nor a positive number.
        """
        if isinstance(budget, Budget):
            return budget
        if budget == "quick":
            return cls(1.0, precise=0.035, enough=36, fair=8, patience=5.0, far=2.0)
        if budget == "full":
            return cls(20.0, precise=0.02, enough=60)
        seconds: object = budget  # what a user passes is whatever it is
        if isinstance(seconds, int | float) and 0 < seconds < math.inf:
            return cls(float(seconds))
        raise OptionError('"quick", "full" or a number of seconds above 0', repr(budget), 'budget="full"')

    @property
    def thorough(self) -> bool:
        """Tell whether there is time for more than one process of each side."""
        return self.seconds >= _THOROUGH_SECONDS

    @property
    def instances(self) -> int:
        """Return how often a process loads an artifact where that is cheap: the luck of its place in memory is seen."""
        return 4

    @property
    def processes(self) -> int:
        """Return in how many processes an artifact runs where that is cheap.

        Two processes with one file differ by a percent (`nbopt.measurement.places`), which no number of rounds
        averages out, and 5% is to be found.
        """
        return 3 if self.thorough else 1

    def block_ns(self, sides: int) -> float:
        """Return how long one block should take, 2 to 20 ms."""
        return float(np.clip(self.seconds / (_ROUNDS_WANTED * sides), 0.002, 0.02)) * 1e9

    def warm_up_ns(self, sides: int) -> float:
        """Return how long the warm-up of one side may take: a third of all, at most 1 s."""
        return min(self.seconds / (3 * sides), 1.0) * 1e9
