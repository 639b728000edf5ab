"""Regularized evolution (Real et al. 2019, arXiv 1802.01548): the oldest dies, not the worst."""

from __future__ import annotations

import numpy as np

from nbopt.controllers.grid import Allowed, Grid, History, Settings, Untried, starting

POPULATION = 20
"""Candidates that live. Real et al. have 100 for 20,000; of a few hundred that would leave nothing to evolve."""

SAMPLE = 5
"""Candidates of which the best becomes the parent: a quarter of those that live, as in the paper."""


class Evolution:
    """Change one dimension of the best of a few candidates, drawn among the youngest.

    A candidate that was lucky once dies of age, however good its score: so luck is not bred.

    Args:
        grid: The space.
        seed: Seed of its draws.
        allowed: Tells which settings may be tried; None allows all.
        population: Candidates that live, 2 or more.
        sample: Of how many the best becomes the parent, 1 to `population`.
    """

    def __init__(
        self,
        grid: Grid,
        *,
        seed: int = 0,
        allowed: Allowed | None = None,
        population: int = POPULATION,
        sample: int = SAMPLE,
    ) -> None:
        self._grid, self._seed, self._untried = grid, seed, Untried(grid, allowed)
        self._population, self._sample = population, min(sample, population)
        self._planned = starting(grid, seed, population)[:population]

    def propose(self, history: History) -> Settings | None:
        """Return a setting that was not tried; None where none is left to be found."""
        rng = np.random.default_rng([self._seed, 2, len(history.began)])
        if len(history.began) < self._population:
            planned = self._untried.first(history, self._planned)
            if planned is not None:
                return planned
        alive, scores = history.settings[-self._population :], history.scores[-self._population :]
        # A failed candidate lives and dies like others; it is a parent only where all of a sample failed.
        scores = np.where(np.isfinite(scores), scores, -np.inf)
        for _ in range(self._population if len(alive) else 0):
            drawn = rng.permutation(len(alive))[: self._sample]
            children = self._grid.beside(alive[drawn[int(np.argmax(scores[drawn]))]])
            left = self._untried.among(children, history)
            if len(left):
                return left[int(rng.integers(len(left)))]
        left = self._untried.some(history, rng)
        return left[int(rng.integers(len(left)))] if len(left) else None
