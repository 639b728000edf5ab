"""The mime bundle that a notebook keeps of a comparison: data under one versioned schema, HTML, text."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from nbopt.bounds import asked_drop
from nbopt.comparison import Comparison
from nbopt.render import figures
from nbopt.render.figures import NOTHING, finite
from nbopt.render.plain import WIDTH, text
from nbopt.render.rich import html, next_line, quality_tone
from nbopt.render.sentences import headline, plain, run_sentence
from nbopt.render.view import COMPARE_RATIOS, View, notes_of, runtime_title, views
from nbopt.runs import Run

VERSION = 1
MIME = f"application/vnd.nbopt.comparison.v{VERSION}+json"

LIMIT_BYTES = 2_000_000
"""Beyond this the payload drops its last runs; `left_out` says so."""
EASY_BYTES, EASY_BYTES_A_RUN = 150_000, 760
"""Beyond the larger of these it drops, in turn, layers, trials, environments, and what a table does not show."""

MANY = 50
"""Of more runs the text's lines may be twice as wide: the blanks before the second line of a verdict, which are kept
with the notebook, were a fifteenth of the bundle of 200 runs."""

SHARED = ("workload", "workload_key", "framework", "metric", "greater_is_better", "bounded", "split", "rows", "seed")
"""Fields that stand once for all runs where all have the same."""
TABLE = {
    "id", "name", "recipe", "label", "runtime", "status", "dtype", "quality", "quality_delta", "quality_delta_low",
    "quality_delta_high", "size_bytes", "latency_ms", "speedup", "speedup_low", "speedup_high", "speedup_runtime",
    "speedup_technique", "peak_memory_bytes", "max_drop", *SHARED,
}  # fmt: skip
"""Fields that a table, its limits and its plot need of each run."""
TABLE_FIGURES = {"quality", "change", "size", "latency", "speedup"}
_DIGITS = 6


def bundle(comparison: Comparison) -> dict[str, Any]:
    """Return the bundle of a comparison: its data under one versioned schema, HTML, and plain text."""
    width = WIDTH if len(comparison.runs) <= MANY else 2 * WIDTH
    return {MIME: payload(comparison), "text/html": html(comparison), "text/plain": text(comparison, width)}


def payload(comparison: Comparison, limit_bytes: int = LIMIT_BYTES) -> dict[str, Any]:
    """Return a comparison as JSON data, valid against `schema()`: finite numbers, no paths outside the store.

    Args:
        comparison: Any runs.
        limit_bytes: Size of the JSON text that is not exceeded.
    """
    shared, runs = _apart([_json(run.to_dict()) for run in comparison.runs])
    left_out: list[str] = []
    body: dict[str, Any] = {
        "version": VERSION,
        "max_drop": asked_drop(comparison.runs),
        "workloads": [_workload(view) for view in views(comparison)],
        "shared": shared,
        "runs": runs,
        "left_out": left_out,
    }
    easy = min(limit_bytes, max(EASY_BYTES, EASY_BYTES_A_RUN * len(runs)))
    if _size(body) > easy and any(run.get("audit", {}).get("layers") for run in runs):
        for run in runs:
            run.get("audit", {}).pop("layers", None)
        left_out.append("layers")
    if _size(body) > easy and any(run.get("search", {}).get("trials") for run in runs):
        for run in runs:
            run.get("search", {}).pop("trials", None)
        left_out.append("trials")
    if _size(body) > easy and (shared.get("environment") or any(run.get("environment") for run in runs)):
        shared.pop("environment", None)
        for run in runs:
            run.pop("environment", None)
        left_out.append("environments")
    if _size(body) > easy:
        body["runs"] = [{key: _short(value) for key, value in run.items() if key in TABLE} for run in runs]
        for workload in body["workloads"]:
            for row in workload["rows"]:
                row.pop("sentence")
                row["figures"] = {name: figure for name, figure in row["figures"].items() if name in TABLE_FIGURES}
        left_out.append("figures that only one run's reader asks for")
    if (size := _size(body)) > limit_bytes:
        # Sentences and runs shrink together, so that what is told of can be found.
        kept = max(1, int(len(runs) * 0.9 * limit_bytes / size))
        if kept < len(runs):
            short = payload(Comparison(comparison.runs[:kept]), limit_bytes)
            short["left_out"] = [*left_out, f"{len(runs) - kept} of {len(runs)} runs"]
            return short
    return body


def runs_of(body: Mapping[str, Any]) -> tuple[Run, ...]:
    """Return the runs of a payload, with what was left out of it empty."""
    shared = body["shared"]
    common = shared.get("environment", {})
    every = []
    for run in body["runs"]:
        own = run.get("environment", {})
        environment = {} if own is None else {**common, **own}
        every.append(Run.from_dict({**shared, **run, "environment": environment}))
    return tuple(every)


def _workload(view: View) -> dict[str, Any]:
    top = headline(view)
    notes: dict[str, int] = {}
    rows = [_row(view, run, notes) for run in view.runs]
    return {
        "workload": view.runs[0].workload,
        "workload_key": view.runs[0].workload_key,
        "baseline": view.baseline.name if view.baseline else None,
        "best": top.run.name if top.run else None,
        "strong": [{"text": part.text, "kind": part.kind} for part in top.strong],
        "second": [{"text": part.text, "kind": part.kind} for part in top.second],
        "conditions": plain(top.conditions),
        "metric": view.metric,
        "points": view.bounded,
        "size_unit": view.unit.name,
        "next": next_line(top, view),
        "notes": list(notes),
        "differing": f"Measured under different conditions: {'; '.join(view.differing)}. {COMPARE_RATIOS}"
        if view.differing
        else "",
        "rows": rows,
    }


def _row(view: View, run: Run, notes: dict[str, int]) -> dict[str, Any]:
    """Return what is said of one run; its figures are text, so that a reader needs no rule for digits."""
    identical = view.verdict(run, "quality") == "identical"
    written = {
        "quality": str(figures.quality(run)),
        "change": "identical" if identical else str(figures.change(run)),
        "size": view.unit.number(run.size_bytes),
        "latency": str(figures.latency(run)),
        "speedup": str(figures.speedup(run)),
        "memory": figures.in_bytes(run.peak_memory_bytes),
        "runtime_share": figures.share_of_speedup(run, run.speedup_runtime),
        "technique_share": figures.share_of_speedup(run, run.speedup_technique),
    }
    if run is view.baseline or run.is_baseline:
        del written["runtime_share"], written["technique_share"]
    said = {
        "runtime": runtime_title(run.runtime),
        "precision": figures.precision(run),
        "quality_tone": quality_tone(view, run),
        "figures": {name: figure for name, figure in written.items() if figure != NOTHING.value},
        # Numbers into the workload's notes, from 1, as footnotes are counted.
        "notes": [notes.setdefault(note, len(notes) + 1) for note in notes_of(run)],
    }
    return {
        "run": run.name,
        "sentence": run_sentence(run, view.baseline),
        "verdict": view.words(run),
        "tone": view.tone(run),
        **{name: value for name, value in said.items() if value},
    }


@cache
def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the payload."""
    source = files("nbopt.render").joinpath(f"schema/comparison.v{VERSION}.json")
    loaded: dict[str, Any] = json.loads(source.read_text(encoding="utf-8"))
    return loaded


def _apart(runs: list[dict[str, Any]]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return what all runs have in common, and each run with the rest; what is empty is in neither."""
    if not runs:
        return {}, []
    first = runs[0]
    shared = {name: first[name] for name in SHARED if all(run[name] == first[name] for run in runs)}
    kept = []
    known = [run["environment"] for run in runs if run["environment"]]
    common = {
        key: value
        for key, value in (known[0] if known else {}).items()
        if all(key in other and other[key] == value for other in known)
    }
    if common:
        shared["environment"] = common
    for run in runs:
        own = {name: value for name, value in run.items() if name not in shared and value not in _EMPTY.get(name, ())}
        if run["environment"]:
            rest = {key: value for key, value in run["environment"].items() if key not in common}
            if rest:
                own["environment"] = rest
        elif common:
            own["environment"] = None
        kept.append(own)
    return shared, kept


def _empty(spec: dataclasses.Field[Any]) -> tuple[Any, ...]:
    """Return the values of a field that its absence stands for."""
    if spec.default is not dataclasses.MISSING:
        # `0 == False`, and 0.0 is a measured figure: only what a missing field becomes again may be missing.
        return (spec.default,) if spec.default is None or spec.default == "" else ()
    made = spec.default_factory() if spec.default_factory is not dataclasses.MISSING else None
    return (made,) if made in ({}, []) else ()


ALWAYS = ("id", "name", "recipe", "label", "runtime", "status")
"""Fields that the schema requires of each run, empty or not."""
_EMPTY = {spec.name: _empty(spec) for spec in dataclasses.fields(Run) if spec.name not in ALWAYS} | {
    name: ([],) for name in ("steps", "seeds", "notes")
}


def _short(value: Any) -> Any:
    """Return a figure with the digits that a picture needs."""
    if not isinstance(value, float) or value == 0:
        return value
    return round(value, _DIGITS - 1 - math.floor(math.log10(abs(value))))


def _size(body: dict[str, Any]) -> int:
    return len(json.dumps(body).encode())


def _json(value: Any) -> Any:
    """Return plain JSON data: what is not finite becomes null, what JSON does not know becomes text."""
    if isinstance(value, dict):
        return {str(key): _json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_json(item) for item in value]
    if isinstance(value, float):
        return finite(value)
    if value is None or isinstance(value, str | int):
        return value
    return str(value)
