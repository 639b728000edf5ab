"""How much each row moves a metric, and the interval that follows.

A metric is a smooth function of its rows' weights (see `weighted`). Its derivative with respect to one row's
weight, times that weight, is the row's influence; the sum of their squares is the metric's variance: the
infinitesimal jackknife (Jaeckel 1972, Efron 1982). For AUC this is the variance of DeLong et al. (1988). It
costs one sort, where the bootstrap costs a thousand passes.

Each function takes aligned labels, scores and row weights, all (n, ...), and returns influences (n,).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nbopt.measurement.distributions import t_quantile, t_tail
from nbopt.measurement.predictions import Floats, Ints
from nbopt.measurement.weighted import correctness, predicted

Influence = Callable[[NDArray[Any], Floats, Floats], Floats]

_PSEUDO_ROWS = 2.0


def of_mean(rows: Callable[[NDArray[Any], Floats], Floats]) -> Influence:
    """Influence on the weighted mean of a value for each row."""

    def influence(y: NDArray[Any], scores: Floats, weight: Floats) -> Floats:
        values, total = rows(y, scores), weight.sum()
        result: Floats = weight * (values - (weight @ values) / total) / total
        return result

    return influence


def of_root(rows: Callable[[NDArray[Any], Floats], Floats]) -> Influence:
    """Influence on the root of such a mean."""

    def influence(y: NDArray[Any], scores: Floats, weight: Floats) -> Floats:
        root = math.sqrt(float(weight @ rows(y, scores) / weight.sum()))
        linear = of_mean(rows)(y, scores, weight)
        return linear / (2 * root) if root > 0 else np.zeros_like(linear)

    return influence


def of_balanced_accuracy(y: Ints, scores: Floats, weight: Floats) -> Floats:
    """Influence on the mean recall."""
    right = correctness(y, scores)
    total = np.bincount(y, weight)
    recall = np.divide(np.bincount(y, weight * right), total, out=np.zeros_like(total), where=total > 0)
    # Rows of weight 0 may be all that there is of a class.
    share = np.divide(weight, total[y], out=np.zeros_like(weight), where=total[y] > 0)
    result: Floats = share * (right - recall[y]) / (total > 0).sum()
    return result


def of_f1(y: Ints, scores: Floats, weight: Floats) -> Floats:
    """Influence on F1, or on its mean over classes or labels."""
    guesses = predicted(scores, multilabel=y.ndim > 1)
    if y.ndim > 1:
        return np.mean([_of_f1(y[:, k], guesses[:, k], weight) for k in range(y.shape[1])], axis=0)
    if scores.ndim == 1 or scores.shape[1] == 2:
        return _of_f1(y, guesses, weight)
    size = int(max(y.max(), guesses.max())) + 1
    right = (guesses == y).astype(np.float64)
    union = np.bincount(y, weight, size) + np.bincount(guesses, weight, size)
    occurs = union > 0
    each = np.divide(2 * np.bincount(y, weight * right, size), union, out=np.zeros(size), where=occurs)
    inverse = np.divide(1.0, union, out=np.zeros(size), where=occurs)
    moved = 2 * right * inverse[y] - each[y] * inverse[y] - each[guesses] * inverse[guesses]
    result: Floats = weight * moved / occurs.sum()
    return result


def of_auc(y: Ints, scores: Floats, weight: Floats) -> Floats:
    """Influence on AUC, or on its mean over classes or labels."""
    return _one_against_rest(y, scores, weight, _of_auc)


def of_average_precision(y: Ints, scores: Floats, weight: Floats) -> Floats:
    """Influence on average precision, or on its mean over classes or labels."""
    return _one_against_rest(y, scores, weight, _of_average_precision)


def of_r2(y: Floats, values: Floats, weight: Floats) -> Floats:
    """Influence on r2, the mean over outputs."""
    truth, guesses = y.reshape(len(y), -1), values.reshape(len(y), -1)
    away = (truth - weight @ truth / weight.sum()) ** 2
    errors = (truth - guesses) ** 2
    spread, error = weight @ away, weight @ errors
    varies = spread > 0
    moved = (error[varies] * away[:, varies] / spread[varies] - errors[:, varies]) / spread[varies]
    result: Floats = weight * moved.mean(axis=1)
    return result


class Linear:
    """Interval and p-value of an estimate from the influences of independent units.

    The studentized estimate is made symmetric by the cubic transformation of Hall (1992), which corrects for
    the skewness of the influences and stays monotone, and is referred to Student's t. Where only `m` units
    have any influence (rows on which two models differ), two more of the same size are added to the variance,
    as Agresti and Min (2005) do for matched proportions: a handful of changed rows says little of their rate.

    Args:
        influences: Influence of each unit (units,).
    """

    def __init__(self, influences: Floats) -> None:
        squares = float((influences**2).sum())
        self.units = len(influences)
        self.moving = int(np.count_nonzero(influences))
        self.spread = 0.0
        self.skewness = 0.0
        if squares > 0:
            # Scaled first, so that cubes of small influences don't vanish.
            self.skewness = float(((influences / math.sqrt(squares)) ** 3).sum())
            self.spread = math.sqrt(
                squares * self.units / (self.units - 1) * (self.moving + _PSEUDO_ROWS) / self.moving
            )

    def bounds(self, value: float, level: float) -> tuple[float, float]:
        """Return the interval's bounds."""
        reach = t_quantile(0.5 + level / 2, self.units - 1)
        return value - self.spread * self._skewed(reach), value - self.spread * self._skewed(-reach)

    def p_value(self, value: float) -> float:
        """Return the smallest 1 - level whose interval leaves out 0."""
        if self.spread == 0:
            return 1.0 if value == 0 else 0.0
        t, g = value / self.spread, self.skewness
        straight = t + g * t**2 / 3 + g**2 * t**3 / 27 + g / 6
        return min(1.0, 2 * t_tail(abs(straight), self.units - 1))

    def _skewed(self, x: float) -> float:
        g = self.skewness
        return x if abs(g) < 1e-6 else 3 / g * (float(np.cbrt(1 + g * (x - g / 6))) - 1)


def _of_f1(y: Ints, guesses: Ints, weight: Floats) -> Floats:
    truth, guess = (y == 1).astype(np.float64), (guesses == 1).astype(np.float64)
    union = float(weight @ (truth + guess))
    if union == 0:
        return np.zeros(len(y))
    value = 2 * float(weight @ (truth * guess)) / union
    result: Floats = weight * (2 * truth * guess - value * (truth + guess)) / union
    return result


def _one_against_rest(
    y: Ints, scores: Floats, weight: Floats, of_two: Callable[[NDArray[np.bool_], Floats, Floats], Floats]
) -> Floats:
    if scores.ndim == 1:
        return of_two(y == 1, scores, weight)
    if y.ndim == 1 and scores.shape[1] == 2:
        return of_two(y == 1, scores[:, 1], weight)
    total, defined = np.zeros(len(y)), 0
    for k in range(scores.shape[1]):
        positive = y[:, k] == 1 if y.ndim > 1 else y == k
        if (weight @ positive) > 0:
            total += of_two(positive, scores[:, k], weight)
            defined += 1
    return total / max(defined, 1)


def _of_auc(positive: NDArray[np.bool_], scores: Floats, weight: Floats) -> Floats:
    place, ties = _places(scores)
    above, below = weight * positive, weight * ~positive
    positives, negatives = above.sum(), below.sum()
    if positives == 0 or negatives == 0:
        return np.zeros(len(scores))
    above_at, below_at = np.bincount(place, above, ties), np.bincount(place, below, ties)
    # For each score the share of the other class that lies on the right side of it, ties half.
    beaten = (np.cumsum(below_at) - 0.5 * below_at) / negatives
    beating = 1 - (np.cumsum(above_at) - 0.5 * above_at) / positives
    value = float(above_at @ beaten) / positives
    result: Floats = np.where(
        positive, weight * (beaten[place] - value) / positives, weight * (beating[place] - value) / negatives
    )
    return result


def _of_average_precision(positive: NDArray[np.bool_], scores: Floats, weight: Floats) -> Floats:
    place, ties = _places(-scores)
    hits, seen = np.bincount(place, weight * positive, ties), np.bincount(place, weight, ties)
    positives = hits.sum()
    if positives == 0:
        return np.zeros(len(scores))
    depth = np.cumsum(seen)
    depth[depth == 0] = 1.0  # rows of weight 0 on top: nothing was hit there
    precision = np.cumsum(hits) / depth
    value = float(hits @ precision) / positives
    # A row moves the precision at its own score and at every lower one.
    gained = np.cumsum((hits / depth)[::-1])[::-1]
    lost = np.cumsum((hits * precision / depth)[::-1])[::-1]
    moved = np.where(positive, precision[place] - value + gained[place], 0.0) - lost[place]
    result: Floats = weight * moved / positives
    return result


def _places(scores: Floats) -> tuple[Ints, int]:
    """Return for each row the rank of its score among the distinct ones, and their number."""
    distinct, place = np.unique(scores, return_inverse=True)
    return place, len(distinct)
