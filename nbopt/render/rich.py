"""The HTML form: readable in a saved notebook with no kernel, no trust and no extension.

JupyterLab's sanitizer keeps tables, details, inline styles and data: images of an untrusted notebook, and
drops scripts, style blocks and inline svg. Inline styles can't ask for the theme's variables, so text
inherits the theme's colour, and the few colours are mid tones that suit both themes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from nbopt.comparison import Comparison
from nbopt.render import figures
from nbopt.render.details import details_of
from nbopt.render.figures import NOTHING, one_line
from nbopt.render.markup import MUTED, markup, safe, typeset
from nbopt.render.pictures import COLOURS, LEGEND, Axis, bar, change_axis, speed_axis, whisker
from nbopt.render.sentences import Headline, Part, headline
from nbopt.render.view import COMPARE_RATIOS, Tone, View, label_of, notes_of, runtime_title, views
from nbopt.runs import Run

LIMIT_BYTES = 110_000
"""A notebook is saved with each of its outputs; beyond this, details and then pictures are left out."""

_TINT = "rgba(31,146,84,0.13)"
_RULE = "rgba(128,136,144,0.35)"


@dataclass(frozen=True)
class _Extent:
    """Say how much of a comparison is shown.

    Args:
        details: Every figure of every run.
        layers: The largest layers of every run, among the details.
        pictures: Whiskers and bars.
        styles: Rules and widths of cells; without, the page that shows the table decides.
        rows: Rows of each table at most, None for all.
    """

    details: bool = True
    layers: bool = True
    pictures: bool = True
    styles: bool = True
    rows: int | None = None


def html(comparison: Comparison, limit_bytes: int = LIMIT_BYTES) -> str:
    """Return a comparison as HTML of at most `limit_bytes`; what is left out for that is said in it."""
    shown = views(comparison)
    if not shown:
        return _box("No runs yet.")
    extents = [_Extent(), _Extent(layers=False), _Extent(details=False), _Extent(details=False, pictures=False)]
    extents += [_Extent(False, False, False, False, rows) for rows in (None, 500, 200, 100, 50, 20, 10, 5, 1)]
    page = ""
    for extent in extents:
        page = _box("".join(_section(view, extent) for view in shown))
        if len(page.encode()) <= limit_bytes:
            return page
    return _box(f"{len(comparison.runs)} runs of {len(shown)} workloads, too many to show here: cmp.frame()")


def _box(body: str) -> str:
    return f'<div style="font-size:13px;line-height:1.45;max-width:1240px">{body}</div>'


def _section(view: View, extent: _Extent) -> str:
    top = headline(view)
    left_out = []
    if not extent.details:
        left_out.append("the details of each run")
    elif not extent.layers:
        left_out.append("the layers of each run")
    if not extent.pictures:
        left_out.append("the pictures")
    rows = view.runs if extent.rows is None else view.runs[: extent.rows]
    if len(rows) < len(view.runs):
        left_out.append(f"{len(view.runs) - len(rows)} of {len(view.runs)} rows")
    notes: dict[str, int] = {}
    parts = [
        _line(top.strong, "font-size:18px;line-height:1.3;font-weight:600;margin:4px 0 2px 0"),
        _line(top.second, "margin:0 0 2px 0"),
        _line(top.conditions, f"font-size:12px;{MUTED};margin:0 0 8px 0"),
        _table(view, rows, extent, notes),
        _footnotes(view, notes),
        _next_step(top, view),
    ]
    if left_out:
        words = f"Left out to keep the notebook small: {', '.join(left_out)}. cmp.frame() has all figures."
        parts.append(f'<div style="font-size:12px;{MUTED}">{words}</div>')
    if extent.details:
        parts.append(details_of(view, layers=extent.layers))
    return f'<div style="margin:0 0 14px 0">{"".join(parts)}</div>'


def _line(parts: Sequence[Part], style: str) -> str:
    """Return a sentence on lines of its own; nothing where it is empty."""
    return f'<div style="{style}">{markup(parts)}</div>' if parts else ""


def _table(view: View, rows: Sequence[Run], extent: _Extent, notes: dict[str, int]) -> str:
    axes = (change_axis(view), speed_axis(view)) if extent.pictures else None
    drawn = "left" if axes else "right"
    heads = [("recipe", "left"), ("runtime", "left"), ("realised precision", "left")]
    if view.metric:
        heads += [(view.metric + (" %" if view.bounded else ""), "right")]
        heads += [("change, pt" if view.bounded else "change", drawn)]
    else:
        heads += [("agreement", "right"), ("max error", "left")]
    heads += [(f"size, {view.unit.name}", "right"), ("latency, ms", "right"), ("speedup", drawn)]
    heads += [("verdict", "left")]
    style = "padding:4px 6px;font-weight:400;font-size:12px;white-space:normal;vertical-align:bottom"
    head = "".join(f'<th style="{style};text-align:{side}">{_head(title, extent)}</th>' for title, side in heads)
    body = "".join(_row(view, run, axes, notes) for run in rows)
    body = body if extent.styles else _bare(body)
    table = "table-layout:auto;border-collapse:collapse;margin:0;font-size:13px;width:100%;min-width:820px"
    return (
        f'<div style="overflow-x:auto"><table style="{table}"><thead>'
        f'<tr style="background:transparent;border-bottom:1px solid {_RULE}">{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _head(title: str, extent: _Extent) -> str:
    """Return a column's title, with the key to its colours, as they are in the bars, where it has some."""
    if title != "speedup" or not extent.pictures:
        return _muted(safe(title))
    marks = (
        f'<span style="color:{colour}">\N{BLACK SQUARE}</span>{_muted("&nbsp;" + name)}'
        for name, colour in LEGEND.items()
    )
    return f"{_muted(title + ':')}<br>{' '.join(marks)}"


def _muted(html: str) -> str:
    return f'<span style="{MUTED}">{html}</span>'


def _row(view: View, run: Run, axes: tuple[Axis, Axis] | None, notes: dict[str, int]) -> str:
    best = run is view.best and run is not view.baseline
    fill = _TINT if best else "transparent"
    name = safe(label_of(run), 48)
    cells = [
        _cell(f"<b>{name}</b>" if best else name, title=run.name, wraps_at=100),
        _cell(safe(runtime_title(run.runtime), 40)),
    ]
    marks = "".join(f" [{notes.setdefault(note, len(notes) + 1)}]" for note in notes_of(run))
    if run.failed:
        reason = f"failed: {safe(run.reason, 400) or 'no reason was recorded'}{marks}"
        cells.append(_cell(reason, wraps_at=200, span=7))
    else:
        cells.append(_cell(safe(figures.precision(run), 140), muted=True, wraps_at=60))
        cells += _quality_cells(view, run, axes)
        cells.append(_cell(view.unit.number(run.size_bytes), right=True))
        cells.append(_cell(typeset(figures.latency(run).value), right=True))
        cells.append(_cell(_speedup(view, run, axes), right=axes is None))
        cells.append(_verdict(view, run, marks))
    opacity = f";{MUTED}" if run.failed else ""
    return f'<tr style="background:{fill};border-bottom:1px solid {_RULE}{opacity}">{"".join(cells)}</tr>'


def _bare(rows: str) -> str:
    """Return rows with no styles but those that a reader would miss; quotes in a user's text are escaped."""
    kept = (r"text-align:left", r"opacity:[\d.]+", r"color:#\w+", r"font-weight:\w+")

    def lighter(found: re.Match[str]) -> str:
        style = ";".join(rule for rule in found[1].split(";") if any(re.fullmatch(one, rule) for one in kept))
        return f' style="{style}"' if style else ""

    return re.sub(r"<span>([^<]*)</span>", r"\1", re.sub(r' style="([^"]*)"', lighter, rows))


def _cell(
    body: str,
    *,
    right: bool = False,
    muted: bool = False,
    wraps_at: int | None = None,
    span: int = 1,
    title: str = "",
) -> str:
    """Return a cell; figures stay on one line, words wrap and keep at least `wraps_at` pixels."""
    style = f"padding:5px 6px;text-align:{'right' if right else 'left'}"
    style += ";white-space:nowrap" if wraps_at is None else f";white-space:normal;min-width:{wraps_at}px"
    style += f";{MUTED}" if muted else ""
    attributes = f' colspan="{span}"' if span > 1 else ""
    attributes += f' title="{safe(title, 120)}"' if title else ""
    return f'<td style="{style}"{attributes}>{body}</td>'


def _number(text: str, pixels: int) -> str:
    """Return a figure that ends at the same place in all rows, before a picture."""
    style = f"display:inline-block;min-width:{pixels}px;text-align:right"
    return f'<span style="{style}">{typeset(text)}</span>'


def _quality_cells(view: View, run: Run, axes: tuple[Axis, Axis] | None) -> list[str]:
    if not view.metric:
        error = figures.figure(run.max_error).value
        return [_cell(figures.percent(run.agreement), right=True), _cell(typeset(error))]
    quality, delta = figures.quality(run), figures.change(run)
    shown = _cell(typeset(quality.value), right=True, title=f"{quality.value} {quality.bounds}".strip())
    if view.verdict(run, "quality") == "identical":
        return [shown, _cell("identical", muted=True)]
    if delta.value == NOTHING.value:
        return [shown, _cell("")]
    picture = whisker(view, run, axes[0], quality_tone(view, run)) if axes else ""
    bounds = "" if picture else f" {delta.bounds}"
    # Without a picture behind it a figure stands at the right, as all figures do; that is a style less for each row.
    return [shown, _cell(_number(delta.value, 40) + typeset(bounds) + picture, right=axes is None)]


def quality_tone(view: View, run: Run) -> Tone:
    """Return the tone of a run's change of quality, apart from what else it gained or lost."""
    verdict = view.verdict(run, "quality")
    if view.tone(run) == "bad" and verdict in {"worse", "slightly worse"}:
        return "bad"
    tones: dict[str, Tone] = {"same": "good", "better": "good", "slightly worse": "mixed", "worse": "mixed"}
    return tones.get(verdict, "plain")


def _speedup(view: View, run: Run, axes: tuple[Axis, Axis] | None) -> str:
    ratio = figures.speedup(run)
    value = "1" if run is view.baseline and run.latency_ms is not None else ratio.value
    if value == NOTHING.value:
        return ""
    number = _number(f"{value}x", 48)
    if run is view.baseline:
        return number
    if axes:
        return number + bar(view, run, axes[1])
    return f"{number} {typeset(ratio.bounds)}"


def _verdict(view: View, run: Run, marks: str) -> str:
    tone, words = view.tone(run), view.words(run)
    if words == NOTHING.value:
        return _cell(f"\N{EM DASH}{marks}", muted=True)
    mark = f'<span style="color:{COLOURS[tone]}">\N{BLACK CIRCLE}</span>&nbsp;'
    return _cell(f"{mark}{safe(words, 200)}{marks}", wraps_at=120)


def _footnotes(view: View, notes: dict[str, int]) -> str:
    lines = [f"[{number}] {safe(note, 400)}" for note, number in notes.items()]
    if view.differing:
        conditions = safe("; ".join(view.differing))
        lines.append(f"Measured under different conditions: {conditions}. {COMPARE_RATIOS}")
    if not lines:
        return ""
    return f'<div style="font-size:12px;{MUTED};margin:6px 0 0 0">{"<br>".join(lines)}</div>'


def next_line(top: Headline, view: View) -> str:
    """Return the magic that does the next thing, "" where nothing was measured."""
    if top.run is None:
        return ""
    if top.run is view.baseline:
        return "%optimize help"
    name = one_line(top.run.name)
    # A magic's value is a bare word, or a Python literal where it holds anything unusual.
    return f"%optimize export {name if re.fullmatch(r'[-+/#.=,@:%0-9A-Za-z_]+', name) else repr(name)} model"


def _next_step(top: Headline, view: View) -> str:
    line = next_line(top, view)
    code = f'<code style="font-size:12px">{escape(line, quote=True)}</code>'
    return f'<div style="margin:8px 0 4px 0">{code}</div>' if line else ""
