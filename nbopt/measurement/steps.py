"""What each step of a pipeline gave: the artifact after a step against the one before it, in the same rounds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Step:
    """Hold what one step gave on each axis; figures are None where they were not measured.

    Args:
        words: The step as a table writes it; techniques that share one training are one step.
        speedup: Times faster than before the step on the same runtime: the median of paired ratios.
        speedup_low: Lower bound of its 95% interval.
        speedup_high: Upper bound.
        size_bytes: The file after the step.
        size_ratio: Times smaller than before.
        peak_memory_bytes: Peak memory after the step.
        quality: The metric after the step.
        quality_delta: Quality less that before the step, on the same rows.
        quality_delta_low: Lower bound of its 95% interval.
        quality_delta_high: Upper bound.
    """

    words: str
    speedup: float
    speedup_low: float
    speedup_high: float
    size_bytes: int
    size_ratio: float
    peak_memory_bytes: int
    quality: float | None = None
    quality_delta: float | None = None
    quality_delta_low: float | None = None
    quality_delta_high: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)
