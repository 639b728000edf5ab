"""Text and pictures as markup: escaped, with true signs for minus and times in figures."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from html import escape

from nbopt.render.figures import one_line
from nbopt.render.sentences import Part

MUTED = "opacity:0.72"
"""Muted text is the theme's own colour, fainter: inline styles can't ask for the theme's variables."""


def typeset(text: str) -> str:
    """Return figures in ASCII with true signs for minus and times, escaped."""
    text = re.sub(r"(?<![\w.])-(?=\d)", "\N{MINUS SIGN}", text)
    return escape(re.sub(r"(?<=[\d?])x\b", "\N{MULTIPLICATION SIGN}", text), quote=True)


def safe(text: str, limit: int = 300) -> str:
    """Return what a user wrote, on one line, cut at `limit` and escaped."""
    return escape(one_line(text, limit), quote=True)


def markup(parts: Iterable[Part]) -> str:
    """Return a sentence as markup, its asides smaller."""
    pieces = []
    for part in parts:
        if part.kind == "name":
            # The spaces around a name belong to the sentence, and one_line would strip them.
            pieces.append(safe(part.text))
        elif part.kind == "aside":
            style = f"font-size:13px;font-weight:400;{MUTED}"
            pieces.append(f'<span style="{style}">{typeset(part.text)}</span>')
        else:
            pieces.append(typeset(part.text))
    return "".join(pieces)


def picture(parts: str, width: int, height: int, said: str, style: str = "max-width:none") -> str:
    """Return an SVG as an image in a data: address, which an untrusted notebook and nbconvert keep.

    Args:
        parts: What stands in the SVG.
        width: In pixels.
        height: In pixels.
        said: What it shows, in words, for who does not see it.
        style: Inline styles.
    """
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">{parts}</svg>'
    data, text = base64.b64encode(svg.encode()).decode(), escape(said, quote=True)
    return (
        f'<img src="data:image/svg+xml;base64,{data}" alt="{text}" title="{text}" '
        f'width="{width}" height="{height}" style="{style}">'
    )
