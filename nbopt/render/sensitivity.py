"""What single layers cost, as a picture: a bar for each, in the order of the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nbopt.render.figures import figure, finite, one_line
from nbopt.render.markup import safe, typeset
from nbopt.render.pictures import COLOURS, LEGEND
from nbopt.render.plain import WIDTH, columns, cut, pad

ROWS = 40
"""Layers shown at most, the most sensitive; the others are counted."""

_BAR_PIXELS, _BAR_COLUMNS = 160, 24


def sensitivity_html(body: Mapping[str, Any], *, rows: int = ROWS) -> str:
    """Return bars that an untrusted notebook keeps; "" where nothing was measured.

    Args:
        body: `Run.sensitivity`.
        rows: Layers at most.
    """
    known = _read(body, rows)
    if known is None:
        return ""
    what, layers, kept, left_out = known
    largest = max((value for _, value in layers), default=0.0) or 1.0
    lines = []
    for name, value in layers:
        colour = COLOURS["mixed"] if name in kept else LEGEND["technique"]
        width = max(1, round(_BAR_PIXELS * value / largest))
        bar = f'<div style="background:{colour};height:9px;width:{width}px"></div>'
        note = "stays float" if name in kept else ""
        cells = (safe(name, 80), typeset(figure(value).value), bar, note)
        lines.append("".join(f'<td style="padding:1px 8px 1px 0;text-align:left">{cell}</td>' for cell in cells))
    table = "".join(f"<tr>{line}</tr>" for line in lines)
    more = f"<div>{left_out:,} less sensitive layers are left out</div>" if left_out else ""
    return (
        f'<div style="font-size:12px"><div>{safe(what, 200)}</div>'
        f'<table style="border-collapse:collapse;font-size:12px;margin:2px 0 4px 0"><tbody>{table}</tbody></table>'
        f"{more}</div>"
    )


def sensitivity_text(body: Mapping[str, Any], *, width: int = WIDTH, rows: int = ROWS) -> str:
    """Return the same bars for a terminal."""
    known = _read(body, rows)
    if known is None:
        return ""
    what, layers, kept, left_out = known
    largest = max((value for _, value in layers), default=0.0) or 1.0
    room = max(12, width - _BAR_COLUMNS - 26)
    name_width = min(room, max((columns(name) for name, _ in layers), default=0))
    lines = [f"{what}:"]
    for name, value in layers:
        bar = "#" * max(1, round(_BAR_COLUMNS * value / largest))
        note = "  stays float" if name in kept else ""
        lines.append(f"{pad(cut(name, name_width), name_width)}  {figure(value).value:>8}  {bar}{note}")
    if left_out:
        lines.append(f"{left_out:,} less sensitive layers are left out")
    return "\n".join(lines)


def _read(body: Mapping[str, Any], rows: int) -> tuple[str, list[tuple[str, float]], set[str], int] | None:
    """Return what the figures are, the layers shown, those that stay as they are, and how many are left out."""
    given = body.get("layers") if isinstance(body, Mapping) else None
    if not isinstance(given, Mapping) or not given:
        return None
    values = {one_line(str(name), 80): finite(value) or 0.0 for name, value in given.items()}
    shown = set(sorted(values, key=lambda name: -values[name])[:rows])
    kept = {one_line(str(name), 80) for name in body.get("kept") or ()}
    layers = [(name, value) for name, value in values.items() if name in shown]
    return one_line(str(body.get("what", "")), 200), layers, kept, len(values) - len(layers)


__all__ = ["sensitivity_html", "sensitivity_text"]
