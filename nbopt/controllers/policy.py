"""A policy gradient (REINFORCE, Williams 1992; over architectures Zoph and Le 2017, arXiv 1611.01578)."""

from __future__ import annotations

import numpy as np

from nbopt.controllers.grid import Allowed, Array, Grid, History, Settings, Untried
from nbopt.controllers.relaxed import softmax

RATE = 0.5
"""Step of the logits. A whole spread of scores above the mean raises the odds of what was drawn by two thirds."""

ENTROPY = 0.02
"""Weight of the entropy, which keeps options alive that were not lucky at first."""

FORGETTING = 0.95
"""Share of the baseline that stays at each candidate: it looks back on about twenty."""


class Policy:
    """Draw each dimension by odds of its own, raised where a candidate scored above the mean of those before it.

    It needs hundreds of candidates: it is for a network that shares its weights among them.

    Args:
        grid: The space.
        seed: Seed of its draws.
        allowed: Tells which settings may be tried; None allows all.
        rate: Step of the logits, above 0.
        entropy: Weight of the entropy, 0 or more.
    """

    def __init__(
        self,
        grid: Grid,
        *,
        seed: int = 0,
        allowed: Allowed | None = None,
        rate: float = RATE,
        entropy: float = ENTROPY,
    ) -> None:
        self._grid, self._seed, self._untried = grid, seed, Untried(grid, allowed)
        self._rate, self._entropy = rate, entropy
        self._forget()

    def _forget(self) -> None:
        self._logits = [np.zeros(size) for size in self._grid.sizes]
        self._mean = self._square = 0.0
        self._worst = 0.0
        self._seen = np.zeros((0, len(self._grid.sizes)), np.int64)

    def odds(self, history: History) -> list[Array]:
        """Return, for each dimension, how likely each option is after all that was tried."""
        known = len(self._seen)
        # What was learnt is kept, or a search of thousands would go through all of it at each candidate.
        if len(history) < known or not np.array_equal(history.settings[:known], self._seen):
            self._forget()
            known = 0
        for count in range(known, len(history)):
            self._learn(count, history.settings[count], float(history.scores[count]))
        self._seen = history.settings
        return [softmax(row) for row in self._logits]

    def _learn(self, count: int, setting: Settings, score: float) -> None:
        """Raise the odds of a setting that scored above the mean, lower those of one below."""
        if not np.isfinite(score):
            score = self._worst
        self._worst = min(self._worst, score) if count else score
        spread = np.sqrt(max(self._square - self._mean**2, 0.0))
        # Bounded: one candidate that does not learn at all must not decide a dimension for good.
        gain = float(np.clip((score - self._mean) / spread, -2, 2)) if count and spread > 1e-12 else 0.0
        step = self._rate * gain / len(self._logits) ** 0.5
        for row, place in zip(self._logits, setting.tolist(), strict=True):
            chances = softmax(row)
            # Of log p(drawn) the gradient is the drawn one less p, of the entropy -p (log p + entropy).
            logs = np.log(np.maximum(chances, 1e-12))
            np.subtract(row, self._entropy * chances * (logs - (chances * logs).sum()) + step * chances, out=row)
            row[place] += step
        share = max(1 / (count + 1), 1 - FORGETTING)
        self._mean += share * (score - self._mean)
        self._square += share * (score**2 - self._square)

    def propose(self, history: History) -> Settings | None:
        """Return a setting that was not tried; None where none is left to be found."""
        rng = np.random.default_rng([self._seed, 3, len(history.began)])
        if not len(history.began) and self._grid.start is not None:
            start = self._untried.first(history, np.asarray(self._grid.start, np.int64)[None])
            if start is not None:
                return start
        odds = self.odds(history)
        drawn = np.stack([rng.choice(len(chances), size=256, p=chances) for chances in odds], axis=1)
        left = self._untried.among(drawn, history)
        if not len(left):
            left = self._untried.some(history, rng)
        return left[0] if len(left) else None
