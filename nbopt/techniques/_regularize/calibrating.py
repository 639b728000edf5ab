"""What a layer gives on average, from which a norm is set so that the model computes what it did."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nbopt.measurement.scores import Floats

CALIBRATED_ROWS = 1024
TOLERANCE = 1e-3
"""Of the spread of outputs, what they may change by where a model is to keep its function: float32's rounding through
some layers, and no decision."""


@dataclass
class Moments:
    """Sum up a layer's outputs, batch by batch."""

    count: int = 0
    rows: int = 0
    sums: Floats = field(default_factory=lambda: np.zeros(1))
    squares: Floats = field(default_factory=lambda: np.zeros(1))
    row_means: float = 0.0
    row_deviations: float = 0.0

    def add(self, outputs: Floats) -> None:
        """Add outputs (rows, ..., channels)."""
        flat = outputs.reshape(-1, outputs.shape[-1])
        self.sums = self.sums + flat.sum(0)
        self.squares = self.squares + (flat**2).sum(0)
        self.count += len(flat)
        by_row = outputs.reshape(len(outputs), -1) if outputs.ndim > 2 else flat
        self.row_means += float(by_row.mean(1).sum())
        self.row_deviations += float(by_row.std(1).sum())
        self.rows += len(by_row)

    @property
    def mean(self) -> Floats:
        """Return the mean of each channel."""
        return self.sums / self.count

    @property
    def variance(self) -> Floats:
        """Return the variance of each channel."""
        return np.maximum(self.squares / self.count - self.mean**2, 0.0)

    @property
    def row_mean(self) -> float:
        """Return the mean over rows of each row's mean over its channels."""
        return self.row_means / self.rows

    @property
    def row_deviation(self) -> float:
        """Return the mean over rows of each row's standard deviation over its channels."""
        return self.row_deviations / self.rows


def change_of(before: Any, after: Any) -> float:
    """Return the largest change of outputs as a share of their spread over rows; infinity where they broke."""
    one, other = np.asarray(before, np.float64), np.asarray(after, np.float64)
    if one.shape != other.shape:
        return float("inf")
    spread = float((one - one.mean(0, keepdims=True)).std()) or float(np.abs(one).max()) or 1.0
    with np.errstate(invalid="ignore"):
        change = np.abs(one - other)
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    worst = np.where(same, 0.0, change)
    return float(worst.max()) / spread if np.isfinite(worst).all() else float("inf")
