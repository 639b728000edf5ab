"""Each metric as a function of row weights, many weightings at once.

A bootstrap resample is nothing but a weighting of the rows by how often each was drawn, and so are sample
weights. Written this way a metric is prepared once (sorted, grouped), and then each resample is some sums.

A `Statistic` takes weights (resamples, n) and returns (resamples,); it is NaN where the metric is undefined,
such as AUC for a resample in which one class is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from nbopt.measurement.predictions import Floats, Ints

Statistic = Callable[[Floats], Floats]

_TINIEST_PROBABILITY = float(np.finfo(np.float64).eps)  # as scikit-learn clips float64


def mean(values: Floats, finish: Callable[[Floats], Floats] | None = None) -> Statistic:
    """Weighted mean of a value for each row, then `finish` of it."""

    def statistic(weights: Floats) -> Floats:
        averages: Floats = weights @ values / weights.sum(axis=1)
        return averages if finish is None else finish(averages)

    return statistic


def correctness(y: NDArray[np.generic], scores: Floats) -> Floats:
    """1 for each row whose predicted class (or whole set of labels) is right, else 0."""
    right = predicted(scores, multilabel=y.ndim > 1) == y
    return (right.all(axis=1) if right.ndim > 1 else right).astype(np.float64)


def predicted(scores: Floats, *, multilabel: bool = False) -> Ints:
    """Predicted class numbers: above 0.5 for one column and for labels, the largest score for classes."""
    if multilabel or scores.ndim == 1:
        return (scores > 0.5).astype(np.int64)
    return scores.argmax(axis=1).astype(np.int64)


def cross_entropy(y: Ints, scores: Floats) -> Floats:
    """Negative log likelihood of each row in nats; for multilabel the mean over its labels."""
    clipped = np.clip(scores, _TINIEST_PROBABILITY, 1 - _TINIEST_PROBABILITY)
    if scores.ndim > 1 and y.ndim == 1:
        result: Floats = -np.log(clipped[np.arange(len(y)), y])
        return result
    rows: Floats = -np.where(y == 1, np.log(clipped), np.log1p(-clipped))
    return rows.mean(axis=1) if rows.ndim > 1 else rows


def balanced_accuracy(y: Ints, scores: Floats) -> Statistic:
    """Mean of the recall of each class that occurs."""
    by_class = _Groups(y)
    right = correctness(y, scores)

    def statistic(weights: Floats) -> Floats:
        total = by_class.sums(weights)
        recall = np.divide(
            by_class.sums(weights * right), total, out=np.full_like(total, np.nan), where=total > 0
        )
        return _mean_of_defined(recall)

    return statistic


def f1(y: Ints, scores: Floats) -> Statistic:
    """F1 of class 1 for two classes, else the mean over classes that occur in labels or predictions."""
    guesses = predicted(scores, multilabel=y.ndim > 1)
    if y.ndim > 1:
        return _average([_f1_of(y[:, k], guesses[:, k]) for k in range(y.shape[1])])
    if scores.ndim == 1 or scores.shape[1] == 2:
        return _f1_of(y, guesses)
    classes = int(max(y.max(), guesses.max())) + 1
    by_class, by_guess = _Groups(y, classes), _Groups(guesses, classes)
    right = (guesses == y).astype(np.float64)

    def statistic(weights: Floats) -> Floats:
        union = by_class.sums(weights) + by_guess.sums(weights)
        hits = 2 * by_class.sums(weights * right)
        return _mean_of_defined(np.divide(hits, union, out=np.full_like(union, np.nan), where=union > 0))

    return statistic


def auc(y: Ints, scores: Floats) -> Statistic:
    """Area under the ROC curve; one class against the rest, averaged, where there are more than two."""
    return _one_against_rest(y, scores, _auc_of)


def average_precision(y: Ints, scores: Floats) -> Statistic:
    """Average precision; one class against the rest, averaged, where there are more than two."""
    return _one_against_rest(y, scores, _average_precision_of)


def r2(y: Floats, values: Floats) -> Statistic:
    """Share of the variance explained; the mean over outputs where there are several."""
    truth = y.reshape(len(y), -1)
    truth = truth - truth.mean(axis=0)  # so that the variance below loses no digits
    squared = (y.reshape(len(y), -1) - values.reshape(len(y), -1)) ** 2

    def statistic(weights: Floats) -> Floats:
        total = weights.sum(axis=1, keepdims=True)
        spread = weights @ truth**2 - (weights @ truth) ** 2 / total
        error = weights @ squared
        explained = np.divide(error, spread, out=np.full_like(error, np.nan), where=spread > 1e-12 * total)
        result: Floats = (1 - explained).mean(axis=1)
        return result

    return statistic


class _Groups:
    """Sums of weights over the rows of each group."""

    def __init__(self, numbers: Ints, groups: int | None = None) -> None:
        self.order = np.argsort(numbers, kind="stable")
        self.present, self.starts = np.unique(numbers[self.order], return_index=True)
        self.groups = groups

    def sums(self, weights: Floats) -> Floats:
        found: Floats = np.add.reduceat(weights[:, self.order], self.starts, axis=1)
        if self.groups is None:
            return found
        spread = np.zeros((len(weights), self.groups))
        spread[:, self.present] = found
        return spread


def _f1_of(y: Ints, guesses: Ints) -> Statistic:
    columns = np.stack([(y == 1) & (guesses == 1), y == 1, guesses == 1], axis=1).astype(np.float64)

    def statistic(weights: Floats) -> Floats:
        sums = weights @ columns
        union = sums[:, 1] + sums[:, 2]
        # Neither a positive label nor a positive guess: 0, as scikit-learn's zero_division.
        return np.divide(2 * sums[:, 0], union, out=np.zeros_like(union), where=union > 0)

    return statistic


def _one_against_rest(y: Ints, scores: Floats, of_two: Callable[[Ints, Floats], Statistic]) -> Statistic:
    if scores.ndim == 1:
        return of_two(y, scores)
    if y.ndim > 1:
        return _average([of_two(y[:, k], scores[:, k]) for k in range(scores.shape[1])])
    if scores.shape[1] == 2:
        return of_two(y, scores[:, 1])
    return _average([of_two((y == k).astype(np.int64), scores[:, k]) for k in np.unique(y)])


def _auc_of(y: Ints, scores: Floats) -> Statistic:
    order = np.argsort(scores, kind="stable")
    starts = _tie_starts(scores[order])
    positive = (y[order] == 1).astype(np.float64)

    def statistic(weights: Floats) -> Floats:
        drawn = weights[:, order]
        above = drawn * positive
        below = drawn - above
        if starts is not None:
            above, below = np.add.reduceat(above, starts, axis=1), np.add.reduceat(below, starts, axis=1)
        beaten = np.cumsum(below, axis=1)
        negatives = beaten[:, -1].copy()
        beaten -= 0.5 * below  # a tie is half a win
        wins = np.einsum("ij,ij->i", above, beaten)
        pairs = above.sum(axis=1) * negatives
        return np.divide(wins, pairs, out=np.full_like(wins, np.nan), where=pairs > 0)

    return statistic


def _average_precision_of(y: Ints, scores: Floats) -> Statistic:
    order = np.argsort(-scores, kind="stable")
    starts = _tie_starts(scores[order])
    positive = (y[order] == 1).astype(np.float64)

    def statistic(weights: Floats) -> Floats:
        drawn = weights[:, order]
        hits = drawn * positive
        if starts is not None:
            hits, drawn = np.add.reduceat(hits, starts, axis=1), np.add.reduceat(drawn, starts, axis=1)
        found, seen = np.cumsum(hits, axis=1), np.cumsum(drawn, axis=1)
        positives = found[:, -1].copy()
        precision = np.divide(found, seen, out=found, where=seen > 0)
        area = np.einsum("ij,ij->i", hits, precision)
        return np.divide(area, positives, out=np.full_like(area, np.nan), where=positives > 0)

    return statistic


def _tie_starts(ordered: Floats) -> Ints | None:
    """Return where each run of equal scores starts, or None where no two are equal."""
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    return None if len(starts) == len(ordered) else starts


def _average(statistics: Sequence[Statistic]) -> Statistic:
    def statistic(weights: Floats) -> Floats:
        return _mean_of_defined(np.stack([one(weights) for one in statistics], axis=1))

    return statistic


def _mean_of_defined(values: Floats) -> Floats:
    defined = ~np.isnan(values)
    count = defined.sum(axis=1)
    total = np.where(defined, values, 0.0).sum(axis=1)
    return np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)
