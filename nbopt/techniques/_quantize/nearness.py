"""Choose among ways to quantize by how near the outputs of calibration rows stay."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from nbopt.techniques._quantize.mixed import relative_error

W = TypeVar("W")
Array = np.ndarray[Any, Any]
Row = dict[str, Array]

FAR = 0.1
"""Error of the outputs, as a share of their spread, from which on a slower way is looked at."""

GAIN = 0.5
"""Share of the error that a slower way may leave, or its time is not worth it."""

JUDGED_ROWS = 32
JUDGED_BYTES = 2**24
"""Of outputs as large as images, fewer rows say as much."""


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
        if not np.isfinite(self.first):
            return f"without, the outputs were not finite or of another size, and are off by {self.error:.1%}"
        return f"the outputs were off by {self.first:.1%} of their spread without, and are off by {self.error:.1%}"


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
        error = max(map(_error, found, expected), default=0.0)
        if choice is None:
            choice = Choice(way, error, error)
        elif error < choice.error and error <= GAIN * choice.error:
            choice = Choice(way, choice.first, error)
        if choice.error <= FAR:
            break
    if choice is None:
        raise ValueError("expected a way that is there for every model, got none")
    return choice


def _error(found: Array, expected: Array) -> float:
    """Return how far off an output is; without limit where the model gives another number of values for a row."""
    return relative_error(found, expected) if found.shape == expected.shape else float("inf")


def judged(run: Callable[[Row], Sequence[Array]], rows: Sequence[Row]) -> list[Array]:
    """Return each output over the first rows, flat.

    Args:
        run: Returns the outputs of a row.
        rows: Calibration rows.
    """
    runs: list[list[Array]] = []
    size = 0
    for row in rows[:JUDGED_ROWS]:
        if size > JUDGED_BYTES:
            break
        runs.append([np.ravel(output) for output in run(row)])
        size += sum(output.nbytes for output in runs[-1])
    return [np.concatenate(parts) for parts in zip(*runs, strict=True)]
