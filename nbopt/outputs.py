"""What a model's output means: logits, probabilities or values, for one class or many."""

from __future__ import annotations

from typing import Any

import numpy as np

from nbopt.data import to_numpy
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
    if declared is not None:
        return declared, "from the loss or the last activation"
    single = raw.ndim == 1 or raw.shape[-1] == 1
    squeezed = raw.astype(np.float64)
    within_unit = bool(np.all((squeezed >= 0) & (squeezed <= 1)))
    y = None if targets is None else to_numpy(targets)
    if y is None:
        if not single and within_unit and np.allclose(squeezed.sum(-1), 1, atol=SUM_TOLERANCE):
            return "probabilities", "outputs sum to 1"
        return "regression", "no labels: outputs are compared as values"
    integral = is_integral(y)
    if single:
        if not (integral and set(np.unique(y).tolist()) <= {0, 1}):
            return "regression", "one output, labels are not 0 and 1"
        return (
            ("binary_probabilities", "one output in [0, 1], labels 0 and 1")
            if within_unit
            else ("binary_logits", "one output outside [0, 1], labels 0 and 1")
        )
    if y.ndim == raw.ndim and y.shape[-1] == raw.shape[-1]:
        if not integral:
            return "regression", "as many float labels as outputs"
        if not np.all(y.sum(-1) == 1):
            return ("multilabel_probabilities" if within_unit else "multilabel_logits"), "several labels a row"
    elif not integral:
        raise DataError(
            f"labels as whole numbers from 0 to {raw.shape[-1] - 1}, or as many values as the {raw.shape[-1]} outputs",
            f"labels of dtype {y.dtype} and shape {y.shape}, such as {y.ravel()[:3].tolist()}",
            "cast class labels to int64; for regression let the model give one output",
        )
    if within_unit and np.allclose(squeezed.sum(-1), 1, atol=SUM_TOLERANCE):
        return "probabilities", f"{raw.shape[-1]} outputs that sum to 1"
    with np.errstate(over="ignore"):
        if np.all(squeezed <= 0) and np.allclose(np.exp(squeezed).sum(-1), 1, atol=SUM_TOLERANCE):
            return "log_probabilities", f"{raw.shape[-1]} outputs whose exponentials sum to 1"
    return "logits", f"{raw.shape[-1]} outputs that do not sum to 1, integer labels"


def is_integral(y: np.ndarray[Any, Any]) -> bool:
    """Tell whether labels are whole numbers, in whatever dtype."""
    return y.dtype.kind in "iub" or bool(np.all(np.isfinite(y)) and np.all(y == np.round(y)))
