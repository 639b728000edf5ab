"""What a search over training tried, as a table with bars and a picture of its course: plain data of `Run.search`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nbopt.render.figures import finite, one_line
from nbopt.render.markup import MUTED, picture, safe, typeset
from nbopt.render.pictures import COLOURS
from nbopt.render.plain import columns, cut, pad
from nbopt.render.rates import range_html, range_text

ROWS = 20
"""Trials shown at most, the best ones; finalists are always shown."""
_VALUE, _BAR = 24, 60
UNTOUCHED = "untouched"
_WIDTH, _HEIGHT = 360, 90
_CELL = "padding:1px 10px 1px 0;white-space:nowrap;font-weight:400;text-align:left"


def search_text(found: Mapping[str, Any], rows: int = ROWS) -> str:
    """Return an aligned table of trials, the best first, and of finalists; "" where nothing was searched."""
    if not found.get("trials"):
        return range_text(found.get("range") or {})
    heads, cells = _table(found, rows)
    parts = [_title(found), _aligned(heads, cells)]
    if found.get("finalists"):
        parts += ["with fresh seeds", _aligned(*_finals(found))]
    tested = range_text(found.get("range") or {})
    return "\n".join([*([tested] if tested else []), *parts, *_more(found, len(cells))])


def search_html(found: Mapping[str, Any], rows: int = ROWS) -> str:
    """Return the course of the search and its tables, of what an untrusted notebook keeps; "" without a search."""
    tested = range_html(found.get("range") or {})
    if not found.get("trials"):
        return tested
    heads, cells = _table(found, rows)
    trials = _best_first(found)[:rows]
    shares = _shares(found, trials)
    marked = [_bar(share, row["state"]) for share, row in zip(shares, trials, strict=True)]
    body = _html_table(heads, cells, marked)
    title = f'<div style="font-size:12px;margin:4px 0 0 0">{safe(_title(found), 300)}</div>'
    if found.get("finalists"):
        body += f'<div style="font-size:12px;margin:4px 0 0 0">with fresh seeds</div>{_html_table(*_finals(found))}'
    told = "".join(f'<div style="font-size:12px;{MUTED}">{safe(each, 300)}</div>' for each in _more(found, len(cells)))
    return f"{tested}{title}{course(found)}{body}{told}"


def course(found: Mapping[str, Any]) -> str:
    """Return a picture of the trials in order, with the best so far as a line and the first trial's level dashed."""
    done = [row for row in found["trials"] if row["state"] == "complete" and finite(row["score"]) is not None]
    if len(done) < 2:
        return ""
    done.sort(key=lambda row: row["number"])
    scores = [float(row["score"]) for row in done]
    low, high = min(scores), max(scores)
    span, last = (high - low) or 1.0, max(done[-1]["number"], 1)

    def at(number: float, score: float) -> tuple[float, float]:
        return round(6 + number / last * (_WIDTH - 12), 1), round(
            _HEIGHT - 6 - (score - low) / span * (_HEIGHT - 12), 1
        )

    better = max if found["greater"] else min
    points = [at(row["number"], score) for row, score in zip(done, scores, strict=True)]
    line, best = f"M{points[0][0]} {points[0][1]}", scores[0]
    for row, score in zip(done[1:], scores[1:], strict=True):
        x, y = at(row["number"], best)
        best = better(best, score)
        line += f"L{x} {y}L{x} {at(0, best)[1]}"
    start = at(0, scores[0])[1] if done[0]["number"] == 0 else None
    parts = (
        ""
        if start is None
        else (f'<path d="M6 {start}H{_WIDTH - 6}" stroke="{COLOURS["plain"]}" stroke-dasharray="3 3"/>')
    )
    parts += f'<path d="{line}" stroke="{COLOURS["good"]}" fill="none" stroke-width="1.5"/>'
    dots = "".join(f"M{x} {y}h0" for x, y in points)
    parts += f'<path d="{dots}" stroke="{COLOURS["muted"]}" stroke-width="4.8" stroke-linecap="round"/>'
    said = f"{one_line(str(found['what']), 60)} of {len(done)} trials: first {scores[0]:.4g}, best {better(scores):.4g}"
    return f"<div>{picture(parts, _WIDTH, _HEIGHT, said)}</div>"


def _title(found: Mapping[str, Any]) -> str:
    return one_line(f"{found['what']} by {'; '.join(map(str, found.get('space') or ()))}", 300)


def _best_first(found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    sign = -1.0 if found["greater"] else 1.0

    def rank(row: Mapping[str, Any]) -> tuple[bool, float]:
        score = finite(row["score"])
        return row["state"] != "complete", float("inf") if score is None else sign * score

    return sorted(found["trials"], key=rank)


def _names(found: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(str(name) for row in found["trials"] for name in row["values"]))


def _table(found: Mapping[str, Any], rows: int) -> tuple[list[str], list[list[str]]]:
    names, chosen = _names(found), found.get("chosen") or {}
    cells = [
        [
            f"{row['number']}{' (untouched)' if row['number'] == 0 else ''}",
            *(_value(row["values"].get(name)) for name in names),
            str(row["epochs"]),
            _score(row["score"]),
            one_line(str(row["reason"]), 60) or {"complete": "", "pruned": "ended early"}.get(row["state"], "failed"),
            "chosen" if chosen.get("kind") != "random" and chosen.get("number") == row["number"] else "",
        ]
        for row in _best_first(found)[:rows]
    ]
    return ["trial", *names, "epochs", "score", "", ""], cells


def _finals(found: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    names, chosen = _names(found), found.get("chosen") or {}
    cells = [
        [
            {"finalist": f"trial {each['number']}", "random": f"random {each['number']}"}.get(
                each["kind"], "untouched"
            ),
            *(_value(each["values"].get(name)) for name in names),
            _score(each["found"]),
            _score(each["mean"]),
            ", ".join(_score(score) for score in each["scores"]),
            "chosen" if (each["kind"], each["number"]) == (chosen.get("kind"), chosen.get("number")) else "",
        ]
        for each in found["finalists"]
    ]
    return ["", *names, "in the search", "mean", "each", ""], cells


def _value(value: Any) -> str:
    if value is None:
        return ""
    return cut(f"{value:.3g}" if isinstance(value, float) else one_line(str(value), 60), _VALUE)


def _score(value: Any) -> str:
    number = finite(value)
    return f"{number:.4g}" if number is not None else "-"


def _more(found: Mapping[str, Any], shown: int) -> list[str]:
    hidden = len(found["trials"]) - shown + int(found.get("left_out") or 0)
    more = [f"{hidden} worse trials are left out"] if hidden > 0 else []
    return [*more, *([f"study {one_line(str(found['study']), 120)}"] if found.get("study") else [])]


def _shares(found: Mapping[str, Any], trials: Sequence[Mapping[str, Any]]) -> list[float]:
    """Return where each score lies between the worst and the best that is shown, 0 to 1."""
    scores = [finite(row["score"]) for row in trials]
    known = [score for score in scores if score is not None]
    low, high = min(known, default=0.0), max(known, default=0.0)
    span = (high - low) or 1.0
    shares = [0.0 if score is None else (score - low) / span for score in scores]
    return shares if found["greater"] else [1 - share for share in shares]


def _bar(share: float, state: str) -> str:
    width = round(_BAR * min(max(share, 0.02), 1.0))
    colour = COLOURS["good"] if state == "complete" else COLOURS["muted"]
    return f'<span style="display:inline-block;width:{width}px;height:8px;margin:0 0 0 6px;background:{colour}"></span>'


def _aligned(heads: list[str], cells: list[list[str]]) -> str:
    lines = [heads, *cells]
    widths = [max(map(columns, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(pad, line, widths)).rstrip() for line in lines)


def _html_table(heads: list[str], cells: list[list[str]], bars: Sequence[str] = ()) -> str:
    score = heads.index("score") if "score" in heads else None
    body = ""
    for place, row in enumerate(cells):
        drawn = [typeset(cell) for cell in row]
        if bars and score is not None:
            drawn[score] += bars[place]
        inner = "".join(f'<td style="{_CELL}">{cell}</td>' for cell in drawn)
        body += f'<tr style="background:transparent">{inner}</tr>'
    head = "".join(f'<th style="{_CELL};{MUTED}">{safe(each, 60)}</th>' for each in heads)
    return f'<table style="font-size:12px;border-collapse:collapse"><tr>{head}</tr>{body}</table>'
