"""Figures of a comparison: the Pareto front under limits, latencies, layers; a picture each, and Plotly where it shows.

The static forms are SVG in a data: address, which an untrusted notebook and nbconvert keep.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

from nbopt.bounds import open_speedup
from nbopt.charts import Figure
from nbopt.comparison import Comparison, Limits
from nbopt.errors import NbOptError, OptionError, nearest
from nbopt.measurement.audit import Audit
from nbopt.render import figures
from nbopt.render.figures import finite, metric_title, one_line
from nbopt.render.pictures import COLOURS
from nbopt.render.view import label_of, runtime_title
from nbopt.runs import Run

KINDS = ("pareto", "latency", "layers")
MOST_ROWS = 24
"""Rows of a picture of bars; the rest is counted in its words."""

_INK, _RULE, _FRONT = "#808890", "#80889055", "#2f74c8"
_WIDTH, _LEFT = 720, 250


def figure(comparison: Comparison, kind: str, limits: Limits | None = None) -> Figure:
    """Return a figure.

    Args:
        comparison: Runs of one workload.
        kind: One of `KINDS`.
        limits: What the user demands; runs that break it are grey in "pareto".

    Raises:
        OptionError: There is no such figure.
        NbOptError: Nothing was measured that it could show.
    """
    if kind == "pareto":
        return pareto(comparison, limits or Limits())
    if kind == "latency":
        return latencies(comparison)
    if kind == "layers":
        _check_one_workload(comparison)
        return layers(comparison.choose()[0])
    raise OptionError(f"a figure among {', '.join(KINDS)}", repr(kind), nearest(kind, KINDS))


def _check_one_workload(comparison: Comparison) -> None:
    """Refuse runs whose qualities do not compare: of another model, other rows, or another metric."""
    found = {run.workload_key: run.workload for run in comparison}
    if len(found) > 1:
        came = f"those of {len(found)}: {', '.join(one_line(name, 40) for name in found.values())}"
        raise NbOptError("runs of one workload", came, "a figure for each model's result")


def title_of(run: Run) -> str:
    """Return a run as a picture's label."""
    return f"{label_of(run)} \N{MIDDLE DOT} {runtime_title(run.runtime)}"


def pareto(comparison: Comparison, limits: Limits) -> Figure:
    """Return quality against speed, with the front that no other run beats on both, and what the limits leave."""
    points = [
        (run, x, y) for run in comparison if (x := _speed(run)) is not None and (y := finite(run.quality)) is not None
    ]
    if not points:
        raise NbOptError("runs with a quality and a speed", "none was measured", "%optimize use MODEL --valid VALID")
    _check_one_workload(comparison)
    # Of what is drawn: a control, which is not, may beat all of it.
    front = {run.id for run in Comparison([run for run, _, _ in points]).pareto()}
    kept = {run.id for run, _, _ in points if not limits.reasons(run)}
    across = _axis([math.log(x) for _, x, _ in points], 60, _WIDTH - 24)
    up = _axis([y for _, _, y in points], 250, 18)
    line = sorted((x, y) for run, x, y in points if run.id in front)
    parts = f'<path d="M60 262H{_WIDTH - 12}" stroke="{_RULE}"/><path d="M52 14V262" stroke="{_RULE}"/>'
    if len(line) > 1:
        path = " ".join(f"{across(math.log(x))},{up(y)}" for x, y in line)
        parts += f'<polyline points="{path}" fill="none" stroke="{_FRONT}" stroke-opacity=".6"/>'
    taken: list[tuple[float, float]] = []
    for run, x, y in sorted(points, key=lambda point: point[0].id in front):
        at, height = across(math.log(x)), up(y)
        colour = _FRONT if run.id in front and run.id in kept else _INK
        fill = colour if run.id in kept else "none"
        low, high = finite(run.quality_low), finite(run.quality_high)
        if low is not None and high is not None and run.id in front:
            top, bottom = max(up(high), 8), min(up(low), 260)
            parts += f'<path d="M{at} {top}V{bottom}" stroke="{colour}" stroke-opacity=".5"/>'
        parts += f'<circle cx="{at}" cy="{height}" r="4" fill="{fill}" stroke="{colour}"/>'
        # A label that would cover another is left to the hover and to the words.
        if run.id in front and all(abs(height - other) > 11 or abs(at - there) > 200 for there, other in taken):
            taken.append((at, height))
            side = "end" if at > _WIDTH - 220 else "start"
            parts += _text(at + (-8 if side == "end" else 8), height - 5, title_of(run), side)
    speeds, values = [x for _, x, _ in points], [y for _, _, y in points]
    parts += _text(60, 278, f"{min(speeds):.3g}x") + _text(_WIDTH - 24, 278, f"{max(speeds):.3g}x", "end")
    parts += _text((_WIDTH + 60) / 2, 278, "speedup", "middle")
    metric = metric_title(one_line(points[0][0].metric))
    parts += _text(46, up(max(values)) + 4, f"{max(values):.3g}", "end")
    if max(values) > min(values):
        parts += _text(46, up(min(values)) + 4, f"{min(values):.3g}", "end")
    best = [title_of(run) for run, _, _ in points if run.id in front]
    said = f"{metric} against speedup; nothing beats {'; '.join(best[:6])} on both"
    outside = len(points) - len(kept)
    if outside:
        demanded = str(limits).removeprefix("a run within ")
        said += f"; {outside} of {len(points)} " + (f"are outside {demanded}" if demanded else "collapsed")

    def draw() -> Any:
        import plotly.graph_objects as go

        groups = {"on the front": (front & kept, _FRONT), "others": (kept - front, _INK)}
        groups["outside the limits"] = ({run.id for run, _, _ in points} - kept, "#b8bec4")
        made = go.Figure()
        for name, (ids, colour) in groups.items():
            mine = [point for point in points if point[0].id in ids]
            if mine:
                made.add_scatter(
                    x=[x for _, x, _ in mine],
                    y=[y for _, _, y in mine],
                    mode="markers",
                    name=name,
                    text=[f"{escape(title_of(run))}<br>{escape(run.verdict)}" for run, _, _ in mine],
                    hovertemplate="%{text}<br>%{x:.3g}x, %{y:.4g}<extra></extra>",
                    marker={"color": colour, "size": 9},
                    error_y=_errors(mine),
                )
        if len(line) > 1:
            xs, ys = zip(*line, strict=True)
            made.add_scatter(x=xs, y=ys, mode="lines", name="front", line={"color": _FRONT, "width": 1})
        made.update_xaxes(type="log", title="speedup")
        made.update_yaxes(title=metric)
        return _styled(made)

    return Figure("Pareto front", _svg(parts, 286), said, draw)


def latencies(comparison: Comparison) -> Figure:
    """Return how long one row takes: the median with its interval, and the slowest tenth and hundredth of calls."""
    rows = [run for run in comparison if finite(run.latency_ms)]
    if not rows:
        raise NbOptError("runs with a latency", "none was measured", "%optimize use MODEL --valid VALID")
    shown, more = rows[:MOST_ROWS], max(0, len(rows) - MOST_ROWS)
    ends = [math.log(value) for run in shown for value in _spread(run)]
    across = _axis(ends, _LEFT + 10, _WIDTH - 70)
    parts = ""
    for index, run in enumerate(shown):
        middle = 16 + 22 * index
        low, median, high, most = (across(math.log(value)) for value in _spread(run))
        parts += _text(_LEFT, middle + 4, title_of(run), "end")
        parts += f'<path d="M{median} {middle}H{most}" stroke="{_INK}"/>'
        parts += f'<path d="M{high} {middle - 4}V{middle + 4}M{most} {middle - 4}V{middle + 4}" stroke="{_INK}"/>'
        parts += f'<path d="M{low} {middle}H{median}" stroke="{_FRONT}" stroke-width="3"/>'
        parts += f'<circle cx="{median}" cy="{middle}" r="4" fill="{_FRONT}"/>'
        parts += _text(most + 8, middle + 4, f"{figures.latency(run).value} ms")
    said = "; ".join(f"{title_of(run)} {figures.latency(run).value} ms" for run in shown)
    said += f"; and {more} more" if more else ""

    def draw() -> Any:
        import plotly.graph_objects as go

        made = go.Figure()
        names = [escape(title_of(run)) for run in shown]
        for name, field, symbol in (
            ("median", "latency_ms", "circle"),
            ("9 of 10 within", "latency_p90_ms", "line-ns-open"),
            ("99 of 100 within", "latency_p99_ms", "x-thin-open"),
        ):
            values = [finite(getattr(run, field)) for run in shown]
            made.add_scatter(x=values, y=names, mode="markers", name=name, marker={"symbol": symbol, "size": 10})
        made.update_xaxes(type="log", title="ms for one row")
        made.update_yaxes(autorange="reversed")
        return _styled(made, 120 + 26 * len(shown))

    return Figure("latency of one row: median, 9 of 10, 99 of 100", _svg(parts, 10 + 22 * len(shown)), said, draw)


def layers(run: Run) -> Figure:
    """Return what each layer of a run's file is: its precision, its zeros, its share of the work.

    Raises:
        NbOptError: The file was not audited.
    """
    found = Audit.from_dict(run.audit).layers if run.audit else ()
    if not found:
        raise NbOptError(f"the layers of {run.name}", "its file was not audited", "a run of another runtime")
    work = sum(layer.macs for layer in found) or 1
    ranked = sorted(found, key=lambda layer: -layer.macs)
    shown, more = ranked[:MOST_ROWS], max(0, len(ranked) - MOST_ROWS)
    parts, words = "", []
    for index, layer in enumerate(shown):
        middle = 16 + 22 * index
        share, zeros = layer.macs / work, layer.zeros / layer.weights if layer.weights else 0.0
        precision = one_line(layer.compute_dtype or layer.weight_dtype)
        colour = COLOURS["good"] if "int" in precision else _FRONT if precision == "float32" else COLOURS["mixed"]
        width, name = round(260 * share, 1), one_line(layer.name)
        parts += _text(_LEFT, middle + 4, name, "end")
        parts += f'<rect x="{_LEFT + 10}" y="{middle - 7}" width="{max(width, 1)}" height="14" fill="{colour}"/>'
        note = f"{share:.0%} {precision}{f', {zeros:.0%} zeros' if zeros >= 0.01 else ''}"
        parts += _text(_LEFT + 16 + width, middle + 4, note)
        words.append(f"{name} {note}")
    said = "share of the multiplications: " + "; ".join(words) + (f"; and {more} more" if more else "")

    def draw() -> Any:
        import plotly.graph_objects as go

        made = go.Figure(
            go.Bar(
                x=[layer.macs / work for layer in shown],
                y=[escape(one_line(layer.name)) for layer in shown],
                text=[escape(word) for word in words],
                orientation="h",
                marker={"color": _FRONT},
            )
        )
        made.update_xaxes(title="share of the multiplications", tickformat=".0%")
        made.update_yaxes(autorange="reversed")
        return _styled(made, 120 + 26 * len(shown))

    return Figure(f"layers of {title_of(run)}", _svg(parts, 10 + 22 * len(shown)), said, draw)


def _speed(run: Run) -> float | None:
    if run.failed or run.is_control or open_speedup(run):
        return None
    speed = finite(run.speedup) if run.speedup is not None else 1.0 if run.is_baseline else None
    return speed if speed and speed > 0 else None


def _spread(run: Run) -> tuple[float, float, float, float]:
    """Return a run's latencies in order: low bound of the median, median, 90th and 99th percentile."""
    median = finite(run.latency_ms) or 1.0
    low = min(finite(run.latency_low_ms) or median, median)
    high = max(finite(run.latency_p90_ms) or median, median)
    return low, median, high, max(finite(run.latency_p99_ms) or high, high)


def _errors(points: Sequence[tuple[Run, float, float]]) -> dict[str, Any]:
    up = [0.0 if (high := finite(run.quality_high)) is None else max(0.0, high - y) for run, _, y in points]
    down = [0.0 if (low := finite(run.quality_low)) is None else max(0.0, y - low) for run, _, y in points]
    return {"type": "data", "symmetric": False, "array": up, "arrayminus": down, "thickness": 1, "width": 2}


def _styled(made: Any, height: int = 420) -> Any:
    """Return a Plotly figure without a background of its own, so that it suits both themes."""
    clear = "rgba(0,0,0,0)"
    made.update_layout(
        template="none",
        height=height,
        paper_bgcolor=clear,
        plot_bgcolor=clear,
        font={"color": _INK},
        margin={"l": 60, "r": 20, "t": 20, "b": 50},
        legend={"orientation": "h"},
    )
    made.update_xaxes(gridcolor=_RULE, zeroline=False, automargin=True)
    made.update_yaxes(gridcolor=_RULE, zeroline=False, automargin=True)
    return made


def _axis(values: Sequence[float], start: float, end: float) -> Any:
    low, high = min(values), max(values)
    if high <= low:
        low, high = low - 0.5, high + 0.5
    return lambda value: round(start + (value - low) / (high - low) * (end - start), 1)


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    short = text if len(text) <= 44 else text[:43] + "\N{HORIZONTAL ELLIPSIS}"
    style = f'font-family="sans-serif" font-size="11" fill="{_INK}" text-anchor="{anchor}"'
    return f'<text x="{x}" y="{y}" {style}>{escape(short)}</text>'


def _svg(parts: str, height: int) -> str:
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}">{parts}</svg>'
