"""The mime bundle that a notebook keeps of a comparison: data under one versioned schema, HTML, text."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

from nbopt.comparison import Comparison
from nbopt.render.figures import finite
from nbopt.render.plain import text
from nbopt.render.rich import html
from nbopt.render.sentences import headline, plain, run_sentence
from nbopt.render.view import MAX_DROP, View, views

VERSION = 1
MIME = f"application/vnd.nbopt.comparison.v{VERSION}+json"

LIMIT_BYTES = 1_000_000
"""Beyond this the payload drops the layers, the trials, the environments, then the last runs; `left_out` says so."""


def bundle(comparison: Comparison) -> dict[str, Any]:
    """Return the bundle of a comparison: its data under one versioned schema, HTML, and plain text."""
    return {MIME: payload(comparison), "text/html": html(comparison), "text/plain": text(comparison)}


def payload(comparison: Comparison, limit_bytes: int = LIMIT_BYTES) -> dict[str, Any]:
    """Return a comparison as JSON data, valid against `schema()`: finite numbers, no paths outside the store.

    Args:
        comparison: Any runs.
        limit_bytes: Size of the JSON text that is not exceeded.
    """
    runs = [_json(run.to_dict()) for run in comparison.runs]
    left_out: list[str] = []
    body = {
        "version": VERSION,
        "max_drop": MAX_DROP,
        "workloads": [_workload(view) for view in views(comparison)],
        "runs": runs,
        "left_out": left_out,
    }
    if _size(body) > limit_bytes and any(run["audit"].get("layers") for run in runs):
        for run in runs:
            run["audit"].pop("layers", None)
        left_out.append("layers")
    if _size(body) > limit_bytes and any(run["search"].get("trials") for run in runs):
        for run in runs:
            run["search"].pop("trials", None)
        left_out.append("trials")
    if _size(body) > limit_bytes:
        for run in runs:
            run["environment"] = {}
        left_out.append("environments")
    if (size := _size(body)) > limit_bytes:
        # Sentences and runs shrink together, so that what is told of can be found.
        kept = max(1, int(len(runs) * 0.9 * limit_bytes / size))
        short = payload(Comparison(comparison.runs[:kept]), limit_bytes)
        short["left_out"] = [*left_out, f"{len(runs) - kept} of {len(runs)} runs"]
        return short
    return body


def _workload(view: View) -> dict[str, Any]:
    top = headline(view)
    return {
        "workload": view.runs[0].workload,
        "workload_key": view.runs[0].workload_key,
        "baseline": view.baseline.name if view.baseline else None,
        "best": top.run.name if top.run else None,
        "strong": [{"text": part.text, "kind": part.kind} for part in top.strong],
        "second": [{"text": part.text, "kind": part.kind} for part in top.second],
        "conditions": plain(top.conditions),
        "rows": [
            {
                "run": run.name,
                "sentence": run_sentence(run, view.baseline),
                "verdict": view.words(run),
                "tone": view.tone(run),
            }
            for run in view.runs
        ],
    }


@cache
def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the payload."""
    source = files("nbopt.render").joinpath(f"schema/comparison.v{VERSION}.json")
    loaded: dict[str, Any] = json.loads(source.read_text(encoding="utf-8"))
    return loaded


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
