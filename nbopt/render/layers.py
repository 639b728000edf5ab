"""An audit as a table of layers: what each is stored in and runs in, its zeros, and its share of the work.

Both forms take the plain data that `Audit.to_dict` wrote, as a run keeps it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nbopt.measurement.audit import Audit, family_of, leftovers
from nbopt.render import figures
from nbopt.render.figures import NOTHING, one_line
from nbopt.render.markup import MUTED, safe, typeset
from nbopt.render.pictures import COLOURS, LEGEND
from nbopt.render.plain import WIDTH, columns, cut, pad
from nbopt.runtimes import Layer

ROWS = 60
"""Layers shown at most, the largest by their share of the work; the others are counted."""

HEADS = ("layer", "kind", "shape", "weights in", "runs in", "zeros", "MACs")
_FEWEST_FOR_NAME = 12
_BAR_WIDTH = 80
_RULE = "rgba(128,136,144,0.35)"
_DOT = " \N{MIDDLE DOT} "


def layers_text(audit: Mapping[str, Any], *, width: int = WIDTH, rows: int = ROWS) -> str:
    """Return an audit as an aligned table under a line that sums it up.

    Args:
        audit: What `Audit.to_dict` wrote; {} where nothing was audited.
        width: Columns to fill; names are shortened for it, figures never.
        rows: Layers at most.
    """
    known = _read(audit)
    if known is None:
        return ""
    lines = [_summary(known), *_warnings(known)]
    shown = _largest(known, rows)
    if shown:
        cells = [_cells(layer, known) for layer in shown]
        widths = [max(map(columns, column)) for column in zip(HEADS, *cells, strict=True)]
        widths[0] = min(widths[0], max(_FEWEST_FOR_NAME, width - sum(widths[1:]) - 2 * (len(HEADS) - 1)))
        rows_of_text = [(cut(name, widths[0]), *figures_of) for name, *figures_of in (HEADS, *cells)]
        lines += ["  ".join(map(pad, row, widths)).rstrip() for row in rows_of_text]
    lines += [f"{name}: {note}" for name, note in _notes(shown)]
    if more := _left_out(known, shown):
        lines.append(more)
    return "\n".join(lines)


def layers_html(audit: Mapping[str, Any], *, rows: int = ROWS, pictures: bool = True) -> str:
    """Return an audit as a table that an untrusted notebook keeps: inline styles, all text escaped.

    Args:
        audit: What `Audit.to_dict` wrote; {} where nothing was audited.
        rows: Layers at most.
        pictures: Draw a bar for each layer's share of the MACs.
    """
    known = _read(audit)
    if known is None:
        return ""
    shown = _largest(known, rows)
    lines = [_small(typeset(_summary(known)))]
    lines += [_small(f'<b style="color:{COLOURS["bad"]}">{safe(text, 400)}</b>') for text in _warnings(known)]
    if shown:
        head = "".join(_cell(title, tag="th", right=title == "zeros", muted=True) for title in HEADS)
        body = "".join(_row(layer, known, pictures) for layer in shown)
        style = "border-collapse:collapse;font-size:12px;margin:2px 0 4px 0"
        table = f'<table style="{style}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
        lines.append(f'<div style="overflow-x:auto">{table}</div>')
    lines += [_small(f"{safe(name, 80)}: {safe(note)}") for name, note in _notes(shown)]
    if more := _left_out(known, shown):
        lines.append(_small(typeset(more)))
    return "".join(lines)


def counted(number: int) -> str:
    """Write a count as a reader says it: 336,896 is "337 k"."""
    for name, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{figures.figure(number / size, digits=3).value} {name}"
    return str(number)


def _read(audit: Mapping[str, Any]) -> Audit | None:
    """Return the audit, None where there is none, or one that another version wrote in another form."""
    if not audit:
        return None
    try:
        return Audit.from_dict(audit)
    except (TypeError, ValueError, AttributeError):
        return None


def _largest(audit: Audit, rows: int) -> list[Layer]:
    order = sorted(range(len(audit.layers)), key=lambda i: (-audit.layers[i].macs, -audit.layers[i].weights))
    return [audit.layers[i] for i in sorted(order[:rows])]


def _summary(audit: Audit) -> str:
    if audit.unread:
        return f"not audited: {one_line(audit.unread, 300)}"
    parts = [f"{counted(audit.macs)} multiply-accumulates a row"]
    if audit.mac_shares:
        parts.append("they run in " + _listed(audit.mac_shares))
    if audit.weight_shares:
        parts.append("weights are stored in " + _listed(audit.weight_shares))
    if audit.weights:
        parts.append(f"{_percent(audit.zeros_share)} of {counted(audit.weights)} weights are zero")
    return _DOT.join(parts)


def _listed(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{one_line(name, 20)} {_percent(value)}" for name, value in shares.items())


def _warnings(audit: Audit) -> list[str]:
    error = leftovers(audit)
    return [one_line(error, 400)] if error else []


def _cells(layer: Layer, audit: Audit) -> tuple[str, ...]:
    return (
        one_line(layer.name, 80) or NOTHING.value,
        one_line(layer.kind, 20),
        "x".join(str(size) for size in layer.weight_shape) or NOTHING.value,
        one_line(layer.weight_dtype, 20) or NOTHING.value,
        one_line(layer.compute_dtype, 20),
        _percent(layer.zeros / layer.weights) if layer.weights else NOTHING.value,
        _percent(layer.macs / audit.macs) if audit.macs else NOTHING.value,
    )


def _row(layer: Layer, audit: Audit, pictures: bool) -> str:
    name, kind, shape, stored, runs, zeros, macs = _cells(layer, audit)
    picture = _bar(layer.macs / audit.macs) if pictures and audit.macs else ""
    # A layer that runs in another precision than most of the model is what a reader looks for.
    odd = layer.macs and family_of(layer.compute_dtype) != audit.precision
    executed = f"<b>{safe(runs)}</b>" if odd else safe(runs)
    number = f'<span style="display:inline-block;min-width:44px;text-align:right">{typeset(macs)}</span>'
    cells = [
        _cell(safe(name, 60), title=name if len(name) > 60 else ""),
        _cell(safe(kind)),
        _cell(safe(shape).replace("x", "\N{MULTIPLICATION SIGN}"), muted=True),
        _cell(safe(stored)),
        _cell(executed),
        _cell(typeset(zeros), right=True),
        _cell(number + picture),
    ]
    return f'<tr style="background:transparent;border-bottom:1px solid {_RULE}">{"".join(cells)}</tr>'


def _bar(share: float) -> str:
    """Return a share as a bar: a coloured box, since an image for each of many layers would weigh more than they."""
    width = round(_BAR_WIDTH * share)
    style = f"display:inline-block;width:{width}px;height:9px;margin:0 0 0 6px;background:{LEGEND['technique']}"
    return f'<span style="{style}"></span>' if width else ""


def _cell(body: str, *, tag: str = "td", right: bool = False, muted: bool = False, title: str = "") -> str:
    style = f"padding:2px 8px 2px 0;white-space:nowrap;font-weight:400;text-align:{'right' if right else 'left'}"
    style += f";{MUTED}" if muted else ""
    about = f' title="{safe(title, 120)}"' if title else ""
    return f'<{tag} style="{style}"{about}>{body}</{tag}>'


def _small(body: str) -> str:
    return f'<div style="font-size:12px">{body}</div>'


def _notes(layers: Sequence[Layer]) -> list[tuple[str, str]]:
    """Return what is said of layers, each note once with the layers that it is said of."""
    said: dict[str, list[str]] = {}
    for layer in layers:
        if layer.note:
            said.setdefault(one_line(layer.note, 300), []).append(one_line(layer.name, 60))
    return [(names[0] + (f" and {len(names) - 1} more" if names[1:] else ""), note) for note, names in said.items()]


def _left_out(audit: Audit, shown: Sequence[Layer]) -> str:
    number = audit.left_out + len(audit.layers) - len(shown)
    if not number:
        return ""
    rest = 1 - sum(layer.macs for layer in shown) / audit.macs if audit.macs else 0.0
    return f"{number:,} smaller layers are left out, with {_percent(max(0.0, rest))} of the MACs"


def _percent(value: float) -> str:
    """Write a share with the digits that tell it from none and from all."""
    percent = 100 * value
    if 0 < percent < 0.1:
        return "<0.1%"
    if 99.9 < percent < 100:
        return ">99.9%"
    return f"{percent:.0f}%" if percent in (0, 100) else f"{percent:.1f}%"


__all__ = ["counted", "layers_html", "layers_text"]
