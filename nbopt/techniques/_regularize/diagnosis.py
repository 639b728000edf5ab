"""Whether a model is overfitted: better on what it was trained on than on rows it never saw, by more than chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nbopt.arrays import to_numpy
from nbopt.batches import numeric_inputs
from nbopt.draft import Context
from nbopt.drawing import drawn
from nbopt.errors import DataError
from nbopt.frozen import IGNORE_LABEL, join_ragged
from nbopt.measurement.intervals import Interval, difference_of
from nbopt.measurement.metrics import Metric, metric_of
from nbopt.measurement.predictions import Scored, prepare
from nbopt.measurement.resampling import quality_interval
from nbopt.measurement.scores import Floats
from nbopt.measurement.weighted import cross_entropy, squared_error

MOST_ROWS = 5000
"""Rows of either split that are looked at: of accuracy they tell a gap of 1.5 points."""
UNTRAINED = 0.98
"""A loss of at least this share of the best constant's is that of a model which has learned nothing yet."""

TINY = 1e-12
ROUNDS = 50
"""Each brings the means of probabilities nearer to the classes' shares, those of sure models slowly."""


@dataclass(frozen=True)
class Diagnosis:
    """Hold the quality on both splits and the gap between them.

    Args:
        metric: What quality is.
        train: On rows of train.
        valid: On rows of the selection split.
        rows: How many rows of either.
        split: What the selection split is called.
        untrained: The model does no better on train than a constant.
    """

    metric: Metric
    train: Interval
    valid: Interval
    rows: tuple[int, int]
    split: str
    untrained: bool = False

    @property
    def gap(self) -> Interval:
        """Return how much better quality is on train, above 0 for overfitting, with its interval."""
        one, other = (self.train, self.valid) if self.metric.greater_is_better else (self.valid, self.train)
        return difference_of(one, other)

    @property
    def overfitted(self) -> bool:
        """Tell whether the whole interval of the gap lies above 0."""
        return self.gap.low > 0

    @property
    def text(self) -> str:
        """Return the figures as a sentence."""
        gap = f"{self.gap.scaled(100).text()} pt" if self.metric.bounded else self.gap.text()
        verdict = "overfitted" if self.overfitted else "not overfitted"
        on = [
            f"{self._value(value)} on {rows:,} rows of {name}"
            for value, rows, name in zip((self.train, self.valid), self.rows, ("train", self.split), strict=True)
        ]
        return f"{verdict}: {self.metric.name} {' and '.join(on)}, a gap of {gap}"

    def _value(self, interval: Interval) -> str:
        return f"{100 * interval.value:.1f}" if self.metric.bounded else f"{interval.value:.4g}"


def diagnose(model: Any, context: Context, most: int = MOST_ROWS) -> Diagnosis:
    """Return how far apart a model's quality is on train and on the selection rows.

    The rows differ, so that the interval of the gap is that of two independent samples (see `difference_of`). Row
    weights count where both splits have them.

    Args:
        model: The framework's model, in evaluation mode.
        context: Whose data, metric and framework serve.
        most: Rows of either split at most.

    Raises:
        DataError: A split has no labels, or the metric is undefined on its rows.
    """
    workload = context.workload
    metric = metric_of(workload.metric, output=workload.output)
    frozen = workload.select_rows
    if workload.train is None or frozen.targets is None:
        missing = "train data" if workload.train is None else f"labels in {workload.select.name}"
        raise DataError(
            "train and validation data with labels, between which a gap tells of overfitting",
            f"no {missing}",
            "Workload(model, train=(x, y), valid=(x, y))",
        )
    # Drawn from all: they may be sorted by class.
    few = drawn(frozen, most, context.rng())
    assert few.targets is not None
    outputs = join_ragged([workload.framework.predict(model, inputs) for inputs in few.batches()])
    heard, targets, weights = _of_train(model, context, most)
    weighted = weights is not None and frozen.weight is not None
    valid = prepare(few.targets, outputs, metric.output, few.weight if weighted else None)
    train = prepare(targets, heard, metric.output, weights if weighted else None)
    return Diagnosis(
        metric,
        _interval(metric, train, context.seed),
        _interval(metric, valid, context.seed),
        (len(heard), len(outputs)),
        workload.select.name,
        untrained=no_better_than_a_constant(train),
    )


def _of_train(model: Any, context: Context, most: int) -> tuple[Any, Any, Any]:
    """Return outputs, labels and weights of rows of train."""
    workload, framework = context.workload, context.workload.framework
    assert workload.train is not None
    dtype = framework.float_dtype(model)
    outputs: list[Any] = []
    targets: list[Any] = []
    weights: list[Any] = []
    for batch in workload.train.some(most, 256, context.rng()):
        if batch.targets is None:
            raise DataError("labels in train", "batches without", "give (x, y), or a dict with 'labels'")
        outputs.append(framework.predict(model, numeric_inputs(batch.inputs, dtype)))
        targets.append(to_numpy(batch.targets))
        if batch.weight is not None:
            weights.append(to_numpy(batch.weight))
    weight = join_ragged(weights) if len(weights) == len(outputs) else None
    return join_ragged(outputs), join_ragged(targets, IGNORE_LABEL), weight


def _interval(metric: Metric, scored: Scored, seed: int) -> Interval:
    return quality_interval(
        metric, scored.y, scored.scores, weight=scored.weight, groups=scored.groups, rng=np.random.default_rng(seed)
    )


def no_better_than_a_constant(scored: Scored) -> bool:
    """Tell whether a model's loss is that of the best constant: of the classes' shares, or of the mean.

    Probabilities are brought to the classes' shares first: who weighs rare classes in the loss shifts them, and the
    model has learned all the same.
    """
    y, scores = scored.y, scored.scores
    if y.dtype.kind == "f":
        spread = float(((y - y.mean(0)) ** 2).mean())
        return float(squared_error(y, scores).mean()) >= UNTRAINED * spread
    if y.ndim > 1 or scores.ndim == 1:
        shares = np.clip(y.mean(0), TINY, 1 - TINY)
        entropy = -(shares * np.log(shares) + (1 - shares) * np.log1p(-shares))
        least = UNTRAINED * float(np.mean(entropy))
    else:
        shares = np.clip(np.bincount(y, minlength=scores.shape[-1]) / len(y), TINY, 1)
        least = UNTRAINED * float(-(shares * np.log(shares)).sum())
    loss = float(cross_entropy(y, scores).mean())
    return loss >= least and float(cross_entropy(y, _in_shares(scores, shares, y)).mean()) >= least


def _in_shares(scores: Floats, shares: Any, y: Any) -> Floats:
    """Return probabilities whose logits are moved, class by class, until their means are the classes' shares."""
    scores = np.clip(scores, TINY, 1 - TINY)
    if scores.ndim > y.ndim:
        for _ in range(ROUNDS):
            scores = scores * (shares / scores.mean(0))
            scores = scores / scores.sum(-1, keepdims=True)
        return scores
    wanted, odds = shares / (1 - shares), scores / (1 - scores)
    for _ in range(ROUNDS):
        mean = (odds / (1 + odds)).mean(0)
        odds = odds * (wanted * (1 - mean) / mean)
    found: Floats = odds / (1 + odds)
    return found
