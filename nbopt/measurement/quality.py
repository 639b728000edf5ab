"""Quality of an artifact's outputs, and how it differs from the baseline's on the same rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nbopt.errors import DataError
from nbopt.frameworks import OutputKind
from nbopt.large import by_slices, slices_of
from nbopt.measurement.collapse import (
    COLLAPSED,
    Symptom,
    find_chance,
    find_constant,
    find_not_finite,
    find_one_class,
)
from nbopt.measurement.intervals import Interval
from nbopt.measurement.metrics import Metric
from nbopt.measurement.padding import at, places_of, weight_at
from nbopt.measurement.predictions import Scored, prepare
from nbopt.measurement.resampling import PairedDifference, paired_difference, quality_interval
from nbopt.measurement.scores import classes_last, not_finite, scores_to_probabilities
from nbopt.measurement.weighted import predicted

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Quality:
    """Hold how good an artifact's outputs are.

    Args:
        value: The metric with its interval; None without labels, and where outputs are NaN or infinite.
        difference: Against the baseline on the same rows; None likewise, or for the baseline itself.
        agreement: Share of rows whose prediction equals the baseline's; None for values.
        max_error: Largest absolute difference of an output from the baseline's; None where that is no number.
        symptom: Why the outputs can't be trusted; None where they can.
    """

    value: Interval | None
    difference: PairedDifference | None
    agreement: float | None
    max_error: float | None
    symptom: Symptom | None = None

    @property
    def warning(self) -> str:
        """Return why the outputs can't be trusted, "" where they can."""
        return "" if self.symptom is None else f"{COLLAPSED}: {self.symptom.what}"


def judge(
    metric: Metric,
    raw: Array,
    y: Array | None,
    weight: Array | None,
    baseline: Array | None,
    *,
    seed: int = 0,
) -> Quality:
    """Judge outputs.

    Outputs of a variant that are NaN or infinite are a finding, not an error: its size and latency are facts. Those
    of the untouched model are an error, since nothing can be compared with them.

    Args:
        metric: From `metric_of`.
        raw: Outputs of the artifact, a row for each reporting row.
        y: Labels, or None. Places that are masked, here or in the outputs, are padding and count nowhere.
        weight: Row weights, or None.
        baseline: Outputs of the untouched model, same rows, or None where this is it.
        seed: Seed of the bootstrap.

    Raises:
        DataError: The untouched model's outputs are NaN, labels don't fit the outputs, or outputs of the variant
            have another number of rows, or another shape, than the untouched model's.
    """
    kind = metric.output
    raw = _in_shape_of(raw, y, baseline)
    broken = None if baseline is None else find_not_finite(raw, kind, baseline)
    if y is not None:
        raw = classes_last(raw, y, kind)
        baseline = None if baseline is None else classes_last(baseline, y, kind)
    places, rows = places_of(y, [raw] if baseline is None else [raw, baseline]), None
    if places is not None:
        rows, weight, raw = np.nonzero(places)[0], weight_at(places, weight), at(places, raw)
        y = None if y is None else at(places, y)
        baseline = None if baseline is None else at(places, baseline)
    if baseline is None:
        if y is None:
            return Quality(None, None, None, None)
        return Quality(_interval(metric, prepare(y, raw, kind, weight, rows), seed), None, None, None)
    if broken is not None:
        return Quality(None, None, _agreement(raw, baseline, kind), None, broken)
    agreement, error = _agreement(raw, baseline, kind), _largest_error(raw, baseline)
    symptom = find_constant(raw, baseline)
    if y is None:
        return Quality(None, None, agreement, error, symptom or _one_class(raw, baseline, kind))
    scored, base = (prepare(y, each, kind, weight, rows) for each in (raw, baseline))
    value = _interval(metric, scored, seed)
    difference = paired_difference(
        metric, scored.y, base.scores, scored.scores, weight=scored.weight, groups=scored.groups, rng=seed
    )
    change = difference.interval
    if symptom is None and (metric.needs == "labels" or (_fell(change, metric) and not _ranks(metric, scored))):
        symptom = _one_class(raw, baseline, kind)
    if symptom is None and _fell(change, metric):
        symptom = find_chance(metric, scored, value, change, _interval(metric, base, seed), baseline)
    return Quality(value, difference, agreement, error, symptom)


def _in_shape_of(raw: Array, y: Array | None, baseline: Array | None) -> Array:
    """Return outputs whose rows are those of the labels and whose shape is the baseline's; NumPy would broadcast."""
    rows = len(baseline) if baseline is not None else None if y is None else len(y)
    if raw.ndim == 0 or (rows is not None and len(raw) != rows):
        raise DataError(
            "an output row for each reporting row" + ("" if rows is None else f" ({rows:,})"),
            f"outputs of shape {raw.shape}",
            "the exported file does not keep the batch axis: try another runtime, or a model whose first axis is it",
        )
    if baseline is None or raw.shape == baseline.shape:
        return raw
    if [size for size in raw.shape[1:] if size != 1] != [size for size in baseline.shape[1:] if size != 1]:
        raise DataError(
            f"outputs in the shape of the untouched model's, {baseline.shape}",
            f"outputs of shape {raw.shape}",
            "try another runtime, or a technique that keeps the last layer",
        )
    return raw.reshape(baseline.shape)


def _interval(metric: Metric, scored: Scored, seed: int) -> Interval:
    return quality_interval(metric, scored.y, scored.scores, weight=scored.weight, groups=scored.groups, rng=seed)


def _fell(change: Interval, metric: Metric) -> bool:
    return change.high < 0 if metric.greater_is_better else change.low > 0


def _ranks(metric: Metric, scored: Scored) -> bool:
    """Tell whether a metric never asks on which side of 0.5 a score lies, as auc of two classes does.

    Of a rare class all scores may lie below it, before and after: a small loss of auc is that, and no collapse.
    """
    two = scored.scores.ndim == 1 or scored.scores.shape[-1] == 2
    return two and metric.needs == "scores" and metric.formula is not None


def _agreement(raw: Array, baseline: Array, kind: OutputKind) -> float | None:
    """Return the share of equal predictions; a row that is not a number agrees with nothing."""
    if kind == "regression":
        return None

    def alike(now: Array, before: Array) -> Array:
        bad = not_finite(now, kind)
        shape = (len(bad), *[1] * (now.ndim - 1))
        # Whatever the baseline gave is a valid output: in place of what is none, it lets the others be read.
        same = classes_of(np.where(bad.reshape(shape), before, now), kind) == classes_of(before, kind)
        same[bad] = False
        return same

    return float(np.mean(by_slices(alike, raw, baseline)))


def _largest_error(raw: Array, baseline: Array) -> float | None:
    if not raw.size:
        return 0.0

    def largest(part: slice) -> float:
        now, before = raw[part].astype(np.float64), baseline[part].astype(np.float64)
        # A mask's -infinity equals itself, while its difference is no number.
        return float(np.max(np.where(now == before, 0.0, np.abs(now - before))))

    with np.errstate(invalid="ignore"):
        error = float(np.max([largest(part) for part in slices_of(raw)]))
    return error if np.isfinite(error) else None


def _one_class(raw: Array, baseline: Array, kind: OutputKind) -> Symptom | None:
    if kind == "regression":
        return None
    return find_one_class(classes_of(raw, kind), classes_of(baseline, kind), baseline)


def classes_of(raw: Array, kind: OutputKind) -> Array:
    """Return the predicted class of each row (or a 0/1 for each label)."""

    def predict(rows: Array) -> Array:
        scores = scores_to_probabilities(rows, kind)
        return np.asarray(predicted(scores, multilabel=kind.startswith(("multilabel", "binary"))))

    return by_slices(predict, np.asarray(raw))
