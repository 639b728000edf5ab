"""Sheet: a small table of words, as text and as HTML that an untrusted notebook keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

_CELL = "text-align:left;padding:.15em 1.2em .15em 0;vertical-align:top"
_MUTED = "opacity:.7"


@dataclass(frozen=True)
class Sheet:
    """Hold a titled table.

    Args:
        title: One line above it, or "".
        header: Names of the columns; () for pairs of a name and its value.
        rows: A tuple of words for each row, as many as the header has.
        note: A muted line below it, or "".
    """

    title: str = ""
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    note: str = ""

    def text(self) -> str:
        """Return it as lines, columns aligned."""
        table = [self.header, *self.rows] if self.header else list(self.rows)
        columns = max((len(row) for row in table), default=0)
        # The last column is free to be long: its width moves nothing.
        widths = [max(len(row[i]) for row in table if i < len(row)) for i in range(columns)]
        lines = [self.title] if self.title else []
        for row in table:
            cells = [word.ljust(width) for word, width in zip(row, widths, strict=False)]
            lines.append("  ".join(cells).rstrip())
        return "\n".join([*lines, *([self.note] if self.note else [])])

    def html(self) -> str:
        """Return it as HTML with inline styles only; every word is escaped."""
        parts = [f"<p><strong>{escape(self.title)}</strong></p>"] if self.title else []
        if self.rows or self.header:
            head = "".join(f'<th scope="col" style="{_CELL}">{escape(word)}</th>' for word in self.header)
            body = "".join(_row(row, pairs=not self.header) for row in self.rows)
            parts.append(f"<table>{f'<thead><tr>{head}</tr></thead>' if head else ''}<tbody>{body}</tbody></table>")
        if self.note:
            parts.append(f'<p style="{_MUTED}">{escape(self.note)}</p>')
        return "".join(parts)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return bundle([self])

    def __repr__(self) -> str:
        return self.text()


def _row(words: Sequence[str], *, pairs: bool) -> str:
    cells = [f'<td style="{_CELL}">{escape(word)}</td>' for word in words]
    if pairs and cells:
        cells[0] = f'<th scope="row" style="{_CELL};font-weight:normal;{_MUTED}">{escape(words[0])}</th>'
    return f"<tr>{''.join(cells)}</tr>"


def bundle(sheets: Sequence[Sheet]) -> dict[str, Any]:
    """Return sheets below each other, as a mime bundle."""
    return {
        "text/plain": "\n\n".join(sheet.text() for sheet in sheets),
        "text/html": "".join(sheet.html() for sheet in sheets),
    }
