"""One budget for all that a search of architectures does: the table, the shared training, the looks, the finalists."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from nbopt.studies import Budget

TABLE, SHARED, LOOKS, FINALISTS = 0.15, 0.55, 0.75, 1.0
"""Shares of the budget by which each stage has ended: what is left over goes to the next."""


@dataclass
class Purse:
    """Keep count of a budget in time or money, from the moment that it is made.

    Args:
        budget: Seconds, or a cost and a price; without any it never ends.
        clock: Tells the time in seconds.
    """

    budget: Budget
    clock: Callable[[], float] = time.monotonic
    _began: float = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._began = self.clock()

    @property
    def spent(self) -> float:
        """Return the seconds since it was made."""
        return self.clock() - self._began

    def left(self, share: float = 1.0) -> float:
        """Return the seconds that are left of a share of it, 0 or more; infinity without a limit."""
        return max(0.0, share * self.budget.limit - self.spent)

    def going(self, share: float, usual: Callable[[], float] = lambda: 0.0) -> Callable[[], bool]:
        """Return what tells whether one more thing, as long as such things were, ends within a share of it."""
        return lambda: self.left(share) > usual()

    def seconds_for(self, share: float) -> float | None:
        """Return the most that a training may take to end within a share of it, None without a limit."""
        return None if math.isinf(self.budget.limit) else self.left(share)

    @property
    def note(self) -> str:
        """Return what was spent, in words."""
        cost = self.budget.spent(self.spent)
        paid = "" if cost is None else f", which cost {cost:.2g}"
        within = "" if math.isinf(self.budget.limit) else f" of {self.budget.limit:.0f} s"
        return f"{self.spent:.0f} s{within} were spent{paid}"
