"""Raw outputs and labels in any usual form, brought to the one form that metrics take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nbopt.errors import DataError
from nbopt.frameworks import OutputKind
from nbopt.frozen import IGNORE_LABEL
from nbopt.measurement.padding import at, places_of, trimmed, weight_at

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_PROBABILITY_SLACK = 0.01
# A quantized softmax leaves [0, 1] by at most a step of its 8 bits (1/256); the rest are no probabilities.


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


def scores_to_probabilities(raw: ArrayLike, kind: OutputKind) -> Floats:
    """Turn a model's raw outputs into what metrics take.

    Args:
        raw: Outputs, shape (n,), (n, 1), (n, classes) or (n, tokens, classes); any float or integer dtype.
        kind: What the outputs mean.

    Returns:
        float64. Binary: (n,) or (n, tokens), the probability of class 1, from one column or two. Classes: the
        shape of `raw`, rows sum to 1. Multilabel: the shape of `raw`. Regression: the values, (n, 1) as (n,).

    Raises:
        DataError: Not numbers, NaN or infinite, an impossible shape, or values that are no probabilities.
    """
    values = _numbers(raw, "outputs")
    if values.ndim == 0:
        raise DataError("outputs with a row for each example", "a single number", "keep the batch axis")
    bad = not_finite(values, kind)
    if bad.any():
        raise DataError(
            "finite outputs",
            f"NaN or infinity in {int(bad.sum()):,} of {len(values):,} rows",
            "float16 or int8 overflowed, or training diverged: try bfloat16, or exclude that layer",
        )
    if kind == "regression":
        return values[..., 0] if values.ndim > 1 and values.shape[-1] == 1 else values
    if kind.startswith("binary"):
        return _binary(values, kind)
    if kind == "multilabel_logits":
        return _sigmoid(values)
    if kind.endswith("probabilities") and kind != "log_probabilities":
        _check_probabilities(values)
        values = np.clip(values, 0.0, 1.0)
        if kind == "multilabel_probabilities":
            return values
    if values.ndim < 2 or values.shape[-1] < 2:
        raise DataError(
            "an output column for each class",
            f"{kind} of shape {values.shape}",
            "for one column use binary_logits or binary_probabilities, for values regression",
        )
    if kind == "probabilities":
        total = values.sum(axis=-1, keepdims=True)
        # A quantized softmax over many classes can round a whole row to zero: nothing is known of it then.
        return np.where(total > 0, values / np.where(total > 0, total, 1.0), 1.0 / values.shape[-1])
    return _softmax(values)


def not_finite(raw: ArrayLike, kind: OutputKind) -> NDArray[np.bool_]:
    """Return for each row whether NaN or infinity is among its outputs; -infinity is a logit of probability zero."""
    values = _numbers(raw, "outputs")
    if kind == "log_probabilities" or kind.endswith("logits"):
        bad = np.isnan(values) | np.isposinf(values)
    else:
        bad = ~np.isfinite(values)
    return np.asarray(bad.reshape(len(values), -1).any(axis=1))


def classes_last(raw: ArrayLike, y: ArrayLike, kind: OutputKind) -> NDArray[Any]:
    """Return outputs with the class axis last; for (n, classes, tokens...) the labels' shape tells that it is not.

    Binary outputs in the shape of the labels, such as the places of a mask, get an axis of one column: where the
    mask is two places wide, they are no columns of two classes.
    """
    values, labels = np.asanyarray(raw), np.asarray(y)
    if kind.startswith("binary") and values.ndim > 2 and labels.shape == values.shape and not _is_one_hot(labels):
        return values[..., None]
    channels_first = values.ndim > 2 and labels.shape == (values.shape[0], *values.shape[2:])
    return np.moveaxis(values, 1, -1) if channels_first and labels.shape != values.shape[:-1] else values


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
    if np.isnan(ready).any():
        raise DataError("scores without NaN", f"NaN in {int(np.isnan(ready).sum()):,} scores", "check the outputs")
    if ready.ndim > 1 and ready.shape[-1] == 1:
        ready = ready[..., 0]
    labels = _numbers(y, "labels")
    if labels.ndim == 0 or len(labels) != len(ready):
        raise DataError(
            f"as many labels as outputs ({len(ready):,})",
            f"labels of shape {labels.shape}",
            "take labels and inputs from the same loader, in the same order",
        )
    if np.isnan(labels).any():
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


def _numbers(values: ArrayLike, what: str) -> Floats:
    array = np.asarray(values)
    if array.dtype.kind in "OSUV" and array.size and array.dtype.name != "bfloat16":
        first = array.reshape(-1)[0]
        if array.dtype.kind != "O" or not isinstance(first, int | float | np.number | np.bool_):
            raise DataError(
                f"{what} as numbers",
                f"{what} of dtype {array.dtype}, such as {str(first)!r}",
                "encode classes as whole numbers from 0, for example with pandas.factorize",
            )
    try:
        return array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{what} as numbers in one array", f"dtype {array.dtype}: {error}", "stack them first"
        ) from error


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
    if not np.isfinite(labels).all():
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
        and (labels.shape != scores.shape or _is_one_hot(labels))
    ):
        scores = scores[..., 1]
    single = scores.ndim == 1 or kind.startswith("binary")
    classes = 2 if single else scores.shape[-1]
    rows_shape = scores.shape if single else scores.shape[:-1]
    if labels.ndim > 1 and labels.shape[-1] == 1 and labels.ndim == len(rows_shape) + 1:
        labels = labels[..., 0]
    if labels.shape == (*rows_shape, classes) and _is_one_hot(labels):
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
        numbers, scores = numbers[kept], scores[kept]
        groups = None if groups is None else groups[kept]
        weights = None if weights is None else weights[kept]
    if not numbers.size:
        raise DataError(
            "labelled rows", f"{ignored:,} rows, all with label -100" if ignored else "none", "check the data"
        )
    low, high = int(numbers.min()), int(numbers.max())
    if low < 0 or high >= classes:
        bad = low if low < 0 else high
        rows = int(((numbers < 0) | (numbers >= classes)).sum())
        raise DataError(
            f"labels from 0 to {classes - 1} for {classes} classes",
            f"label {bad} ({rows:,} such rows)",
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


def _is_one_hot(labels: Floats) -> bool:
    return bool(((labels == 0) | (labels == 1)).all() and (labels.sum(axis=-1) == 1).all())


def _row_weights(weight: ArrayLike | None, rows: int, shape: tuple[int, ...] | None = None) -> Floats | None:
    if weight is None:
        return None
    values = _numbers(weight, "weights")
    if shape is not None and len(shape) > 1 and values.size == rows:
        values = np.broadcast_to(values.reshape(rows, *([1] * (len(shape) - 1))), shape)
    flat = values.reshape(-1)
    wanted = int(np.prod(shape)) if shape is not None else rows
    if flat.size != wanted:
        raise DataError(f"a weight for each of the {rows:,} rows", f"weights of shape {values.shape}", "give one a row")
    if not np.isfinite(flat).all() or (flat < 0).any() or not flat.any():
        raise DataError("finite weights >= 0, not all zero", "other weights", "check what the loader yields as weight")
    return flat


def _binary(values: Floats, kind: str) -> Floats:
    if kind == "binary_probabilities":
        _check_probabilities(values)
        values = np.clip(values, 0.0, 1.0)
    columns = values.shape[-1] if values.ndim > 1 else 1
    if columns == 2:
        # Two columns are the scores of class 0 and class 1.
        return values[..., 1] if kind == "binary_probabilities" else _sigmoid(values[..., 1] - values[..., 0])
    one = values[..., 0] if values.ndim > 1 and columns == 1 else values
    if values.ndim == 2 and columns > 2:
        raise DataError("one or two output columns", f"outputs of shape {values.shape}", "use logits or probabilities")
    return one if kind == "binary_probabilities" else _sigmoid(one)


def _check_probabilities(values: Floats) -> None:
    if values.size and (values.min() < -_PROBABILITY_SLACK or values.max() > 1 + _PROBABILITY_SLACK):
        raise DataError(
            "probabilities from 0 to 1",
            f"outputs from {values.min():.4g} to {values.max():.4g}",
            "if the model gives logits, let the loss say so (from_logits=True, BCEWithLogitsLoss)",
        )


def _sigmoid(values: Floats) -> Floats:
    # exp of a non-positive number only, so that nothing overflows.
    small = np.exp(-np.abs(values))
    return np.where(values >= 0, 1 / (1 + small), small / (1 + small))


def _softmax(values: Floats) -> Floats:
    top = values.max(axis=-1, keepdims=True)
    if np.isneginf(top).any():
        raise DataError(
            "a finite logit in each row", "rows where every logit is -infinity", "check the model's masking"
        )
    powers = np.exp(values - top)
    result: Floats = powers / powers.sum(axis=-1, keepdims=True)
    return result
