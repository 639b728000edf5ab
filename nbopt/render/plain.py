"""The plain-text form: a line of conditions, a sentence, an aligned table."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Sequence

from nbopt.comparison import Comparison
from nbopt.render import figures
from nbopt.render.figures import NOTHING, one_line
from nbopt.render.sentences import headline, plain
from nbopt.render.view import COMPARE_RATIOS, View, label_of, notes_of, views
from nbopt.runs import Run

WIDTH = 140
"""Columns that a terminal and a notebook's output area both have room for."""

_GAP = "  "
_FEWEST_FOR_VERDICT = 22  # narrower, and names and verdicts stand on lines of their own
_FEWEST_FOR_NAME = 18
_STUCK = "\N{NO-BREAK SPACE}"  # a footnote's mark does not start a line


def text(comparison: Comparison, width: int = WIDTH) -> str:
    """Return a comparison as plain text.

    Args:
        comparison: Runs; those of several workloads become several tables.
        width: Columns to fill; figures are never shortened, so a very narrow table may be wider.
    """
    if not comparison.runs:
        return "No runs yet."
    return "\n\n".join(_section(view, width) for view in views(comparison))


def _section(view: View, width: int) -> str:
    top = headline(view)
    lines = textwrap.wrap(plain(top.conditions), width)
    lines += textwrap.wrap(plain(top.strong), width)
    lines += textwrap.wrap(plain(top.second), width)
    lines.append("")
    notes: dict[str, int] = {}
    lines += _table(view, width, notes)
    if notes:
        lines.append("")
    for note, number in notes.items():
        lines += textwrap.wrap(f"[{number}] {note}", width, subsequent_indent="    ")
    if view.differing:
        differing = "; ".join(view.differing)
        warning = f"Measured under different conditions: {differing}. {COMPARE_RATIOS}"
        lines += ["", *textwrap.wrap(warning, width)]
    return "\n".join(line.rstrip() for line in lines).replace(_STUCK, " ")


def _table(view: View, width: int, notes: dict[str, int]) -> list[str]:
    """Return the table's lines, and fill `notes` with footnotes by text."""
    head = _figure_heads(view)
    cells = [_figures(view, run) for run in view.runs]
    widths = [max(map(columns, column)) for column in zip(head, *cells, strict=True)]
    marks = [_marks(run, notes) for run in view.runs]
    verdicts = [(view.words(run) + mark).strip() for run, mark in zip(view.runs, marks, strict=True)]
    names = [one_line(f"{run.name} {_detail(run)}") for run in view.runs]
    reasons = [_failure(run) + mark for run, mark in zip(view.runs, marks, strict=True)]
    # Names are what is typed to reach a run: a recipe's details are shortened, a name is not.
    shortest = max([columns(one_line(run.name)) for run in view.runs] + [_FEWEST_FOR_NAME])
    room = width - sum(widths) - len(_GAP) * (len(widths) + 1)
    if room < shortest + _FEWEST_FOR_VERDICT:
        return _in_two_lines(view, width, (head, widths, cells), names, verdicts, reasons)
    wanted = max(map(columns, names))
    spare = room - min(max(map(columns, [*verdicts, "verdict"])), _FEWEST_FOR_VERDICT)
    first = max(shortest, min(wanted, spare))
    indent = first + len(_GAP) + sum(widths) + len(_GAP) * len(widths)
    lines = [_GAP.join([pad("run", first), *map(pad, head, widths), "verdict"])]
    for run, name, row, verdict, reason in zip(view.runs, names, cells, verdicts, reasons, strict=True):
        start = pad(cut(name, first), first)
        if run.failed:
            lines += _hung(start + _GAP, reason, width, first + len(_GAP) + 2)
        else:
            lines += _hung(_GAP.join([start, *map(pad, row, widths), ""]), verdict, width, indent)
    return lines


def _in_two_lines(
    view: View,
    width: int,
    table: tuple[Sequence[str], Sequence[int], Sequence[Sequence[str]]],
    names: Sequence[str],
    verdicts: Sequence[str],
    reasons: Sequence[str],
) -> list[str]:
    """Return the table for a narrow terminal: name and verdict above their figures."""
    head, widths, cells = table
    lines = ["  " + _GAP.join(map(pad, head, widths))]
    for run, name, row, verdict, reason in zip(view.runs, names, cells, verdicts, reasons, strict=True):
        said = reason if run.failed else verdict
        lines += textwrap.wrap(name if said == "-" else f"{name}: {said}", width, subsequent_indent="    ")
        if not run.failed:
            lines.append("  " + _GAP.join(map(pad, row, widths)))
    return lines


def _figure_heads(view: View) -> tuple[str, ...]:
    quality = (f"{view.metric} %", "change pt") if view.bounded else (view.metric, "change")
    if not view.metric:
        quality = ("agreement", "max error")
    return (*quality, "size", "latency", "speedup")


def _figures(view: View, run: Run) -> tuple[str, ...]:
    if view.metric:
        same = view.verdict(run, "quality") == "identical"
        quality = (figures.quality(run).value, "identical" if same else str(figures.change(run)))
    else:
        quality = (figures.percent(run.agreement), figures.figure(run.max_error).value)
    return (*quality, view.unit.text(run.size_bytes), _latency(run), _speedup(view, run))


def _latency(run: Run) -> str:
    value = figures.latency(run).value
    return value if value == NOTHING.value else f"{value} ms"


def _speedup(view: View, run: Run) -> str:
    # The baseline's own ratio is 1 by definition, however its two halves were timed.
    if run is view.baseline and run.latency_ms is not None:
        return "1"
    return str(figures.speedup(run))


def _detail(run: Run) -> str:
    """Return what the recipe's label says beyond the run's name."""
    known = one_line(run.name).replace("/", " ").replace("+", " ").split()
    return " ".join(word for word in label_of(run).split() if word not in known and word != "+")


def cut(text: str, width: int) -> str:
    """Return text cut to `width` columns, with two dots where something is gone."""
    if columns(text) <= width:
        return text
    while text and columns(text) > width - 2:
        text = text[:-1]
    return text.rstrip() + ".."


def _marks(run: Run, notes: dict[str, int]) -> str:
    numbers = [notes.setdefault(note, len(notes) + 1) for note in notes_of(run)]
    return "".join(f"{_STUCK}[{number}]" for number in numbers)


def _failure(run: Run) -> str:
    return f"failed  {one_line(run.reason) or 'no reason was recorded'}" if run.failed else ""


def _hung(start: str, text: str, width: int, indent: int) -> list[str]:
    """Return text after `start`, wrapped, with further lines indented."""
    room = max(_FEWEST_FOR_VERDICT, width - columns(start))
    first, *rest = textwrap.wrap(text, room) or [NOTHING.value]
    further = textwrap.wrap(" ".join(rest), max(20, width - indent))
    return [start + first, *(" " * indent + line for line in further)]


def pad(text: str, width: int) -> str:
    """Return text filled with spaces to `width` columns."""
    return text + " " * (width - columns(text))


def columns(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
