"""The card that binding a workload shows: what was understood of it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from html import escape

from nbopt.render.figures import one_line
from nbopt.render.plain import WIDTH, columns, pad


def workload_card(pairs: Iterable[tuple[str, str]], width: int = WIDTH) -> dict[str, str]:
    """Return a bundle with text and HTML of a two-column table.

    Args:
        pairs: Name and value of each row, in order; any text.
        width: Columns of the text form.
    """
    rows = [(one_line(str(name), 60), one_line(str(value), 600)) for name, value in pairs]
    first = max((columns(name) for name, _ in rows), default=0)
    lines: list[str] = []
    for name, value in rows:
        start, *rest = textwrap.wrap(value, max(20, width - first - 2)) or [""]
        lines.append(f"{pad(name, first)}  {start}".rstrip())
        lines += [" " * (first + 2) + line for line in rest]
    cell = "padding:2px 12px 2px 0;text-align:left;vertical-align:top"
    body = "".join(
        f'<tr style="background:transparent"><td style="{cell};opacity:0.72;white-space:nowrap">'
        f'{escape(name, quote=True)}</td><td style="{cell}">{escape(value, quote=True)}</td></tr>'
        for name, value in rows
    )
    style = "table-layout:auto;border-collapse:collapse;margin:0;font-size:13px"
    page = f'<div style="overflow-x:auto"><table style="{style}"><tbody>{body}</tbody></table></div>'
    return {"text/plain": "\n".join(lines), "text/html": page}
