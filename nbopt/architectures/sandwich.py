"""Which candidates a training of shared weights computes in each step.

The sandwich rule (Yu & Huang 2019, arXiv 1903.05134): the whole model learns from the labels; the smallest candidate
and a few at random learn from what the whole model says of the same rows (in-place distillation), since what is right
for the ends is mostly right for what lies between. The model comes trained: with the smallest of all from the first
step on it would forget what it knows, so that the space opens along the training, as in Once-for-all (Cai et al. 2020,
arXiv 1908.09791).
"""

from __future__ import annotations

import time
from collections.abc import Callable
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


@dataclass
class Pace:
    """Tell how much of a training is done: by its steps, or by its time where that is to end it first.

    By the steps alone, one that its time ends would end with a space that is half closed, and candidates would be
    judged that never learned.

    Args:
        steps: Of the whole training, 1 or more.
        seconds: The most that it may take; None without a limit.
        clock: Tells the time in seconds.
    """

    steps: int
    seconds: float | None = None
    clock: Callable[[], float] = time.monotonic
    step: int = field(default=0, init=False)
    _began: float | None = field(default=None, init=False, repr=False)

    def next(self) -> float:
        """Return the share that is done before the next step, 0 to 1, and count that."""
        if self._began is None:
            self._began = self.clock()
        by_time = 0.0 if self.seconds is None else (self.clock() - self._began) / max(self.seconds, 1e-9)
        by_steps = self.step / max(1, self.steps)
        self.step += 1
        return min(1.0, max(by_steps, by_time))
