"""Random search: what every other controller is compared with."""

from __future__ import annotations

import numpy as np

from nbopt.controllers.grid import Allowed, Grid, History, Settings, Untried


class Chance:
    """Draw evenly from what was not tried.

    Args:
        grid: The space.
        seed: Seed of its draws.
        allowed: Tells which settings may be tried; None allows all.
    """

    def __init__(self, grid: Grid, *, seed: int = 0, allowed: Allowed | None = None) -> None:
        self._seed, self._untried = seed, Untried(grid, allowed)

    def propose(self, history: History) -> Settings | None:
        """Return a setting that was not tried; None where none is left to be found."""
        rng = np.random.default_rng([self._seed, 0, len(history.began)])
        left = self._untried.some(history, rng)
        return left[int(rng.integers(len(left)))] if len(left) else None
