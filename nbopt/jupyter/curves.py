"""Small curves of what a work reports, as pictures that an untrusted notebook keeps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from nbopt.progress import Progress
from nbopt.render.markup import picture

MOST_POINTS = 200
"""Points that a curve keeps: where there would be more, every second one is left out, and those to come likewise."""

LOSS = "loss"
_WIDTH, _HEIGHT = 150, 26
_LARGE, _HIGH, _LEFT = 420, 170, 52
_INK, _RULE = "#2f74c8", "#808890"


class Curve:
    """Hold one figure over the reports that brought it.

    Args:
        name: What it is: "loss".
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.values: list[float] = []
        self.lowest = math.inf
        self.last = math.nan
        self._stride = 1
        self._passed = 0

    def add(self, value: float) -> None:
        """Take one value; what is not finite is passed over."""
        if not math.isfinite(value):
            return
        self.last = value
        self.lowest = min(self.lowest, value)
        self._passed += 1
        if self._passed % self._stride:
            return
        self.values.append(value)
        if len(self.values) > MOST_POINTS:
            self.values = self.values[1::2]
            self._stride *= 2

    @property
    def words(self) -> str:
        """Return the best value so far in words, "" where the curve is of that itself."""
        return f"lowest {self.lowest:.4g}" if self.name == LOSS and len(self.values) > 1 else ""

    def picture(self) -> str:
        """Return it as an `<img>` with a data: address, "" where there are too few points."""
        points = self._points
        if len(points) < 2:
            return ""
        parts = f'<path d="M0 {_HEIGHT - 1}H{_WIDTH}" stroke="{_RULE}" stroke-opacity="0.5"/>'
        parts += _line(points, (2, _WIDTH - 2), (_HEIGHT - 3, 3))
        style = "vertical-align:middle;display:inline-block;margin:0 8px 0 0;max-width:none"
        return picture(parts, _WIDTH, _HEIGHT, self._said(points), style)

    def figure(self) -> str:
        """Return it as a larger `<img>` with its range beside it, "" where there are too few points."""
        points = self._points
        if len(points) < 2:
            return ""
        top, floor = 24, _HIGH - 22
        text = f'font-family="sans-serif" font-size="11" fill="{_RULE}"'
        parts = f'<path d="M{_LEFT} {top}V{floor}H{_LARGE - 8}" stroke="{_RULE}" stroke-opacity="0.5" fill="none"/>'
        parts += _line(points, (_LEFT + 4, _LARGE - 12), (floor - 6, top + 4))
        for value, height in ((max(points), top + 8), (min(points), floor - 2)):
            parts += f'<text x="{_LEFT - 6}" y="{height}" {text} text-anchor="end">{value:.3g}</text>'
        parts += f'<text x="{_LEFT}" y="14" {text}>{escape(self.name)} of the training: now {self.last:.4g}</text>'
        parts += f'<text x="{_LARGE - 8}" y="{_HIGH - 6}" {text} text-anchor="end">steps</text>'
        return picture(parts, _LARGE, _HIGH, self._said(points), "max-width:100%;height:auto")

    @property
    def _points(self) -> list[float]:
        return [*self.values, self.last] if self.values and self.last != self.values[-1] else self.values

    def _said(self, points: Sequence[float]) -> str:
        return f"{self.name} from {points[0]:.4g} to {self.last:.4g}"


def _line(points: Sequence[float], across: tuple[float, float], up: tuple[float, float]) -> str:
    """Return points as a line in a picture.

    Args:
        points: Two or more.
        across: Where the first lies and where the last.
        up: Where the least lies and where the greatest.
    """
    low, high = min(points), max(points)
    spread, step = high - low or 1.0, (across[1] - across[0]) / (len(points) - 1)
    path = " ".join(
        f"{across[0] + index * step:.1f},{up[0] + (value - low) / spread * (up[1] - up[0]):.1f}"
        for index, value in enumerate(points)
    )
    return f'<polyline points="{path}" fill="none" stroke="{_INK}" stroke-width="1.5"/>'


class Curves:
    """Hold the curves of the trainings of one work; the newest is what is shown while it runs."""

    def __init__(self) -> None:
        self.all: list[Curve] = []
        self._what = ""
        self._done = 0.0

    def take(self, progress: Progress) -> None:
        """Take one report; a step that begins anew begins a curve anew."""
        if progress.figure is None:
            return
        name, value = progress.figure
        if not self.all or progress.what != self._what or progress.done < self._done:
            self.all = [*self.all[-3:], Curve(name)]
            self._what = progress.what
        self._done = progress.done
        self.all[-1].add(value)

    @property
    def now(self) -> Curve | None:
        """Return the newest curve."""
        return self.all[-1] if self.all else None

    def of(self, progress: Progress) -> Curve | None:
        """Return the curve that a report belongs to, None where its step has none."""
        return self.now if progress.what == self._what else None
