"""What was measured of single layers to choose among them, as a table with bars: plain data of `Run.sensitivity`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nbopt.render import figures
from nbopt.render.figures import finite, one_line
from nbopt.render.markup import MUTED, safe, typeset
from nbopt.render.pictures import COLOURS
from nbopt.render.plain import columns, cut, pad

ROWS = 40
"""Layers shown at most, the most sensitive first."""
_NAME = 40
_BAR = 60
_CELL = "padding:1px 10px 1px 0;white-space:nowrap;font-weight:400"


def sensitivity_text(found: Mapping[str, Any], rows: int = ROWS) -> str:
    """Return an aligned table; "" where nothing was measured."""
    heads, cells, more = _table(found, rows)
    if not cells:
        return ""
    lines = [heads, *([cut(name, _NAME), *rest] for name, *rest in cells)]
    widths = [max(map(columns, column)) for column in zip(*lines, strict=True)]
    body = ["  ".join(map(pad, line, widths)).rstrip() for line in lines]
    return "\n".join([one_line(str(found["what"]), 120), *body, *more])


def sensitivity_html(found: Mapping[str, Any], rows: int = ROWS) -> str:
    """Return a table with a bar for each figure, of what an untrusted notebook keeps; "" where nothing was measured."""
    heads, cells, more = _table(found, rows)
    if not cells:
        return ""
    values = _values(found)
    largest = max((max(row, default=0.0) for row in values.values()), default=0.0)
    body = ""
    for name, *rest in cells:
        drawn = [*map(typeset, rest)]
        for index, value in enumerate(values[name]):
            drawn[index] += _bar(value / largest if largest > 0 else 0.0)
        inner = "".join(f'<td style="{_CELL};text-align:left">{cell}</td>' for cell in [safe(name, 60), *drawn])
        body += f'<tr style="background:transparent">{inner}</tr>'
    head = "".join(f'<th style="{_CELL};text-align:left;{MUTED}">{safe(each, 60)}</th>' for each in heads)
    table = f'<table style="font-size:12px;border-collapse:collapse"><tr>{head}</tr>{body}</table>'
    told = "".join(f'<div style="font-size:12px;{MUTED}">{safe(each, 200)}</div>' for each in more)
    return f'<div style="font-size:12px;margin:4px 0 0 0">{safe(str(found["what"]), 200)}</div>{table}{told}'


def _values(found: Mapping[str, Any]) -> dict[str, list[float]]:
    """Return each layer's figures, the most sensitive layer first."""
    layers = {
        str(name): [finite(v) or 0.0 for v in (value if isinstance(value, (list, tuple)) else [value])]
        for name, value in dict(found.get("layers") or {}).items()
    }
    return dict(sorted(layers.items(), key=lambda pair: -max(pair[1], default=0.0)))


def _table(found: Mapping[str, Any], rows: int) -> tuple[list[str], list[list[str]], list[str]]:
    """Return heads, rows of text, and what is said below."""
    values = _values(found)
    levels = [f"at {100 * level:g}%" for level in found.get("levels") or ()] or ["value"]
    chosen, kept = dict(found.get("chosen") or {}), set(found.get("kept") or ())
    heads = ["layer", *levels, *(["pruned"] if chosen else []), *(["choice"] if kept else [])]
    cells = [
        [
            name,
            *(figures.write(value, 4) for value in row),
            *([f"{100 * chosen[name]:.0f}%" if name in chosen else ""] if chosen else []),
            *(["kept" if name in kept else ""] if kept else []),
        ]
        for name, row in list(values.items())[:rows]
        if len(row) == len(levels)
    ]
    hidden = max(0, len(values) - len(cells)) + int(found.get("left_out") or 0)
    return heads, cells, [f"{hidden} less sensitive layers are left out"] if hidden else []


def _bar(share: float) -> str:
    """Return a share as a coloured box."""
    width = round(_BAR * min(max(share, 0.0), 1.0))
    colour = COLOURS["bad"] if share > 0.5 else COLOURS["mixed"] if share > 0.15 else COLOURS["good"]
    return f'<span style="display:inline-block;width:{width}px;height:8px;margin:0 0 0 6px;background:{colour}"></span>'
