"""Each metric as a function of row weights: its value, and how much each row moves it.

A metric is a smooth function of its rows' weights. Its derivative with respect to one row's weight, times that
weight, is the row's influence, and the sum of the influences' squares is the metric's variance: the
infinitesimal jackknife (Jaeckel 1972; Efron 1982). For AUC that is the variance of DeLong et al. (1988). It
costs one sort, where a bootstrap costs a thousand.

Each function takes aligned labels, scores and row weights (see `predictions.Scored`) and returns a `Weighed`,
whose value is NaN where the metric is undefined.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import wraps
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nbopt.large import by_slices
from nbopt.measurement.predictions import Ints
from nbopt.measurement.scores import Floats

Truths = NDArray[Any]
Rows = Callable[[Truths, Floats], Floats]
Mask = NDArray[np.bool_]

_TINIEST_PROBABILITY = float(np.finfo(np.float64).eps)  # as scikit-learn clips float64


@dataclass(frozen=True)
class Weighed:
    """Hold a metric's value and the influence (n,) of each row on it."""

    value: float
    influence: Floats


Formula = Callable[[Truths, Floats, Floats], Weighed]


def predicted(scores: Floats, *, multilabel: bool = False) -> Ints:
    """Return predicted class numbers: above 0.5 for one column and for labels, the largest score for classes."""
    if multilabel or scores.ndim == 1:
        return (scores > 0.5).astype(np.int64)
    return scores.argmax(axis=-1).astype(np.int64)


def _in_slices(rows: Rows) -> Rows:
    """Return a function that looks at rows one by one, for many rows."""

    @wraps(rows)
    def sliced(y: Truths, scores: Floats) -> Floats:
        return by_slices(rows, y, scores)

    return sliced


@_in_slices
def correctness(y: Truths, scores: Floats) -> Floats:
    """Return 1 for each row whose predicted class (or whole set of labels) is right, else 0."""
    right = predicted(scores, multilabel=y.ndim > 1) == y
    return (right.all(axis=1) if right.ndim > 1 else right).astype(np.float64)


@_in_slices
def cross_entropy(y: Truths, scores: Floats) -> Floats:
    """Return the negative log likelihood of each row in nats; for multilabel the mean over its labels."""
    clipped = np.clip(scores, _TINIEST_PROBABILITY, 1 - _TINIEST_PROBABILITY)
    if scores.ndim > 1 and y.ndim == 1:
        result: Floats = -np.log(clipped[np.arange(len(y)), y])
        return result
    rows: Floats = -np.where(y == 1, np.log(clipped), np.log1p(-clipped))
    return rows.mean(axis=1) if rows.ndim > 1 else rows


@_in_slices
def squared_error(y: Truths, values: Floats) -> Floats:
    """Return the squared error of each row, the mean over its outputs."""
    errors: Floats = (y - values) ** 2
    return errors.mean(axis=1) if errors.ndim > 1 else errors


@_in_slices
def absolute_error(y: Truths, values: Floats) -> Floats:
    """Return the absolute error of each row, the mean over its outputs."""
    errors: Floats = np.abs(y - values)
    return errors.mean(axis=1) if errors.ndim > 1 else errors


def mean_of(rows: Rows) -> Formula:
    """Return the formula of the weighted mean of what rows contribute."""

    def formula(y: Truths, scores: Floats, weight: Floats) -> Weighed:
        values, total = rows(y, scores), float(weight.sum())
        value = float(weight @ values) / total
        return Weighed(value, weight * (values - value) / total)

    return formula


def root_mean_of(rows: Rows) -> Formula:
    """Return the formula of the root of such a mean."""

    def formula(y: Truths, scores: Floats, weight: Floats) -> Weighed:
        square = mean_of(rows)(y, scores, weight)
        root = math.sqrt(square.value)
        return Weighed(root, square.influence / (2 * root) if root > 0 else np.zeros(len(y)))

    return formula


def balanced_accuracy(y: Ints, scores: Floats, weight: Floats) -> Weighed:
    """Weigh the mean of the recall of each class that occurs."""
    right = correctness(y, scores)
    total = np.bincount(y, weight)
    occurs = total > 0
    inverse = np.divide(1.0, total, out=np.zeros_like(total), where=occurs)
    recall = np.bincount(y, weight * right) * inverse
    classes = int(occurs.sum())
    return Weighed(float(recall.sum()) / classes, weight * (right - recall[y]) * inverse[y] / classes)


def f1(y: Ints, scores: Floats, weight: Floats) -> Weighed:
    """Weigh F1 of class 1 for two classes, else the mean over classes that occur in labels or predictions."""
    guesses = predicted(scores, multilabel=y.ndim > 1)
    if y.ndim > 1:
        return _average((_f1_of_two(y[:, k], guesses[:, k], weight) for k in range(y.shape[1])), len(y))
    if scores.ndim == 1 or scores.shape[1] == 2:
        return _f1_of_two(y, guesses, weight)
    size = int(max(y.max(), guesses.max())) + 1
    right = (guesses == y).astype(np.float64)
    union = np.bincount(y, weight, size) + np.bincount(guesses, weight, size)
    occurs = union > 0
    inverse = np.divide(1.0, union, out=np.zeros(size), where=occurs)
    each = 2 * np.bincount(y, weight * right, size) * inverse
    moved = 2 * right * inverse[y] - (each * inverse)[y] - (each * inverse)[guesses]
    classes = int(occurs.sum())
    return Weighed(float(each.sum()) / classes, weight * moved / classes)


def auc(y: Ints, scores: Floats, weight: Floats) -> Weighed:
    """Weigh the area under the ROC curve; with more than two classes each against the rest, averaged."""
    return _one_against_rest(y, scores, weight, _auc_of_two)


def average_precision(y: Ints, scores: Floats, weight: Floats) -> Weighed:
    """Weigh average precision; with more than two classes each against the rest, averaged."""
    return _one_against_rest(y, scores, weight, _average_precision_of_two)


def r2(y: Floats, values: Floats, weight: Floats) -> Weighed:
    """Weigh the share of variance explained; the mean over outputs where there are several."""
    truth, guesses = y.reshape(len(y), -1), values.reshape(len(y), -1)
    away = (truth - weight @ truth / weight.sum()) ** 2
    errors = (truth - guesses) ** 2
    spread, error = weight @ away, weight @ errors
    # A constant target leaves rounding noise for a variance.
    if (spread <= 1e-24 * np.maximum(weight @ truth**2, 1e-300)).any():
        return Weighed(math.nan, np.zeros(len(y)))
    moved = (error * away / spread - errors) / spread
    return Weighed(float((1 - error / spread).mean()), weight * moved.mean(axis=1))


def _f1_of_two(y: Ints, guesses: Ints, weight: Floats) -> Weighed:
    truth, guess = (y == 1).astype(np.float64), (guesses == 1).astype(np.float64)
    union = float(weight @ (truth + guess))
    if union == 0:  # neither a positive label nor a positive guess: 0, as scikit-learn's zero_division
        return Weighed(0.0, np.zeros(len(y)))
    value = 2 * float(weight @ (truth * guess)) / union
    return Weighed(value, weight * (2 * truth * guess - value * (truth + guess)) / union)


def _one_against_rest(
    y: Ints, scores: Floats, weight: Floats, of_two: Callable[[Mask, Floats, Floats], Weighed]
) -> Weighed:
    if scores.ndim == 1:
        return of_two(y == 1, scores, weight)
    if y.ndim > 1:
        pairs = ((y[:, k] == 1, scores[:, k]) for k in range(scores.shape[1]))
    elif scores.shape[1] == 2:
        return of_two(y == 1, scores[:, 1], weight)
    else:
        pairs = ((y == k, scores[:, k]) for k in range(scores.shape[1]))
    return _average((of_two(positive, column, weight) for positive, column in pairs), len(y))


def _average(parts: Iterable[Weighed], rows: int) -> Weighed:
    """Return the mean over those classes or labels for which the metric is defined."""
    total, influence, count = 0.0, np.zeros(rows), 0
    for part in parts:
        if not math.isnan(part.value):
            total, influence, count = total + part.value, influence + part.influence, count + 1
    return Weighed(total / count, influence / count) if count else Weighed(math.nan, influence)


def _auc_of_two(positive: Mask, scores: Floats, weight: Floats) -> Weighed:
    place, ties = _places(scores)
    above_at = np.bincount(place, weight * positive, ties)
    below_at = np.bincount(place, weight * ~positive, ties)
    positives, negatives = float(above_at.sum()), float(below_at.sum())
    if positives == 0 or negatives == 0:
        return Weighed(math.nan, np.zeros(len(scores)))
    # For each score the share of the other class that lies on the right side of it; a tie is half a win.
    beaten = (np.cumsum(below_at) - 0.5 * below_at) / negatives
    beating = 1 - (np.cumsum(above_at) - 0.5 * above_at) / positives
    value = float(above_at @ beaten) / positives
    moved = np.where(positive, (beaten[place] - value) / positives, (beating[place] - value) / negatives)
    return Weighed(value, weight * moved)


def _average_precision_of_two(positive: Mask, scores: Floats, weight: Floats) -> Weighed:
    place, ties = _places(-scores)
    hits, seen = np.bincount(place, weight * positive, ties), np.bincount(place, weight, ties)
    positives = float(hits.sum())
    if positives == 0 or positives == float(weight.sum()):
        return Weighed(math.nan, np.zeros(len(scores)))
    depth = np.cumsum(seen)
    depth[depth == 0] = 1.0  # rows of weight 0 on top: nothing was hit there
    precision = np.cumsum(hits) / depth
    value = float(hits @ precision) / positives
    # A row moves the precision at its own score and at every lower one.
    gained = np.cumsum((hits / depth)[::-1])[::-1]
    lost = np.cumsum((hits * precision / depth)[::-1])[::-1]
    moved = np.where(positive, precision[place] - value + gained[place], 0.0) - lost[place]
    return Weighed(value, weight * moved / positives)


def _places(scores: Floats) -> tuple[Ints, int]:
    """Return for each row the rank of its score among the distinct ones, and their number."""
    distinct, place = np.unique(scores, return_inverse=True)
    return place.reshape(-1), len(distinct)
