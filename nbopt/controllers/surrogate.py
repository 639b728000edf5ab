"""A Gaussian process over candidates, and the one of which most is to be expected: for few, costly candidates.

The kernel is a product over dimensions of exp(-weight * distance): 0 or 1 between options without an order, the share
of the range between those with one. Weights and noise are chosen by the marginal likelihood. Bad scores are drawn in:
how bad a bad candidate is tells nothing of the good ones, and one that learns nothing would be the whole spread.

Optuna's GPSampler has the same idea. It can't leave out beforehand what a latency table excludes, needs torch, which a
user of Keras has not, and fits scores as they are. Trials to random search's best of 100 on the tables of NAS-Bench-201
(CIFAR-10, CIFAR-100, ImageNet-16), medians: this 18, 18 and 21 (40 seeds), some 5 ms a trial; GPSampler 22, 18 and
18, at 30 to 40 ms, and a tenth of its searches were not there after 50; Optuna's TPE 26, 28 and 31.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from nbopt.controllers.grid import AT_ONCE, Allowed, Array, Grid, History, Settings, Untried, starting

FIRST = 5
"""Candidates before it learns: each option of five once. Ten, which Optuna takes, cost a third of a search of 30."""

MOST = 400
"""Candidates that are fitted, the best and the latest: the cost grows with their cube, 400 take half a second."""

PARENTS = 5
"""Best candidates whose neighbours are looked at beside a draw, where the space is too large to look at all of it."""

DEEP = 2.0
"""How far below the median a score may lie, in distances from the median to the best; the rest is drawn in to this."""

WEIGHTS = (0.05, 0.1, 0.2, 0.4, 0.8)
NOISES = (1e-3, 1e-2, 1e-1)


class Surrogate:
    """Fit a Gaussian process to what was tried; propose where the expected improvement is greatest.

    Args:
        grid: The space.
        seed: Seed of its draws.
        allowed: Tells which settings may be tried; None allows all.
        first: Candidates of a balanced draw before it learns, 2 or more.
    """

    def __init__(self, grid: Grid, *, seed: int = 0, allowed: Allowed | None = None, first: int = FIRST) -> None:
        self._grid, self._seed, self._allowed = grid, seed, allowed
        self._untried = Untried(grid, allowed)
        self._planned = starting(grid, seed, first)

    def propose(self, history: History) -> Settings | None:
        """Return a setting that was not tried; None where none is left to be found."""
        rng = np.random.default_rng([self._seed, 4, len(history.began)])
        if len(history.began) < len(self._planned):
            planned = self._untried.first(history, self._planned)
            if planned is not None:
                return planned
        pool = self._pool(history, rng)
        if not len(pool):
            return None
        good = np.isfinite(history.scores)
        if good.sum() < 2 or np.ptp(history.scores[good]) <= 0:
            return pool[int(rng.integers(len(pool)))]
        settings, scores = self._told(history)
        known = drawn_in(scores)
        fitted = replace(fit(self._grid, settings, known), best=self._best(settings, known))
        return pool[int(np.argmax(fitted.improvement(pool)))]

    def _best(self, settings: Settings, scores: Array) -> float:
        """Return what is to be improved on; a better one that is not allowed, as an earlier search saw, is no rival."""
        within = np.ones(len(scores), bool) if self._allowed is None else self._allowed(settings)
        return float(scores[within].max() if within.any() else scores.max())

    def _pool(self, history: History, rng: np.random.Generator) -> Settings:
        """Return what is looked at: the whole of a small space, else a draw and the neighbours of the best."""
        pool = self._untried.some(history, rng, AT_ONCE // 4)
        if self._grid.size <= AT_ONCE or not len(history):
            return pool
        best = history.settings[np.argsort(-history.filled(), kind="stable")[:PARENTS]]
        near = np.concatenate([self._grid.beside(setting) for setting in best])
        # Two steps away: where all neighbours were tried, or none is better, the next best lies there.
        far = near[rng.permutation(len(near))[:AT_ONCE]].copy()
        at = rng.integers(far.shape[1], size=len(far))
        far[np.arange(len(far)), at] = rng.integers(0, np.asarray(self._grid.sizes)[at])
        return self._untried.among(np.concatenate([pool, near, far]), history)

    def _told(self, history: History) -> tuple[Settings, Array]:
        """Return what is fitted. What is under way counts as middling, so that two processes look apart."""
        settings, scores = history.settings, history.filled()
        if len(scores) > MOST:
            best = np.argsort(-scores, kind="stable")[: MOST // 2]
            kept = np.union1d(best, np.arange(len(scores) - MOST // 2, len(scores)))
            settings, scores = settings[kept], scores[kept]
        if history.pending is None or not len(history.pending):
            return settings, scores
        middling = np.full(len(history.pending), np.median(scores))
        return np.vstack([settings, history.pending]), np.concatenate([scores, middling])


def drawn_in(scores: Array) -> Array:
    """Return scores with mean 0 and spread 1, the bad ones no further below the median than `DEEP` says."""
    middle = float(np.median(scores))
    kept = np.maximum(scores, middle - DEEP * (float(scores.max()) - middle))
    spread = float(kept.std())
    return np.asarray((kept - kept.mean()) / (spread if spread > 0 else 1.0))


@dataclass(frozen=True)
class Fitted:
    """Hold a Gaussian process that was fitted.

    Args:
        grid: The space.
        settings: What was tried.
        weights: How fast a dimension's options grow apart.
        factor: Cholesky factor of the kernel with the noise.
        solved: The scores, solved with it.
        scale: Variance of the process.
        best: Best of the scores.
    """

    grid: Grid
    settings: Settings
    weights: Array
    factor: Array
    solved: Array
    scale: float
    best: float

    def predict(self, settings: Settings) -> tuple[Array, Array]:
        """Return the mean and the standard deviation of what settings would score."""
        near = np.exp(-(self.grid.distances(settings, self.settings) @ self.weights))
        reduced = np.linalg.solve(self.factor, near.T)
        variance = self.scale * np.maximum(1 - (reduced**2).sum(0), 1e-12)
        return np.asarray(reduced.T @ self.solved), np.sqrt(variance)

    def improvement(self, settings: Settings) -> Array:
        """Return how much above the best so far settings can be expected to score."""
        mean, spread = self.predict(settings)
        gap = (mean - self.best) / spread
        below = 0.5 * (1 + _erf(gap / math.sqrt(2)))
        density = np.exp(-0.5 * gap**2) / math.sqrt(2 * math.pi)
        return np.asarray(spread * (gap * below + density))


def fit(grid: Grid, settings: Settings, scores: Array) -> Fitted:
    """Fit a Gaussian process: weights and noise by the marginal likelihood, first alike for all dimensions, then each.

    Args:
        grid: The space.
        settings: What was tried, each once.
        scores: Their scores, of mean 0.
    """
    apart = grid.distances(settings, settings)
    count, dimensions = len(scores), len(grid.sizes)

    def likelihood(weights: Array, noise: float) -> float:
        factor = np.linalg.cholesky(np.exp(-(apart @ weights)) + noise * np.eye(count))
        solved = np.linalg.solve(factor, scores)
        scale = max(float(solved @ solved) / count, 1e-12)
        # Weak priors: of ten points the likelihood alone would call a dimension without effect, or all of it noise.
        prior = 0.5 * ((np.log(noise) - np.log(1e-2)) / 1.5) ** 2 + 0.25 * ((np.log(weights) - np.log(0.3)) ** 2).sum()
        return -0.5 * count * math.log(scale) - float(np.log(np.diag(factor)).sum()) - float(prior)

    found = max(
        (likelihood(np.full(dimensions, weight), noise), weight, noise) for weight in WEIGHTS for noise in NOISES
    )
    best, weights, noise = found[0], np.full(dimensions, found[1]), found[2]
    for _ in range(2):
        for at in range(dimensions):
            for step in (1 / 3, 3.0):
                other = weights.copy()
                other[at] *= step
                value = likelihood(other, noise)
                if value > best:
                    best, weights = value, other
        for step in (1 / 3, 3.0):
            value = likelihood(weights, noise * step)
            if value > best:
                best, noise = value, noise * step
    factor = np.linalg.cholesky(np.exp(-(apart @ weights)) + noise * np.eye(count))
    solved = np.linalg.solve(factor, scores)
    scale = max(float(solved @ solved) / count, 1e-12)
    return Fitted(grid, settings, weights, factor, solved, scale, float(scores.max()))


def _erf(values: Array) -> Array:
    """Return the error function, within 1.5e-7 (Abramowitz and Stegun 7.1.26): NumPy has none."""
    size = np.abs(values)
    t = 1 / (1 + 0.3275911 * size)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    return np.asarray(np.sign(values) * (1 - series * np.exp(-(size**2))))
