"""Show a Tuning: one sentence, the best settings over fresh seeds, why trials failed, the figures."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from html import escape
from typing import Any

from nbopt.charts import KINDS
from nbopt.measurement.intervals import Interval
from nbopt.render import figures
from nbopt.render.figures import one_line
from nbopt.render.markup import MUTED, safe, typeset
from nbopt.render.pictures import COLOURS
from nbopt.render.view import Tone
from nbopt.studies.opening import REASON
from nbopt.studies.standings import RANDOM, Standing
from nbopt.studies.trials import best_of
from nbopt.tuning import Tuning

LIMIT_BYTES = 200_000
"""A notebook is saved with each of its outputs; beyond this the largest figures are left out."""

MOST_REASONS = 5
_TONES: dict[str, Tone] = {"better": "good", "worse": "bad", "inconclusive": "plain", "same": "plain"}
_STRONG = "font-size:18px;line-height:1.3;font-weight:600;margin:4px 0 2px 0"
_RULE = "rgba(128,136,144,0.35)"


def bundle(tuning: Tuning) -> dict[str, Any]:
    """Return the bundle of a search: HTML and plain text."""
    return {"text/html": html(tuning), "text/plain": text(tuning)}


def sentence(tuning: Tuning) -> str:
    """Return what came of a search: the best setting over fresh seeds, and against what."""
    best = tuning.best
    if best is None:
        found = best_of(tuning.study)
        if not found:
            complete = any(trial.state.name == "COMPLETE" for trial in tuning.study.get_trials(deepcopy=False))
            few = "No trial gave a number." if len(tuning) else "No trial has ended."
            return "No trial keeps within the limits." if complete else few
        scores = ", ".join(map(figures.write_short, found[0].values))
        return f"Best {tuning.metric} {scores} in trial {found[0].number}, the best of {len(tuning)}: not re-run."
    first = tuning.comparison.rows[0]
    scores = ", ".join(map(str, map(_figure, best.means)))
    seeds = f"over {len(best.repeats)} fresh seeds" if len(best.repeats) > 1 else "with a fresh seed"
    if len(tuning.maximize) > 1:
        front = len(tuning.study.best_trials)
        return (
            f"{front} trials on the Pareto front; {best.name} is nearest to the best of each score: {scores} {seeds}."
        )
    if best is first:
        return f"Nothing was better than {first.name}: {tuning.metric} {scores} {seeds}; it is kept."
    changes = ", ".join(str(_figure(change, sign=True)) for change in best.changes)
    if not first.allowed:
        return (
            f"{tuning.metric} {scores} {seeds} with {best.name}; {first.name} breaks the limits ({changes} beside it)."
        )
    if not best.won:
        return f"No setting was better than {first.name} for sure: best {tuning.metric} {scores} {seeds}, {changes}."
    return f"{tuning.metric} {scores} {seeds} with {best.name}: {changes} over {first.name}."


def conditions(tuning: Tuning) -> str:
    """Return under which conditions the search went."""
    states = Counter(trial.state.name for trial in tuning.study.get_trials(deepcopy=False))
    apart = [f"{states[name]} {word}" for name, word in (("PRUNED", "pruned"), ("FAIL", "failed")) if states[name]]
    counted = f"{len(tuning)} trial{'s' if len(tuning) != 1 else ''}" + (f" ({', '.join(apart)})" if apart else "")
    direction = ", ".join("maximize" if up else "minimize" for up in tuning.maximize)
    paid = "" if tuning.cost is None else f"cost {tuning.cost:.2g}"
    sampler = f"sampler {tuning.ended.sampler}" if tuning.ended.sampler else ""
    ended = f"ended early: {tuning.ended.reason}" if tuning.ended.reason else ""
    parts = [direction, counted, sampler, f"{tuning.seconds:.1f} s", paid, ended]
    return " \N{MIDDLE DOT} ".join(filter(None, parts))


def reasons(tuning: Tuning) -> list[str]:
    """Return why trials failed, the same reasons together."""
    told: dict[str, list[int]] = {}
    for trial in tuning.study.get_trials(deepcopy=False):
        if trial.state.name == "FAIL":
            told.setdefault(str(trial.user_attrs.get(REASON, "no reason was recorded")), []).append(trial.number)
    lines = [
        f"trial{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers[:8]))}"
        f"{' and others' if len(numbers) > 8 else ''} failed: {reason}"
        for reason, numbers in told.items()
    ]
    return lines[:MOST_REASONS] + ([f"{len(lines) - MOST_REASONS} more reasons"] if len(lines) > MOST_REASONS else [])


def rival(tuning: Tuning) -> str:
    """Return how the random search did, "" where there was none."""
    rows = [row for row in tuning.comparison.rows if row.kind == RANDOM]
    if tuning.rival is None:
        return ""
    if not rows or not rows[0].means:
        return "The random search beside it found no setting that could be re-run."
    row, trials = rows[0], sum(trial.state.is_finished() for trial in tuning.rival.get_trials(deepcopy=False))
    return f"Random search, {trials} trials as well: {', '.join(str(_figure(mean)) for mean in row.means)}."


def text(tuning: Tuning) -> str:
    """Return a search's result as plain text."""
    lines = [f"tune \N{MIDDLE DOT} {one_line(tuning.name)} \N{MIDDLE DOT} {conditions(tuning)}", sentence(tuning)]
    lines += filter(None, [_setting_line(tuning), rival(tuning)])
    if tuning.comparison.rows:
        table = [
            ("setting", "in the search", "over fresh seeds", "change", "verdict", "parameters"),
            *map(_cells, tuning.comparison.rows),
        ]
        widths = [max(len(row[i]) for row in table) for i in range(5)]
        lines.append("")
        lines += ["  ".join([*map(str.ljust, row[:5], widths), row[5]]).rstrip() for row in table]
    lines += [f"- {note}" for note in (*tuning.notes, *reasons(tuning))]
    return "\n".join(lines)


def html(tuning: Tuning, limit_bytes: int = LIMIT_BYTES) -> str:
    """Return a search's result as HTML of about `limit_bytes` at most."""
    parts = [
        f'<div style="{_STRONG}">{typeset(sentence(tuning))}</div>',
        *(
            f'<div style="margin:0 0 2px 0">{typeset(line)}</div>'
            for line in (_setting_line(tuning), rival(tuning))
            if line
        ),
        _muted(f"tune \N{MIDDLE DOT} {one_line(tuning.name)} \N{MIDDLE DOT} {conditions(tuning)}"),
        _table(tuning),
        *map(_muted, (*tuning.notes, *reasons(tuning))),
    ]
    size = sum(len(part.encode()) for part in parts)
    for kind in KINDS if len(tuning) else ():
        shown = tuning.figure(kind)
        opened = " open" if kind == KINDS[0] else ""
        drawn = f"<details{opened}><summary>{escape(shown.title)}</summary>{shown.image}</details>"
        if size + len(drawn.encode()) > limit_bytes:
            drawn = _muted(f"{shown.title}: {shown.said} (left out to keep the notebook small: .figure({kind!r}))")
        size += len(drawn.encode())
        parts.append(drawn)
    name = tuning.name
    ways = ["maximize" if up else "minimize" for up in tuning.maximize]
    direction = f"--{ways[0]}" if len(ways) == 1 else f"--directions {','.join(ways)}"
    step = f"%%optimize tune --study {name!r} {direction} --trials {2 * max(1, len(tuning))}"
    parts.append(f'<div style="margin:8px 0 4px 0"><code style="font-size:12px">{escape(step)}</code></div>')
    return f'<div style="font-size:13px;line-height:1.45;max-width:1240px">{"".join(parts)}</div>'


def _table(tuning: Tuning) -> str:
    rows = tuning.comparison.rows
    if not rows:
        return ""
    style = f"padding:4px 6px;font-weight:400;font-size:12px;{MUTED};text-align:left"
    names = ("setting", f"{tuning.metric} in the search", "over fresh seeds", "change", "verdict", "parameters")
    head = "".join(f'<th scope="col" style="{style}">{safe(name)}</th>' for name in names)
    body = ""
    for row in rows:
        strong = row is tuning.best
        words = [typeset(cell) if place < 4 else safe(cell) for place, cell in enumerate(_cells(row))]
        if strong:
            words[0] = f"<b>{words[0]}</b>"
        if row.verdicts:
            words[4] = f'<span style="color:{COLOURS[_tone(row)]}">\N{BLACK CIRCLE}</span>&nbsp;{words[4]}'
        fill = "rgba(31,146,84,0.13)" if strong else "transparent"
        cells = "".join(f'<td style="padding:5px 6px;text-align:left;vertical-align:top">{word}</td>' for word in words)
        body += f'<tr style="background:{fill};border-bottom:1px solid {_RULE}">{cells}</tr>'
    line = f'<tr style="background:transparent;border-bottom:1px solid {_RULE}">'
    table = '<table style="table-layout:auto;border-collapse:collapse;margin:0;font-size:13px">'
    filled = f"{table}<thead>{line}{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div style="overflow-x:auto">{filled}</div>'


def _cells(row: Standing) -> tuple[str, ...]:
    found = ", ".join(map(figures.write_short, row.found))
    if not row.means:
        return row.name, found, "failed", "", "", row.failures[0] if row.failures else ""
    again = ", ".join(str(_figure(mean)) for mean in row.means)
    change = ", ".join(str(_figure(each, sign=True)) for each in row.changes)
    verdict = ", ".join(row.verdicts if row.allowed else (*row.verdicts, "breaks the limits")) + (
        f" ({len(row.failures)} seeds failed)" if row.failures else ""
    )
    return row.name, found, again, change, verdict, _params(row.params)


def _tone(row: Standing) -> Tone:
    return "good" if row.won else _TONES[next((word for word in row.verdicts if word != "better"), "inconclusive")]


def _figure(interval: Interval, *, sign: bool = False) -> figures.Figure:
    # A seed's noise can cancel in a difference, to an interval of no width: four digits are enough all the same.
    size = max(abs(end) for end in (interval.value, interval.low, interval.high) if math.isfinite(end))
    most = 3 - math.floor(math.log10(size)) if size else 4
    return figures.figure(interval.value, interval.low, interval.high, sign=sign, digits=4, most=most)


def _params(params: Mapping[str, Any]) -> str:
    words = (
        f"{name} {figures.write_short(v) if isinstance(v, float) else one_line(str(v), 40)}"
        for name, v in params.items()
    )
    return ", ".join(words)


def _setting_line(tuning: Tuning) -> str:
    if not best_of(tuning.study) and tuning.best is None:
        return ""
    return f"best_params: {_params(tuning.best_params)}"


def _muted(line: str) -> str:
    return f'<div style="font-size:12px;{MUTED};margin:0 0 4px 0">{safe(line, 600)}</div>'
