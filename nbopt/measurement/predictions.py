"""Raw outputs and labels in any usual form, brought to the one form that metrics take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nbopt.errors import DataError
from nbopt.frameworks import OutputKind
from nbopt.frozen import IGNORE_LABEL
from nbopt.large import any_of, by_slices, where
from nbopt.measurement.padding import at, places_of, trimmed, weight_at
from nbopt.measurement.scores import Floats, classes_last, is_one_hot, numbers_of, scores_to_probabilities

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Scored:
    """Hold aligned labels and scores, a row for each thing that is judged.

    Args:
        y: Labels: int64 (n,) for classes, int64 (n, labels) of 0 and 1 for multilabel, float64 (n,) or
            (n, values) for regression.
        scores: What metrics take: float64 (n,) probability of the positive class, (n, classes) probabilities,
            (n, labels) probabilities, or predicted values in the shape of `y`.
        weight: Row weights (n,), or None.
        groups: For outputs of tokens, or of other places of a row, the number (n,) of the sequence or row that each
            belongs to, since those of one are not independent; else None.
        ignored: How many rows were left out for their label -100.
    """

    y: NDArray[Any]
    scores: Floats
    weight: Floats | None = None
    groups: Ints | None = None
    ignored: int = 0


def prepare(
    y: ArrayLike, raw: ArrayLike, kind: OutputKind, weight: ArrayLike | None = None, rows: Ints | None = None
) -> Scored:
    """Align labels with raw outputs, flatten tokens, drop padded places and ignored rows, and check everything.

    Args:
        y: Labels: int, bool, whole floats, one-hot, shape (n,), (n, 1), (n, classes), (n, tokens), or values.
            -100 marks rows that count nowhere. Places that are masked, here or in `raw`, are padding.
        raw: Outputs as they come from the artifact; for (n, classes, tokens...) the class axis is found by
            the labels' shape.
        kind: What the outputs mean.
        weight: Row weights >= 0 of shape (n,), (n, 1) or the labels' shape.
        rows: For places that were taken out of padded rows, the number (n,) of the row that each belongs to.

    Raises:
        DataError: See `scores_to_probabilities` and `align`.
    """
    labels = trimmed(np.asanyarray(y))
    values = classes_last(trimmed(np.asanyarray(raw)), labels, kind)
    places = places_of(labels, [values])
    if places is not None:
        labels, values, weight = at(places, labels), at(places, values), weight_at(places, weight)
        rows = np.nonzero(places)[0]
    return align(labels, scores_to_probabilities(values, kind), kind, weight, rows)


def align(
    y: ArrayLike, scores: ArrayLike, kind: OutputKind, weight: ArrayLike | None = None, rows: Ints | None = None
) -> Scored:
    """Bring labels and ready scores to the form that metrics take.

    Args:
        y: Labels, as in `prepare`.
        scores: What `scores_to_probabilities` returned; for classes a single column is class 1 of two.
        kind: What the outputs mean.
        weight: Row weights, as in `prepare`.
        rows: As in `prepare`.

    Raises:
        DataError: Lengths differ, labels are text, fractional, NaN or out of range, weights are negative.
    """
    ready = np.asarray(scores, dtype=np.float64)
    if any_of(np.isnan, ready):
        raise DataError("scores without NaN", f"NaN in {int(np.isnan(ready).sum()):,} scores", "check the outputs")
    if ready.ndim > 1 and ready.shape[-1] == 1:
        ready = ready[..., 0]
    labels = by_slices(lambda part: numbers_of(part, "labels"), np.asarray(y))
    if labels.ndim == 0 or len(labels) != len(ready):
        raise DataError(
            f"as many labels as outputs ({len(ready):,})",
            f"labels of shape {labels.shape}",
            "take labels and inputs from the same loader, in the same order",
        )
    if any_of(np.isnan, labels):
        raise DataError(
            "labels without NaN", f"NaN in {int(np.isnan(labels).sum()):,} labels", "drop or fill those rows"
        )
    if kind == "regression":
        return _values(labels, ready, weight, rows)
    if kind.startswith("multilabel"):
        return _many_labels(labels, ready, weight, rows)
    return _classes(labels, ready, kind, weight, rows)


def _groups(rows: Ints | None, count: int, places: int) -> Ints:
    """Return the row that each place belongs to."""
    return np.repeat(np.arange(count) if rows is None else rows, places)


def _values(labels: Floats, values: Floats, weight: ArrayLike | None, rows: Ints | None) -> Scored:
    if labels.ndim > 1 and labels.shape[-1] == 1:
        labels = labels[..., 0]
    # (n, 1) against (n,) would broadcast to (n, n) and give a plausible, wrong number.
    if labels.shape != values.shape:
        raise DataError(
            f"targets in the shape of the outputs, {values.shape}",
            f"targets of shape {labels.shape}",
            "reshape the targets, or the model's last layer",
        )
    if any_of(np.isinf, labels):
        raise DataError("finite targets", "infinity among the targets", "drop or clip those rows")
    labels, values = labels.reshape(len(labels), -1), values.reshape(len(values), -1)
    if labels.shape[1] == 1:
        labels, values = labels[:, 0], values[:, 0]
    return Scored(labels, values, _row_weights(weight, len(labels)), rows)


def _many_labels(labels: Floats, scores: Floats, weight: ArrayLike | None, rows: Ints | None) -> Scored:
    if scores.ndim == 1:
        scores = scores[:, None]
    labels = labels.reshape(scores.shape) if labels.size == scores.size else labels
    if labels.shape != scores.shape:
        raise DataError(
            f"0 or 1 for each of the {scores.shape[-1]} labels of a row, shape {scores.shape}",
            f"labels of shape {labels.shape}",
            "give a column for each label",
        )
    classes = _whole(labels)
    if classes.size and (classes.min() < 0 or classes.max() > 1):
        raise DataError(
            "labels 0 or 1", f"labels from {classes.min()} to {classes.max()}", "give 1 where a label applies"
        )
    weights = _row_weights(weight, len(classes), classes.shape[:-1])
    if classes.ndim == 2:
        return Scored(classes, scores, weights, rows)
    # Several places a row, each with labels of its own: places of one row are not independent.
    groups = _groups(rows, len(classes), int(np.prod(classes.shape[1:-1])))
    width = classes.shape[-1]
    return Scored(classes.reshape(-1, width), scores.reshape(-1, width), weights, groups)


def _classes(labels: Floats, scores: Floats, kind: str, weight: ArrayLike | None, rows: Ints | None) -> Scored:
    # Two columns for two classes are as good as one, and either may come with one-hot labels.
    if (
        kind.startswith("binary")
        and scores.ndim > 1
        and scores.shape[-1] == 2
        and (labels.shape != scores.shape or is_one_hot(labels))
    ):
        scores = scores[..., 1]
    single = scores.ndim == 1 or kind.startswith("binary")
    classes = 2 if single else scores.shape[-1]
    rows_shape = scores.shape if single else scores.shape[:-1]
    if labels.ndim > 1 and labels.shape[-1] == 1 and labels.ndim == len(rows_shape) + 1:
        labels = labels[..., 0]
    if labels.shape == (*rows_shape, classes) and is_one_hot(labels):
        labels = labels.argmax(axis=-1).astype(np.float64)
    if labels.shape != rows_shape:
        raise DataError(
            f"a class number for each output row, shape {rows_shape}, or {classes} one-hot columns",
            f"labels of shape {labels.shape}",
            "several labels a row go with binary cross entropy as loss; of soft labels take the argmax",
        )
    groups = rows
    weights = _row_weights(weight, len(labels), labels.shape)
    if labels.ndim > 1:
        groups = _groups(rows, len(labels), labels[0].size)
        labels = labels.reshape(-1)
        scores = scores.reshape(-1) if scores.size == labels.size else scores.reshape(-1, classes)
    numbers = _whole(labels)
    kept = numbers != IGNORE_LABEL
    ignored = int((~kept).sum())
    if ignored:
        numbers, scores = numbers[kept], where(kept, scores)
        groups = None if groups is None else groups[kept]
        weights = None if weights is None else weights[kept]
    if not numbers.size:
        raise DataError(
            "labelled rows", f"{ignored:,} rows, all with label -100" if ignored else "none", "check the data"
        )
    low, high = int(numbers.min()), int(numbers.max())
    if low < 0 or high >= classes:
        bad = low if low < 0 else high
        count = int(((numbers < 0) | (numbers >= classes)).sum())
        raise DataError(
            f"labels from 0 to {classes - 1} for {classes} classes",
            f"label {bad} ({count:,} such rows)",
            f"renumber the labels from 0, or give the model {high + 1} outputs"
            if low >= 0
            else f"renumber the labels from 0 ({IGNORE_LABEL} marks rows to ignore)",
        )
    return Scored(numbers, scores, weights, groups, ignored)


def _whole(labels: Floats) -> Ints:
    fractional = labels != np.round(labels)
    if fractional.any():
        raise DataError(
            "labels as whole numbers",
            f"fractions such as {labels[fractional].reshape(-1)[0]:.4g}",
            "for values to predict let the loss or metric be one of regression (rmse, mae, r2)",
        )
    return labels.astype(np.int64)


def _row_weights(weight: ArrayLike | None, rows: int, shape: tuple[int, ...] | None = None) -> Floats | None:
    if weight is None:
        return None
    values = numbers_of(weight, "weights")
    if shape is not None and len(shape) > 1 and values.size == rows:
        values = np.broadcast_to(values.reshape(rows, *([1] * (len(shape) - 1))), shape)
    flat = values.reshape(-1)
    wanted = int(np.prod(shape)) if shape is not None else rows
    if flat.size != wanted:
        raise DataError(f"a weight for each of the {rows:,} rows", f"weights of shape {values.shape}", "give one a row")
    if not np.isfinite(flat).all() or (flat < 0).any() or not flat.any():
        raise DataError("finite weights >= 0, not all zero", "other weights", "check what the loader yields as weight")
    return flat
