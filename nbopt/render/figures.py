"""Figures as text: never more digits than the interval supports, and nothing that is not finite."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from nbopt.bounds import open_speedup
from nbopt.measurement.statistics import Interval, decimals
from nbopt.runs import Run

POINTS = 100.0
"""Metrics in [0, 1] are written times 100, so that a difference of 0.01 is one point."""
POINT_DECIMALS = 2
"""A hundredth of a point is a row in ten thousand: less is no change that anybody asks for."""

_LARGEST = 1e300  # beyond this, rounding and differences overflow: such a figure is as good as unknown
_TITLES = {"auc": "AUC", "f1": "F1", "mae": "MAE", "mse": "MSE", "r2": "R2", "rmse": "RMSE"}


@dataclass(frozen=True)
class Figure:
    """Hold a figure as text.

    Args:
        value: The estimate, "-" where there is none.
        bounds: `[low, high]`, "" where no interval is known.
    """

    value: str
    bounds: str = ""

    def __str__(self) -> str:
        return f"{self.value} {self.bounds}".rstrip()


NOTHING = Figure("-")
UNKNOWN = Figure("?", "[0, ∞]")
"""A ratio of which the machine, or few rounds, left everything open: no digit of its estimate is supported."""


def finite(value: float | None) -> float | None:
    """Return the value, or None where it is NaN, infinite or too large to calculate with."""
    if value is None or not math.isfinite(value) or abs(value) > _LARGEST:
        return None
    return float(value)


def write(value: float, places: int, *, sign: bool = False) -> str:
    """Write a number rounded to `places` decimals; negative places round to tens or hundreds."""
    rounded = round(value, places)
    if rounded == 0:
        # Without a sign: a negative number that rounds to zero would read as a loss that is not there.
        return f"{0:.{max(0, min(places, 4))}f}"
    plus = "+" if sign else ""
    if not 1e-4 <= abs(rounded) < 1e7:
        return f"{rounded:{plus}.{max(0, math.floor(math.log10(abs(rounded))) + places)}e}"
    return f"{rounded:{plus}{',' if abs(rounded) >= 1e5 else ''}.{max(places, 0)}f}"


def write_short(value: float) -> str:
    """Write a number of which nothing else is known, with four digits."""
    return f"{value:.4g}"


def figure(
    value: float | None,
    low: float | None = None,
    high: float | None = None,
    *,
    scale: float = 1.0,
    sign: bool = False,
    digits: int = 2,
    finest: int = -400,
    most: int = 400,
    visible: bool = False,
) -> Figure:
    """Return a figure with the digits that its interval supports.

    Args:
        value: The estimate; None gives "-".
        low: Lower bound of the interval.
        high: Upper bound of the interval; where just one bound is known the other side is open.
        scale: Factor on all three.
        sign: Write a plus before what is above zero.
        digits: Significant digits where no interval is known.
        finest: Decimals kept even where the interval is wider than that; 0 keeps whole points.
        most: Decimals at most, however narrow the interval is.
        visible: Keep the first digit of the value however wide the interval is: a ratio is never 0.
    """
    estimate = finite(value)
    if estimate is None:
        return NOTHING
    estimate *= scale
    lower, upper = finite(low), finite(high)
    if lower is None and upper is None:
        return Figure(write(estimate, decimals(estimate, 0, digits=digits), sign=sign))
    known = Interval(
        estimate, -math.inf if lower is None else lower * scale, math.inf if upper is None else upper * scale
    )
    reach = known.half_width
    places = max(decimals(estimate, reach, digits=max(3, digits)), finest)
    if visible and estimate:
        places = max(places, -math.floor(math.log10(abs(estimate))))
    places = min(places, most)
    below = "-∞" if lower is None else write(lower * scale, places, sign=sign)
    above = "∞" if upper is None else write(upper * scale, places, sign=sign)
    return Figure(write(estimate, places, sign=sign), f"[{below}, {above}]")


def quality(run: Run) -> Figure:
    """Return a run's quality: times 100 where the metric lies in [0, 1], else in its own units."""
    return figure(
        run.quality,
        run.quality_low,
        run.quality_high,
        scale=POINTS if run.bounded else 1.0,
        digits=3,
        finest=0 if run.bounded else -400,
    )


def change(run: Run) -> Figure:
    """Return a run's quality less the baseline's: in points where the metric lies in [0, 1]."""
    return figure(
        run.quality_delta,
        run.quality_delta_low,
        run.quality_delta_high,
        scale=POINTS if run.bounded else 1.0,
        sign=True,
        most=POINT_DECIMALS if run.bounded else 400,
    )


def step_change(run: Run, step: Mapping[str, Any]) -> str:
    """Return how quality changed by a step of a run's pipeline, with unit and bounds; "" where it was not measured."""
    if step["quality_delta"] is None:
        return ""
    bounds = (step[f"quality_delta{end}"] for end in ("", "_low", "_high"))
    most = POINT_DECIMALS if run.bounded else 400
    changed = figure(*bounds, scale=POINTS if run.bounded else 1.0, sign=True, most=most)
    return f"{metric_title(one_line(run.metric, 60))} {changed.value}{change_unit(run)} {changed.bounds}"


def step_gains(run: Run, step: Mapping[str, Any]) -> str:
    """Return what a step of a run's pipeline gave on each axis."""
    speed, word = of_ratio(step, "speedup"), "faster"
    if speed is not UNKNOWN and step["speedup"] < 1:
        speed, word = _inverse(*(step[f"speedup{end}"] for end in ("", "_low", "_high"))), "slower"
    gained = "speed unknown" if speed is UNKNOWN else f"{speed.value}x {word} {speed.bounds}"
    return ", ".join(filter(None, [gained, shrinkage(step["size_ratio"]), step_change(run, step)]))


def shrinkage(ratio: float) -> str:
    """Return how many times smaller, or larger, a file is: its ratio is 2 where it is half as large."""
    return f"{times(ratio)}x smaller" if ratio >= 1 or ratio <= 0 else f"{times(1 / ratio)}x larger"


def change_unit(run: Run) -> str:
    """Return the unit of `change`, with a space before it: " pt", or nothing for the metric's own units."""
    return " pt" if run.bounded else ""


def latency(run: Run) -> Figure:
    """Return a run's latency in milliseconds."""
    return figure(run.latency_ms, run.latency_low_ms, run.latency_high_ms, visible=True)


def speedup(run: Run) -> Figure:
    """Return how many times faster than the baseline a run is."""
    return _ratio(run.speedup, run.speedup_low, run.speedup_high)


def of_ratio(record: Mapping[str, Any], name: str) -> Figure:
    """Return a ratio with its bounds from plain data with the keys `name`, `name_low` and `name_high`."""
    return _ratio(record[name], record[f"{name}_low"], record[f"{name}_high"])


def _ratio(value: float | None, low: float | None, high: float | None) -> Figure:
    """Return a ratio; one that is exact has no bounds, and a stored run has no infinity for one that is open above."""
    estimate, above = finite(value), finite(high)
    bounds = None if estimate is None or low is None else Interval(estimate, low, math.inf if above is None else above)
    if bounds is not None and bounds.unknown:
        return UNKNOWN
    return figure(value, low, high, visible=True)


def slowdown(run: Run) -> Figure:
    """Return how many times slower than the baseline a run is: the inverse of `speedup`."""
    return _inverse(run.speedup, run.speedup_low, run.speedup_high)


def _inverse(*bounds: float | None) -> Figure:
    value, low, high = map(finite, bounds)
    if not value:
        return NOTHING
    if bounds[1] is None:
        return figure(1 / value)
    return _ratio(1 / value, 0.0 if high is None else 1 / high, 1 / low if low else math.inf)


def share_of_speedup(run: Run, factor: float | None) -> str:
    """Return one of the two factors of a speedup, with no more digits than the speedup itself has."""
    value, low, high = (finite(x) for x in (run.speedup, run.speedup_low, run.speedup_high))
    part = finite(factor)
    if part is None or open_speedup(run):
        return NOTHING.value
    if not value or low is None or high is None:
        return figure(part).value
    relative = (high - low) / 2 / value
    places = decimals(part, part * relative, digits=3)
    whole = max(decimals(value, value * relative, digits=3), -math.floor(math.log10(abs(value))))
    # A factor below 0.1 of a large speedup still shows its first digit.
    return write(part, max(min(places, whole), -math.floor(math.log10(abs(part))) if part else 0))


def times(ratio: float) -> str:
    """Write the ratio of two exact figures: two decimals below 2, one below 10, then none."""
    return write(ratio, 2 if ratio < 2 else 1 if ratio < 10 else 0)


def percent(share: float | None) -> str:
    """Write a share as a percentage, rounded down: 0.9999 is 99.99%, not 100%."""
    value = finite(share)
    if value is None:
        return NOTHING.value
    return f"{math.floor(value * 1e4 + 1e-6) / 100:g}%"


def precision(run: Run) -> str:
    """Write what a run's weights are stored in, what they run in where that differs, and how many are zero."""
    words = [one_line(run.dtype, 60)] if run.dtype else []
    if run.precision and run.precision != run.dtype:
        words.append(f"runs in {one_line(run.precision, 30)}")
    if run.params and run.nonzero_params is not None and run.nonzero_params < 0.99 * run.params:
        words.append(f"{percent(round(1 - run.nonzero_params / run.params, 2))} zeros")
    return " \N{MIDDLE DOT} ".join(words)


@dataclass(frozen=True)
class Unit:
    """Hold a unit of bytes.

    Args:
        name: "B", "kB", "MB" or "GB".
        size: Bytes in one.
    """

    name: str
    size: float

    def number(self, count: float | None) -> str:
        """Write bytes in this unit, without its name."""
        value = finite(count)
        if value is None:
            return NOTHING.value
        value /= self.size
        if value == 0:
            return "0"
        if self.size == 1 or value >= 100:
            return write(value, 0)
        return write(value, 1 if value >= 10 else 2 if value >= 0.1 else decimals(value, 0, digits=2))

    def text(self, count: float | None) -> str:
        """Write bytes in this unit."""
        number = self.number(count)
        return number if number == NOTHING.value else f"{number} {self.name}"


def unit_of(counts: Iterable[float | None]) -> Unit:
    """Return the unit that suits the largest of these byte counts, so that a table needs only one."""
    largest = max((value for count in counts if (value := finite(count)) is not None), default=1e6)
    for name, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if largest >= size / 5:
            return Unit(name, size)
    return Unit("B", 1.0)


def in_bytes(count: float | None) -> str:
    """Write one byte count in the unit that suits it."""
    return unit_of([count]).text(count)


def metric_title(metric: str) -> str:
    """Return a metric's name as a reader writes it."""
    return _TITLES.get(metric, metric.replace("_", " "))


def one_line(text: str, limit: int | None = None) -> str:
    """Return text of a user on one line, without control characters, cut at `limit`."""
    flat = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if limit is not None and len(flat) > limit:
        return flat[: limit - 3].rstrip() + "..."
    return flat
