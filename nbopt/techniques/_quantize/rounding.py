"""Rounding as quantized kernels do it, for training with it in place: what both frameworks lower, in NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nbopt.measurement.environment import has_exact_int8

Array = np.ndarray[Any, Any]
TINY = 1e-12
"""Least scale: a channel of zeros has one too."""

FOLLOWING = 0.1
"""How much of a training batch's range goes into the range of activations; its extremes are what calibration takes."""


CONSTANT = 1e-4
"""Share of a channel's variance before the training below which rounding has made it constant."""


def revived(variance: Array, before: Array) -> Array:
    """Return BatchNorm's variances for a model without the rounding that it was trained with.

    A channel that rounding makes constant has a variance of nothing after training, and BatchNorm would make a hundred
    times as much of what is there without rounding: on a depthwise network a range grew from 50 to 556, and 88.0% in
    training were 79% in ONNX Runtime and 22% in OpenVINO, which take their ranges from that. With the variance that it
    had before, nothing changes where the channel is constant, and what is there without rounding stays small.

    Args:
        variance: Of each channel, after the training.
        before: And before it.
    """
    return np.where(variance < CONSTANT * before, before, variance)


def weight_levels() -> int:
    """Return the largest weight in steps: 127, or 63 where kernels add products in 16 bits (see `reduce_range`)."""
    return 127 if has_exact_int8() else 63


def weight_scale(weights: Array, axes: Sequence[int], levels: int) -> Array:
    """Return the step of each channel, zero in the middle of the range.

    Args:
        weights: Any shape.
        axes: Axes that share a step; all of them for one step a tensor.
        levels: From `weight_levels`.
    """
    largest = np.max(np.abs(weights), axis=tuple(axes), keepdims=True)
    return np.asarray(np.maximum(largest / levels, TINY), dtype=weights.dtype)


def round_weights(weights: Array, axes: Sequence[int], levels: int) -> Array:
    """Return weights as int8 holds them."""
    scale = weight_scale(weights, axes, levels)
    return np.asarray(np.clip(np.rint(weights / scale), -levels, levels) * scale, dtype=weights.dtype)


def range_of_zero(low: float, high: float) -> tuple[float, int]:
    """Return step and zero point of 256 levels from `low` to `high`, widened to hold zero, which is exact.

    Padding is zero, and so is what a ReLU cuts: a range without an exact zero adds a constant to both.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max((high - low) / 255, TINY)
    return scale, int(np.clip(np.rint(-low / scale), 0, 255))


def round_activations(values: Array, low: float, high: float) -> Array:
    """Return activations as uint8 holds them."""
    scale, zero = range_of_zero(low, high)
    return np.asarray((np.clip(np.rint(values / scale) + zero, 0, 255) - zero) * scale, dtype=values.dtype)
