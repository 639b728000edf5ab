"""What a model's output means: logits, probabilities or values, for one class or many."""

from __future__ import annotations

from typing import Any

import numpy as np

from nbopt.arrays import to_numpy
from nbopt.batches import classes_second
from nbopt.errors import DataError
from nbopt.frameworks import OutputKind

SUM_TOLERANCE = 1e-3  # softmax in bfloat16 sums to 1 within this


def infer_output(raw: np.ndarray[Any, Any], targets: Any, declared: OutputKind | None) -> tuple[OutputKind, str]:
    """Tell what an output means, and from what that was concluded.

    Args:
        raw: Outputs of one batch, shape (rows,), (rows, 1), (rows, classes) or (rows, tokens, classes).
        targets: Labels of the same batch in any array form, or None.
        declared: What the loss or the last layer's activation says.

    Returns:
        The kind, and a few words for the workload's card.

    Raises:
        DataError: Labels are of a type that no kind of output goes with.
    """
    y = None if targets is None else to_numpy(targets)
    values = raw.astype(np.float64)
    if y is not None and classes_second(raw.shape, y.shape):
        values = np.moveaxis(values, 1, -1)  # (rows, classes, height, width), as torch's losses have it
    single = values.ndim == 1 or values.shape[-1] == 1
    within_unit = bool(np.all((values >= 0) & (values <= 1)))
    sums_to_one = not single and within_unit and np.allclose(values.sum(-1), 1, atol=SUM_TOLERANCE)
    kind = _corrected(declared, y, values, sums_to_one=sums_to_one)
    if kind is not None:
        return kind, "from the loss or the last activation" if kind == declared else "from the loss, and the outputs"
    if y is None:
        if sums_to_one:
            return "probabilities", "outputs sum to 1"
        return "regression", "no labels: outputs are compared as values"
    integral = is_integral(y)
    zero_one = integral and set(np.unique(y).tolist()) <= {0, 1}
    if single:
        if not zero_one:
            return "regression", "one output, labels are not 0 and 1"
        return (
            ("binary_probabilities", "one output in [0, 1], labels 0 and 1")
            if within_unit
            else ("binary_logits", "one output outside [0, 1], labels 0 and 1")
        )
    if y.ndim == values.ndim and y.shape[-1] == values.shape[-1]:
        if not zero_one:
            return "regression", "as many values as outputs"
        if not np.all(y.sum(-1) == 1):
            if y.shape == raw.shape and raw.ndim > 2:
                # A mask: each place is a yes or no of its own.
                return ("binary_probabilities" if within_unit else "binary_logits"), "labels 0 and 1 for each output"
            return ("multilabel_probabilities" if within_unit else "multilabel_logits"), "several labels a row"
    elif not integral:
        raise DataError(
            f"labels as whole numbers from 0 to {values.shape[-1] - 1}, or as many values as the {values.shape[-1]} "
            "outputs",
            f"labels of dtype {y.dtype} and shape {y.shape}, such as {y.ravel()[:3].tolist()}",
            "cast class labels to int64; for regression let the model give one output",
        )
    if sums_to_one:
        return "probabilities", f"{values.shape[-1]} outputs that sum to 1"
    with np.errstate(over="ignore"):
        if np.all(values <= 0) and np.allclose(np.exp(values).sum(-1), 1, atol=SUM_TOLERANCE):
            return "log_probabilities", f"{values.shape[-1]} outputs whose exponentials sum to 1"
    return "logits", f"{values.shape[-1]} outputs that do not sum to 1, integer labels"


def _corrected(
    declared: OutputKind | None, y: np.ndarray[Any, Any] | None, values: np.ndarray[Any, Any], *, sums_to_one: bool
) -> OutputKind | None:
    """Return the declared kind as the outputs bear it out, None where they contradict it.

    A loss is an intention, and a last layer is told by where it was defined, not by where it is used.
    """
    if declared is None:
        return None
    several = values.ndim == 2 and values.shape[-1] > 1 and y is not None and y.shape == values.shape
    if declared.startswith("binary") and several:
        return "multilabel_logits" if declared == "binary_logits" else "multilabel_probabilities"
    mask = values.ndim > 2 and y is not None and y.shape == values.shape and not np.all(y.sum(-1) == 1)
    if declared.startswith("multilabel") and mask:
        # A mask, as below: whatever its width, it is no set of labels of one thing.
        return "binary_logits" if declared == "multilabel_logits" else "binary_probabilities"
    if declared == "logits" and sums_to_one:
        return "probabilities"  # cross-entropy of logits over a softmax is a common slip
    if declared.endswith("probabilities") and declared != "log_probabilities":
        slack = SUM_TOLERANCE
        if values.size and (values.min() < -slack or values.max() > 1 + slack):
            return None
    return declared


def is_integral(y: np.ndarray[Any, Any]) -> bool:
    """Tell whether labels are whole numbers, in whatever dtype."""
    return y.dtype.kind in "iub" or bool(np.all(np.isfinite(y)) and np.all(y == np.round(y)))
