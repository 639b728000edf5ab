"""Controllers: which candidate of a finite space is tried next, told only what earlier candidates scored.

NumPy alone: a candidate is a vector of places, one for each dimension. What the places mean is the caller's. Each
controller proposes from a `History`, so that a search that was interrupted goes on from what its storage kept.
`nbopt.studies.steering` gives them to a study of Optuna. `relaxed` is apart: it needs a network that computes all
options at once, and its gradients.
"""

from __future__ import annotations

from typing import Protocol

from nbopt.controllers.chance import Chance
from nbopt.controllers.evolution import Evolution
from nbopt.controllers.grid import Allowed, Grid, History, Settings
from nbopt.controllers.policy import Policy
from nbopt.controllers.surrogate import Surrogate
from nbopt.errors import OptionError, nearest

__all__ = [
    "CONTROLLERS",
    "Allowed",
    "Chance",
    "Controller",
    "Evolution",
    "Grid",
    "History",
    "Policy",
    "Settings",
    "Surrogate",
    "controller_of",
]


class Controller(Protocol):
    """Propose what is tried next."""

    def propose(self, history: History) -> Settings | None:
        """Return a setting that was not tried, within what is allowed; None where none is left to be found."""
        ...


_BY_WORD = {"surrogate": Surrogate, "evolution": Evolution, "policy": Policy, "chance": Chance}

CONTROLLERS = tuple(_BY_WORD)
"""Their words. `surrogate` is for tens to hundreds of candidates, `evolution` for thousands of cheap ones."""


def controller_of(word: str, grid: Grid, *, seed: int = 0, allowed: Allowed | None = None) -> Controller:
    """Return a controller.

    Args:
        word: One of `CONTROLLERS`.
        grid: The space.
        seed: Seed of its draws, 0 or more.
        allowed: Tells which of many settings may be tried, such as those within a latency; None allows all.

    Raises:
        OptionError: There is no such controller.
    """
    if word not in _BY_WORD:
        raise OptionError(f"a controller among {', '.join(CONTROLLERS)}", repr(word), nearest(word, CONTROLLERS))
    made: Controller = _BY_WORD[word](grid, seed=seed, allowed=allowed)
    return made
