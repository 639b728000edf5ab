"""Choose among ways to quantize by how near the outputs of calibration rows stay."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from nbopt.techniques._quantize.mixed import relative_error

W = TypeVar("W")
Array = np.ndarray[Any, Any]

FAR = 0.1
"""Error of the outputs, as a share of their spread, from which on a slower way is looked at."""

GAIN = 0.5
"""Share of the error that a slower way may leave, or its time is not worth it."""

JUDGED_ROWS = 32


@dataclass(frozen=True)
class Choice(Generic[W]):
    """Say which way was taken.

    Args:
        way: It.
        first: Error of the first way, as a share of the spread of the outputs in float.
        error: Error of the one taken.
    """

    way: W
    first: float
    error: float

    def __str__(self) -> str:
        """Tell both errors."""
        first = f"off by {self.first:.1%} of their spread" if np.isfinite(self.first) else "not finite"
        return f"the outputs were {first} without, and are off by {self.error:.1%}"


def near_enough(
    ways: Iterable[W], outputs: Callable[[W], Sequence[Array] | None], expected: Sequence[Array]
) -> Choice[W]:
    """Return the first way that is not far off, or the best where each is, if it is better by enough.

    Args:
        ways: From the quickest to the most exact.
        outputs: What the model quantized so gives for the judged rows; None where there is no such way.
        expected: What the float model gives for them.
    """
    choice: Choice[W] | None = None
    for way in ways:
        found = outputs(way)
        if found is None:
            continue
        error = max((relative_error(f, e) for f, e in zip(found, expected, strict=True)), default=0.0)
        if choice is None:
            choice = Choice(way, error, error)
        elif error <= GAIN * choice.error:
            choice = Choice(way, choice.first, error)
        if choice.error <= FAR:
            break
    if choice is None:
        raise ValueError("expected a way that is there for every model, got none")
    return choice
