"""The muted line above a table: what was measured, on which rows, on which machine, and what the splits share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nbopt.overlap import overlaps_in
from nbopt.render.figures import one_line
from nbopt.render.view import View
from nbopt.runs import Run

Piece = tuple[tuple[str, bool], ...]
"""Texts in order, each with whether it is a name that a user or a machine gave, which no renderer may typeset."""


def conditions_of(view: View) -> Iterator[Piece]:
    """Yield the pieces of the line; what is not known is left out."""
    run = view.sample
    environment: dict[str, Any] = run.environment
    if run.workload:
        framework = f" ({one_line(run.framework)})" if run.framework else ""
        yield (one_line(run.workload, 60), True), (framework, False)
    if run.metric and run.split:
        rows = f", {run.rows:,} rows" if run.rows else ""
        missing = " (there is no test split)" if run.split != "test" else ""
        yield (view.metric, True), (f" on {one_line(run.split)}{missing}{rows}", False)
    elif run.rows:
        yield ((f"no labels, {run.rows:,} rows", False),)
    if machine := _machine(environment):
        yield ((machine, True),)
    if view.contention is not None:
        state = "busy" if view.busy else "quiet"
        others = f", others used {view.foreign:.0%}" if view.busy and view.foreign else ""
        yield ((f"machine {state} (wall/CPU {view.contention:.2f}{others})", False),)
    if shared := _shared(run):
        yield ((shared, False),)


def _machine(environment: dict[str, Any]) -> str:
    threads, sets = environment.get("threads"), environment.get("instruction_sets")
    words = []
    if isinstance(threads, int):
        words.append(f"{threads} {'thread' if threads == 1 else 'threads'}")
    if isinstance(sets, list | tuple):
        # The strongest stand last; the others are implied by them.
        words += [one_line(str(name), 20) for name in sets[-2:]]
    return ", ".join(words)


def _shared(run: Run) -> str:
    """Return what is known of reporting rows that train or valid hold too, "" where nothing is."""
    found = overlaps_in(run.environment)
    reporting = [each for each in found if each.second == run.split]
    if not reporting:
        # A record of an older nbopt: the count alone, where there is one.
        count = run.environment.get("shared_rows")
        known = "shared" not in run.environment and not isinstance(count, bool)
        return _shared_rows(count) if known and isinstance(count, int) else ""
    told = [
        f"{'' if each.whole else 'at least '}{each.rows:,} of {each.of:,} rows of {one_line(each.second, 20)} "
        f"stand in {one_line(each.first, 20)} too{', so quality is optimistic' if each.optimistic else ''}"
        for each in reporting
        if each.rows
    ]
    part = "" if all(each.whole for each in reporting) else f" in the {max(each.read for each in reporting):,} read"
    return "; ".join(told) or f"no shared rows{part}"


def _shared_rows(count: int) -> str:
    if count == 0:
        return "no shared rows"
    return f"{count:,} {'row' if count == 1 else 'rows'} shared between training and reporting data"
