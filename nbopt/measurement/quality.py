"""Quality of an artifact's outputs, and how it differs from the baseline's on the same rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nbopt.frameworks import OutputKind
from nbopt.measurement.intervals import Interval
from nbopt.measurement.metrics import Metric
from nbopt.measurement.predictions import prepare, scores_to_probabilities
from nbopt.measurement.resampling import PairedDifference, paired_difference, quality_interval
from nbopt.measurement.weighted import predicted

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Quality:
    """Hold how good an artifact's outputs are.

    Args:
        value: The metric with its interval; None without labels.
        difference: Against the baseline on the same rows; None without labels or for the baseline itself.
        agreement: Share of rows whose prediction equals the baseline's; None for values.
        max_error: Largest absolute difference of an output from the baseline's.
        warning: Why the outputs can't be trusted: NaN, one class, constant; "" otherwise.
    """

    value: Interval | None
    difference: PairedDifference | None
    agreement: float | None
    max_error: float | None
    warning: str = ""


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

    Args:
        metric: From `metric_of`.
        raw: Outputs of the artifact, a row for each reporting row.
        y: Labels, or None.
        weight: Row weights, or None.
        baseline: Outputs of the untouched model, same rows, or None where this is it.
        seed: Seed of the bootstrap.

    Raises:
        DataError: Outputs are NaN, or labels don't fit them.
    """
    kind = metric.output
    value = difference = agreement = error = None
    if baseline is not None:
        error = float(np.max(np.abs(raw.astype(np.float64) - baseline.astype(np.float64)))) if raw.size else 0.0
        if kind != "regression":
            same = classes_of(raw, kind) == classes_of(baseline, kind)
            agreement = float(np.mean(same))
    if y is not None:
        scored = prepare(y, raw, kind, weight)
        value = quality_interval(metric, scored.y, scored.scores, weight=scored.weight, groups=scored.groups, rng=seed)
        if baseline is not None:
            base = prepare(y, baseline, kind, weight)
            difference = paired_difference(
                metric, scored.y, base.scores, scored.scores, weight=scored.weight, groups=scored.groups, rng=seed
            )
    return Quality(value, difference, agreement, error, collapse(raw, baseline, kind))


def classes_of(raw: Array, kind: OutputKind) -> Array:
    """Return the predicted class of each row (or a 0/1 for each label)."""
    scores = scores_to_probabilities(raw, kind)
    return np.asarray(predicted(scores, multilabel=kind.startswith(("multilabel", "binary"))))


def collapse(raw: Array, baseline: Array | None, kind: OutputKind) -> str:
    """Return what is wrong with outputs that no longer depend on the input, "" where they do.

    Only what the baseline does not do itself is called a collapse.
    """
    if len(raw) < 2 or baseline is None:
        return ""
    if np.ptp(raw.astype(np.float64), axis=0).max() == 0 and np.ptp(baseline.astype(np.float64), axis=0).max() > 0:
        return "collapsed: every row gets the same output"
    if kind != "regression" and not kind.startswith("multilabel"):
        now, before = np.unique(classes_of(raw, kind)), np.unique(classes_of(baseline, kind))
        if len(now) == 1 and len(before) > 1:
            return f"collapsed: every row is predicted as class {now[0]}"
    return ""
