"""Which candidates a training of shared weights computes in each step.

The sandwich rule (Yu & Huang 2019, arXiv 1903.05134): the whole model learns from the labels; the smallest candidate
and a few at random learn from what the whole model says of the same rows (in-place distillation), since what is right
for the ends is mostly right for what lies between. The model comes trained: with the smallest of all from the first
step on it would forget what it knows, so that the space opens along the training, as in Once-for-all (Cai et al. 2020,
arXiv 1908.09791).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from nbopt.controllers import Grid, Settings

OPENED = 0.5
"""Share of the training after which the whole space is open."""

BETWEEN = 2
"""Candidates at random in each step, beside the whole model and the smallest; two in the paper."""


@dataclass
class Sandwich:
    """Draw the candidates of each step.

    Args:
        grid: The space; its start is the whole model.
        seed: Of the draws.
        between: Candidates at random in a step, 0 or more.
        opened: Share of the training after which the whole space is open, above 0 to 1.
    """

    grid: Grid
    seed: int = 0
    between: int = BETWEEN
    opened: float = OPENED
    _rng: np.random.Generator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng([self.seed, 6])

    def lowest(self, done: float) -> Settings:
        """Return the lowest place of each dimension that is open at a share of the training.

        Of a dimension of two options, in or out, the lower one opens in the middle.
        """
        top = np.asarray(self.grid.sizes, np.int64) - 1
        share = min(1.0, max(0.0, done) / self.opened)
        return np.asarray(np.round(top * (1 - share)), np.int64)

    def draw(self, done: float) -> Settings:
        """Return the candidates of a step beside the whole model: the smallest that is open, then some at random.

        Args:
            done: Share of the training that is done, 0 to 1.
        """
        lowest = self.lowest(done)
        sizes = np.asarray(self.grid.sizes, np.int64)
        some = self._rng.integers(lowest, sizes, size=(self.between, len(sizes)))
        found = np.vstack([lowest[None], some])
        # The whole model is computed anyway.
        return np.asarray(found[(found != sizes - 1).any(1)], np.int64)
