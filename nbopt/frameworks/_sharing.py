"""How several processes share a batch, so that their step is the one that a single process would make."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nbopt.arrays import to_numpy
from nbopt.batches import Batch, map_leaves, take_rows

IGNORED = -100
"""Label that losses of sequence models skip."""


@dataclass(frozen=True)
class Share(Batch):
    """Hold one process's rows of a batch, as NumPy.

    Args:
        factor: What the mean over these rows is multiplied by, so that the mean over processes is that of the batch.
    """

    factor: float = 1.0


def shares(batch: Batch, processes: int) -> list[Share]:
    """Return each process's share of a batch.

    Rows are dealt out evenly. Losses here are means over rows, of token labels over those that count, and of weighted
    rows by their weights: where shares are uneven, `factor` makes up for it. A batch of fewer than two rows for each is
    trained on by all alike, since BatchNorm can't take one row; the mean of what they find is that of the batch too.

    Args:
        batch: All of it.
        processes: How many share it, 1 or more.
    """
    inputs = map_leaves(to_numpy, batch.inputs)
    targets = None if batch.targets is None else to_numpy(batch.targets)
    weight = None if batch.weight is None else to_numpy(batch.weight)
    if batch.rows < 2 * processes:
        return [Share(inputs, targets, weight)] * processes
    counts = _counts(batch.rows, targets, weight)
    whole = float(counts.sum())
    found = []
    for rows in np.array_split(np.arange(batch.rows), processes):
        own = slice(int(rows[0]), int(rows[-1]) + 1)
        factor = processes * float(counts[own].sum()) / whole if whole else 1.0
        labels, weights = (None if part is None else part[own] for part in (targets, weight))
        found.append(Share(take_rows(inputs, own), labels, weights, factor=factor))
    return found


def _counts(
    rows: int, targets: np.ndarray[Any, Any] | None, weight: np.ndarray[Any, Any] | None
) -> np.ndarray[Any, Any]:
    """Return how much each row counts in the mean that a loss is."""
    if weight is not None:
        return weight.astype(np.float64)
    if targets is not None and targets.ndim > 1 and targets.dtype.kind == "i":
        return (targets.reshape(rows, -1) != IGNORED).sum(1)
    return np.ones(rows)
