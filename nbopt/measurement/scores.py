"""A model's raw outputs as the scores that metrics take."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nbopt.errors import DataError
from nbopt.frameworks import OutputKind
from nbopt.large import by_slices

Floats = NDArray[np.float64]

_PROBABILITY_SLACK = 0.01
# A quantized softmax leaves [0, 1] by at most a step of its 8 bits (1/256); the rest are no probabilities.


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
    outputs = np.asarray(raw)
    if outputs.ndim == 0:
        raise DataError("outputs with a row for each example", "a single number", "keep the batch axis")
    bad = not_finite(outputs, kind)
    if bad.any():
        raise DataError(
            "finite outputs",
            f"NaN or infinity in {int(bad.sum()):,} of {len(outputs):,} rows",
            "float16 or int8 overflowed, or training diverged: try bfloat16, or exclude that layer",
        )
    return by_slices(lambda rows: _scores_of(numbers_of(rows, "outputs"), kind), outputs)


def _scores_of(values: Floats, kind: OutputKind) -> Floats:
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

    def broken(rows: NDArray[Any]) -> NDArray[np.bool_]:
        values = numbers_of(rows, "outputs")
        if kind == "log_probabilities" or kind.endswith("logits"):
            bad = np.isnan(values) | np.isposinf(values)
        else:
            bad = ~np.isfinite(values)
        return np.asarray(bad.reshape(len(values), -1).any(axis=1))

    return by_slices(broken, np.asarray(raw))


def classes_last(raw: ArrayLike, y: ArrayLike, kind: OutputKind) -> NDArray[Any]:
    """Return outputs with the class axis last; for (n, classes, tokens...) the labels' shape tells that it is not.

    Binary outputs in the shape of the labels, such as the places of a mask, get an axis of one column: where the
    mask is two places wide, they are no columns of two classes.
    """
    values, labels = np.asanyarray(raw), np.asarray(y)
    if kind.startswith("binary") and values.ndim > 2 and labels.shape == values.shape and not is_one_hot(labels):
        return values[..., None]
    channels_first = values.ndim > 2 and labels.shape == (values.shape[0], *values.shape[2:])
    return np.moveaxis(values, 1, -1) if channels_first and labels.shape != values.shape[:-1] else values


def numbers_of(values: ArrayLike, what: str) -> Floats:
    """Return values as float64.

    Args:
        values: Of any numeric dtype.
        what: What they are, for the message.

    Raises:
        DataError: They are no numbers.
    """
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


def is_one_hot(labels: NDArray[Any]) -> bool:
    """Tell whether each row is 1 at one place of its last axis, and 0 at the others."""
    return bool(((labels == 0) | (labels == 1)).all() and (labels.sum(axis=-1) == 1).all())


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
