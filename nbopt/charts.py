"""Figures of a search: history, importances, parallel coordinates, slice; a picture each, and Plotly where it shows.

Optuna draws the interactive forms. The static ones are drawn here as SVG in a data: address, which an untrusted
notebook and nbconvert keep; colours are mid tones that stand out from light and dark alike.
"""

from __future__ import annotations

import base64
import json
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from nbopt.errors import MissingExtra, OptionError, nearest
from nbopt.studies.extra import has, load, quiet

KINDS = ("history", "importances", "parallel", "slice")
MOST_TRIALS = 300
"""Trials in a picture: the best and the latest; more would only add to the notebook's size."""

_INK, _DOT, _BEST, _MUTED = "#808890", "#86aee0", "#2f74c8", "#b8bec4"
_WIDTH, _HEIGHT = 560, 200
_PLOTLY_MIME = "application/vnd.plotly.v1+json"


@dataclass(frozen=True)
class Point:
    """Hold a finished trial as a picture needs it.

    Args:
        number: The trial's number.
        score: Its first value.
        params: Its parameters.
        pruned: It ended before its last step.
    """

    number: int
    score: float
    params: dict[str, Any]
    pruned: bool


@dataclass(frozen=True)
class Figure:
    """Hold one figure of a study.

    Args:
        title: What it shows.
        svg: The static form.
        said: The same in words.
        draw: Makes the interactive form.
    """

    title: str
    svg: str
    said: str
    draw: Callable[[], Any]

    @property
    def plotly(self) -> Any:
        """Return the Plotly figure.

        Raises:
            MissingExtra: Plotly is not installed.
        """
        if not has("plotly"):
            raise MissingExtra("plotly", "notebook", "interactive figures")
        with quiet(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"optuna\.(importance|visualization)")
            return self.draw()

    @property
    def image(self) -> str:
        """Return the static form as an image element."""
        data = base64.b64encode(self.svg.encode()).decode()
        said = escape(self.said, quote=True)
        return f'<img src="data:image/svg+xml;base64,{data}" alt="{said}" title="{said}" style="max-width:100%">'

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        found = {
            "text/plain": f"{self.title}: {self.said}",
            "text/html": f"<div>{escape(self.title)}</div>{self.image}",
        }
        if has("plotly"):
            found[_PLOTLY_MIME] = json.loads(self.plotly.to_json())
        return found


def figure(study: Any, kind: str, score: str = "score") -> Figure:
    """Return a figure of a study.

    Args:
        study: An Optuna study; of several objectives the first is shown.
        kind: One of `KINDS`.
        score: Name of the score.

    Raises:
        OptionError: There is no such figure.
    """
    if kind not in KINDS:
        raise OptionError(f"a figure among {', '.join(KINDS)}", repr(kind), nearest(kind, KINDS))
    points, maximize = points_of(study), study.directions[0].name == "MAXIMIZE"
    target = {} if len(study.directions) == 1 else {"target": lambda trial: trial.values[0]}
    shown = load().visualization
    name = {"target_name": score, **target}
    if kind == "history":
        svg, said = history(points, maximize, score)
        return Figure("history", svg, said, lambda: shown.plot_optimization_history(study, **name))
    if kind == "importances":
        svg, said = bars(importances(study))
        least = {"target": lambda trial: trial.values[0] * (-1 if maximize else 1)} if target else {}
        return Figure("importances", svg, said, lambda: shown.plot_param_importances(study, target_name=score, **least))
    if kind == "parallel":
        svg, said = parallel(points, _distributions(study), maximize, score)
        return Figure("parallel coordinates", svg, said, lambda: shown.plot_parallel_coordinate(study, **name))
    svg, said = slices(points, _distributions(study), maximize, score)
    return Figure("slice", svg, said, lambda: shown.plot_slice(study, **name))


def points_of(study: Any) -> list[Point]:
    """Return the finished trials that have a score, at most `MOST_TRIALS`: the best half of them and the latest."""
    states = load().trial.TrialState
    found = [
        Point(trial.number, float(trial.values[0]), dict(trial.params), trial.state == states.PRUNED)
        for trial in study.get_trials(deepcopy=False, states=(states.COMPLETE, states.PRUNED))
        if trial.values and math.isfinite(trial.values[0])
    ]
    if len(found) <= MOST_TRIALS:
        return found
    sign = -1 if study.directions[0].name == "MAXIMIZE" else 1
    best = {point.number for point in sorted(found, key=lambda point: sign * point.score)[: MOST_TRIALS // 2]}
    rest = [point.number for point in found if point.number not in best][-(MOST_TRIALS - len(best)) :]
    kept = best | set(rest)
    return [point for point in found if point.number in kept]


def importances(study: Any) -> dict[str, float]:
    """Return how much each parameter matters for the first score, largest first; nothing where trials do not tell.

    PED-ANOVA (Watanabe et al. 2023), Optuna's default: it needs no forest, and asks what tells good trials from others.
    """
    # With a target of our own Optuna asks what makes it small, whatever the direction.
    sign = -1 if study.directions[0].name == "MAXIMIZE" else 1
    target = {} if len(study.directions) == 1 else {"target": lambda trial: sign * trial.values[0]}
    try:
        with quiet(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"optuna\.importance")
            # Of too few trials Optuna warns, and gives all parameters the same share: that would be no figure.
            warnings.filterwarnings("error", message="The number of trials is too small")
            found: dict[str, float] = load().importance.get_param_importances(study, **target)
    except (ValueError, RuntimeError, UserWarning):
        return {}  # fewer than two trials, or parameters that no two trials share
    return found


def history(points: Sequence[Point], maximize: bool, score: str = "score") -> tuple[str, str]:
    """Return the scores of trials in order with the best so far, as SVG and in words."""
    full = [point for point in points if not point.pruned]
    if not full:
        return _empty("no trial has ended with a score")
    best = (
        np.maximum.accumulate([p.score for p in full]) if maximize else np.minimum.accumulate([p.score for p in full])
    )
    across = _scale(min(p.number for p in points), max(p.number for p in points), 56, _WIDTH - 12)
    up = _scale(*_span([p.score for p in full]), _HEIGHT - 28, 12)
    dots = "".join(
        f'<circle cx="{across(p.number)}" cy="{up(p.score)}" r="2.5" fill="{_MUTED if p.pruned else _DOT}"/>'
        for p in points
    )
    steps: list[str] = []
    for point, value in zip(full, best, strict=True):
        steps += [f"{across(point.number)},{up(float(best[len(steps) // 2 - 1])) if steps else up(float(value))}"]
        steps += [f"{across(point.number)},{up(float(value))}"]
    line = f'<polyline points="{" ".join(steps)}" fill="none" stroke="{_BEST}" stroke-width="1.5"/>'
    low, high = _span([p.score for p in full])
    labels = _text(50, up(low), _short(low), "end") + _text(50, up(high) + 8, _short(high), "end")
    labels += _text(56, _HEIGHT - 8, f"trial {points[0].number}") + _text(
        _WIDTH - 12, _HEIGHT - 8, str(points[-1].number), "end"
    )
    won = full[int(np.argmax([p.score for p in full]) if maximize else np.argmin([p.score for p in full]))]
    said = f"best {score} {_short(won.score)} in trial {won.number}, of {len(points)} trials"
    return _svg(dots + line + labels), said


def bars(shares: dict[str, float]) -> tuple[str, str]:
    """Return the importance of each parameter as bars, as SVG and in words."""
    if not shares:
        return _empty("too few trials to tell")
    shown = list(shares.items())[:12]
    most = max(value for _, value in shown) or 1.0
    parts = ""
    for row, (name, value) in enumerate(shown):
        top = 8 + 22 * row
        width = round(280 * value / most, 1)
        parts += _text(170, top + 12, _cut(name, 26), "end")
        parts += f'<rect x="178" y="{top}" width="{width}" height="15" fill="{_BEST}"/>'
        parts += _text(184 + width, top + 12, f"{value:.0%}")
    return _svg(parts, 16 + 22 * len(shown)), ", ".join(f"{name} {value:.0%}" for name, value in shown)


def parallel(points: Sequence[Point], space: dict[str, Any], maximize: bool, score: str = "score") -> tuple[str, str]:
    """Return a line for each trial across all parameters and the score, the best tenth strong."""
    full = [point for point in points if not point.pruned]
    if not full or not space:
        return _empty("no trial has ended with a score")
    names = list(space)[:10]
    xs = [round(40 + i * (_WIDTH - 80) / len(names), 1) for i in range(len(names) + 1)]
    span = _span([point.score for point in full])
    up = _scale(0, 1, _HEIGHT - 40, 26)
    ranked = sorted(full, key=lambda point: point.score, reverse=not maximize)  # the best are drawn last, on top
    strong = {point.number for point in ranked[-max(1, len(ranked) // 10) :]}
    parts = ""
    for point in ranked:
        path = [
            (x, up(share_of(space[n], point.params[n]))) for x, n in zip(xs, names, strict=False) if n in point.params
        ]
        path.append((xs[-1], up((point.score - span[0]) / (span[1] - span[0]))))
        ink = (
            f'stroke="{_BEST}" stroke-opacity="0.9"'
            if point.number in strong
            else f'stroke="{_DOT}" stroke-opacity="0.35"'
        )
        parts += f'<polyline points="{" ".join(f"{x},{y}" for x, y in path)}" fill="none" {ink}/>'
    for x, name in zip(xs, [*names, score], strict=True):
        parts += f'<line x1="{x}" y1="26" x2="{x}" y2="{_HEIGHT - 40}" stroke="{_INK}"/>'
        low, high = map(_short, span) if name == score and x == xs[-1] else ends_of(space[name])
        parts += _text(x, 20, _cut(high, 10), "middle") + _text(x, _HEIGHT - 27, _cut(low, 10), "middle")
        parts += _text(x, _HEIGHT - 10, _cut(name, 13), "middle")
    best = ranked[-1]
    settings = ", ".join(f"{name} {_short(value)}" for name, value in best.params.items())
    return _svg(parts), f"best {score} {_short(best.score)} at {settings}"


def slices(points: Sequence[Point], space: dict[str, Any], maximize: bool, score: str = "score") -> tuple[str, str]:
    """Return the score against each parameter alone, a small picture each, later trials darker."""
    full = [point for point in points if not point.pruned]
    if not full or not space:
        return _empty("no trial has ended with a score")
    names, each = list(space)[:8], 134
    span, last = _span([point.score for point in full]), max(point.number for point in full) or 1
    rows = math.ceil(len(names) / 4)
    parts = ""
    for place, name in enumerate(names):
        left, top = 10 + (place % 4) * each, 8 + (place // 4) * 130
        across, up = _scale(0, 1, left + 8, left + each - 18), _scale(*span, top + 88, top + 8)
        parts += f'<rect x="{left}" y="{top}" width="{each - 10}" height="96" fill="none" stroke="{_MUTED}"/>'
        parts += "".join(
            f'<circle cx="{across(share_of(space[name], p.params[name]))}" cy="{up(p.score)}" r="2" fill="{_BEST}" '
            f'fill-opacity="{0.25 + 0.75 * p.number / last:.2f}"/>'
            for p in full
            if name in p.params
        )
        low, high = ends_of(space[name])
        parts += _text(left, top + 108, _cut(low, 8)) + _text(left + each - 10, top + 108, _cut(high, 8), "end")
        parts += _text(left + (each - 10) / 2, top + 120, _cut(name, 16), "middle")
    best = (max if maximize else min)(full, key=lambda point: point.score)
    return _svg(parts, 12 + 130 * rows), f"{score} against {', '.join(names)}; best {_short(best.score)}"


def share_of(distribution: Any, value: Any) -> float:
    """Return where in its range a value lies, from 0 to 1: by logarithm where it was drawn so, by order of choices."""
    if hasattr(distribution, "choices"):
        return distribution.choices.index(value) / max(1, len(distribution.choices) - 1)
    low, high, at = float(distribution.low), float(distribution.high), float(value)
    if distribution.log:
        low, high, at = math.log(low), math.log(high), math.log(at)
    return min(1.0, max(0.0, (at - low) / (high - low))) if high > low else 0.5


def ends_of(distribution: Any) -> tuple[str, str]:
    """Return what stands at the two ends of a parameter's axis."""
    if hasattr(distribution, "choices"):
        return str(distribution.choices[0]), str(distribution.choices[-1])
    return _short(distribution.low), _short(distribution.high)


def _distributions(study: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for trial in study.get_trials(deepcopy=False):
        for name, each in trial.distributions.items():
            before = found.get(name)
            if before is not None and not hasattr(each, "choices") and not hasattr(before, "choices"):
                # A range that grew between trials: the axis holds all of it.
                low, high = min(before.low, each.low), max(before.high, each.high)
                each = each if (each.low, each.high) == (low, high) else before  # noqa: PLW2901
            found[name] = each
    return found


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    spread = high - low or 1.0
    return lambda value: round(start + (value - low) / spread * (end - start), 1)


def _span(scores: Sequence[float]) -> tuple[float, float]:
    """Return the range that a picture shows, never empty."""
    low, high = min(scores), max(scores)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    style = f'font-family="sans-serif" font-size="11" fill="{_INK}" text-anchor="{anchor}"'
    return f'<text x="{x}" y="{y}" {style}>{escape(text)}</text>'


def _svg(parts: str, height: int = _HEIGHT) -> str:
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}">{parts}</svg>'


def _empty(said: str) -> tuple[str, str]:
    return _svg(_text(10, 20, said), 30), said


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"
