"""Small pictures as `<img>` with a data: address: an interval around zero, and a speedup split in two.

An untrusted notebook drops inline svg and keeps data: images. Each picture says its figure in its alt text.
Colours are mid tones that stand out from white and from JupyterLab's dark background alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from nbopt.bounds import most_speedup, open_speedup
from nbopt.render import figures
from nbopt.render.figures import finite
from nbopt.render.markup import picture
from nbopt.render.view import LOST, Tone, View
from nbopt.runs import Run

COLOURS: dict[Tone, str] = {
    "good": "#1f9254",
    "mixed": "#c07a00",
    "bad": "#e0483e",
    "plain": "#808890",
    "muted": "#808890",
}
_RUNTIME, _TECHNIQUE, _TRACK = "#86aee0", "#2f74c8", "#808890"
LEGEND = {"runtime": _RUNTIME, "technique": _TECHNIQUE}
NEAREST = 0.001
_WHISKER_WIDTH, _BAR_WIDTH, _HEIGHT = 84, 100, 14


@dataclass(frozen=True)
class Axis:
    """Map values to pixels, equally for all rows of a table.

    Args:
        low: Value at the left edge.
        high: Value at the right edge, more than `low`.
        width: Pixels.
    """

    low: float
    high: float
    width: int

    def at(self, value: float) -> float:
        """Return the pixel of a value, kept inside the picture."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(4 + share * (self.width - 8), 1)


def change_axis(view: View) -> Axis:
    """Return the axis of changes of quality: what the table needs, but no further than a lost model goes.

    Of a metric in [0, 1] it shows at least a tenth of a point, so that what is next to nothing looks like that.
    """
    ends = [0.0]
    limits = []
    for run in view.measured:
        values = [finite(v) for v in (run.quality_delta, run.quality_delta_low, run.quality_delta_high)]
        ends += [value for value in values if value is not None]
        ends += [-NEAREST, NEAREST] if run.bounded else []
        limits.append(LOST if run.bounded else 2 * LOST * abs(finite(run.quality) or 0.0))
    limit = max(limits, default=LOST) or 1.0
    low, high = max(min(ends), -limit), min(max(ends), limit)
    margin = (high - low) * 0.06 or 1e-9
    return Axis(low - margin, high + margin, _WHISKER_WIDTH)


def speed_axis(view: View) -> Axis:
    """Return the axis of speedups, in logarithms: there runtime and technique add up."""
    ends = [0.0, math.log(2)]
    for run in view.measured:
        whole, runtime = finite(run.speedup), finite(run.speedup_runtime)
        ends += [math.log(value) for value in (whole, runtime) if value and value > 0]
    return Axis(min(ends), max(ends), _BAR_WIDTH)


def whisker(view: View, run: Run, axis: Axis, tone: Tone) -> str:
    """Return the interval of a run's change of quality around zero; nothing where there is none."""
    value, low, high = (finite(v) for v in (run.quality_delta, run.quality_delta_low, run.quality_delta_high))
    if value is None or low is None or high is None:
        return ""
    middle, zero, colour = _HEIGHT / 2, axis.at(0), COLOURS[tone]
    parts = f'<path d="M{zero} 0V{_HEIGHT}" stroke="{_TRACK}"/>'
    parts += f'<path d="M{axis.at(low)} {middle}H{axis.at(high)}" stroke="{colour}" stroke-width="2"/>'
    if axis.low <= value <= axis.high:
        parts += f'<circle cx="{axis.at(value)}" cy="{middle}" r="3.2" fill="{colour}"/>'
    else:
        # Off the picture: an arrow at the edge.
        edge, back = (1, 8) if value < axis.low else (axis.width - 1, axis.width - 8)
        parts += f'<path d="M{edge} {middle}L{back} 2V12Z" fill="{colour}"/>'
    said = f"{figures.change(run).value}{figures.change_unit(run)} {figures.change(run).bounds}"
    return _image(axis.width, parts, said)


def bar(view: View, run: Run, axis: Axis) -> str:
    """Return a run's speedup as a bar from 1, what the runtime gave lighter than what the technique gave.

    A speedup that nothing supports has none: it would be seen as one.
    """
    whole, runtime, own = (finite(v) for v in (run.speedup, run.speedup_runtime, run.speedup_technique))
    if whole is None or whole <= 0 or open_speedup(run):
        return ""
    # Where the untouched model does not run, nobody knows whose gain it is: the interval alone is drawn.
    start, end = axis.at(0), axis.at(math.log(whole) if runtime else 0)
    split = axis.at(math.log(runtime)) if runtime and runtime > 0 else start
    parts = f'<path d="M{start} 0V{_HEIGHT}" stroke="{_TRACK}"/>'
    parts += _stretch(start, split, _RUNTIME, 2, 10)
    # What takes back a part of the runtime's gain is drawn over it, in the lower half.
    back = (end - split) * (split - start) < 0
    parts += _stretch(split, end, _TECHNIQUE, 7 if back else 2, 5 if back else 10)
    low, high = finite(run.speedup_low), finite(run.speedup_high)
    if low is not None and low < most_speedup(run):
        # A side that is open reaches to the edge.
        left = axis.at(math.log(low)) if low > 0 else 0
        right = axis.width if high is None else axis.at(math.log(high))
        if right - left >= 2:
            parts += f'<path d="M{left} 7H{right}" stroke="{_TRACK}" stroke-width="1.5"/>'
    said = f"{figures.speedup(run).value}x {figures.speedup(run).bounds}".strip()
    if runtime and own and not run.is_baseline:
        halves = (figures.share_of_speedup(run, factor) for factor in (runtime, own))
        said += ": runtime {}x, technique {}x".format(*halves)
    return _image(axis.width, parts, said)


def _stretch(start: float, end: float, colour: str, top: int, height: int) -> str:
    left, width = min(start, end), round(abs(end - start), 1)
    return f'<rect x="{left}" y="{top}" width="{width}" height="{height}" fill="{colour}"/>' if width else ""


def _image(width: int, parts: str, said: str) -> str:
    style = "vertical-align:middle;display:inline-block;margin:0 0 0 6px;max-width:none"
    return picture(parts, width, _HEIGHT, said, style)
