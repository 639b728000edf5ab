"""One budget for all that a search of architectures does: the table, the shared training, the looks, each training."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from nbopt.errors import OptionError
from nbopt.studies import Budget

TABLE, SHARED, LOOKS, FINALISTS, CHOSEN = 0.1, 0.35, 0.45, 0.65, 0.75
"""Shares of the budget by which each stage of a search has ended: what is left over goes to the next."""

BUILT = 0.5
"""The same of a search among candidates of a cell's body, each of which is trained."""

RIVAL, RIVAL_CHOSEN = 0.85, 0.92
"""Shares by which a random search beside it has ended, and the training of its choice; uniform scaling has the rest."""


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

    @property
    def endless(self) -> bool:
        """Tell whether there is no limit."""
        return math.isinf(self.budget.limit)

    def left(self, share: float = 1.0) -> float:
        """Return the seconds that are left of a share of it, 0 or more; infinity without a limit."""
        return max(0.0, share * self.budget.limit - self.spent)

    def going(self, share: float, usual: Callable[[], float] = lambda: 0.0) -> Callable[[], bool]:
        """Return what tells whether one more thing, as long as such things were, ends within a share of it."""
        return lambda: self.left(share) > usual()

    def seconds_for(self, share: float, parts: int = 1) -> float | None:
        """Return the most that a training may take to end within a share of it, None without a limit.

        Args:
            share: Of the whole budget.
            parts: Trainings that are still to be made within it, this one among them.
        """
        return None if self.endless else self.left(share) / parts

    def refuse_spent(self, share: float) -> None:
        """Refuse to begin what would not be trained any more: a row of that would be no fair rival.

        Raises:
            OptionError: Nothing is left of a share of it.
        """
        if not self.left(share):
            raise OptionError("a --budget that lasts for what stands beside a search too", self.note, "a larger one")

    @property
    def note(self) -> str:
        """Return what was spent, in words."""
        cost = self.budget.spent(self.spent)
        paid = "" if cost is None else f", which cost {cost:.2g}"
        within = "" if self.endless else f" of {self.budget.limit:.0f} s"
        return f"{self.spent:.0f} s{within} were spent{paid}"


def budget_of(text: float | str | None, price: float | None) -> Budget:
    """Return a budget of seconds (1200), or of money ("$3") at a price of an hour.

    Raises:
        OptionError: It is neither, there is money without a price, or a price without money.
    """
    if isinstance(text, str):
        try:
            cost = float(text.strip().removeprefix("$"))
        except ValueError:
            cost = math.nan
        if not text.strip().startswith("$") or not 0 < cost < math.inf:
            raise OptionError("nas --budget as a time or as money", repr(text), "--budget 20m, or --budget '$3'")
        if price is None:
            raise OptionError("nas --price beside a --budget in money", f"{text} alone", "--budget '$3' --price 0.30/h")
        return Budget(cost=cost, price=price)
    if text is None:
        return Budget(price=price)
    if isinstance(text, bool) or not 0 < text < math.inf:
        raise OptionError("nas --budget above 0 seconds", f"{text}", "--budget 20m, or --budget '$3'")
    return Budget(seconds=float(text), price=price)


def price_of(text: float | str | None) -> float | None:
    """Return a price of an hour: 0.3, or "0.30/h".

    Raises:
        OptionError: It is no such price.
    """
    if text is None:
        return None
    try:
        price = float(str(text).strip().removeprefix("$").removesuffix("/h"))
    except ValueError:
        price = math.nan
    if isinstance(text, bool) or not 0 < price < math.inf:
        raise OptionError("nas --price of an hour, above 0", repr(text), "--price 0.30/h")
    return price
