"""What a search of architectures tried, as plain data of `Run.search`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nbopt.architectures.exploring import Explored
from nbopt.architectures.space import Space
from nbopt.techniques._nas.choosing import Tried
from nbopt.techniques._nas.hunting import Finalist

SHOWN = 200
"""Candidates that a run keeps, the first ones."""


def table_of(
    space: Space, seen: Explored, what: str, found: Sequence[Finalist], tried: Sequence[Tried], chosen: Finalist
) -> dict[str, Any]:
    """Return what was looked at, and what was trained.

    Args:
        space: The choices.
        seen: What was looked at; its qualities are the greater the better.
        what: What a score is.
        found: Finalists.
        tried: What they were worth after a training, () where they had none.
        chosen: What is gone on with.
    """
    numbers = {look.setting: number for number, look in enumerate(seen.looks)}
    finals = [
        {
            "kind": "finalist",
            "number": numbers.get(each.setting, 0),
            "values": values_of(space, each.setting, each.there.latency_ms),
            "found": _number(each.quality),
            "scores": [_number(trained.quality)],
            "mean": _number(trained.quality),
        }
        for each, trained in zip(found, tried, strict=False)
    ]
    return {
        "what": what,
        "greater": True,
        "space": [choice.text for choice in space.choices],
        "study": "",
        "trials": [
            {
                "number": number,
                "values": values_of(space, look.setting, look.latency_ms),
                "score": _number(look.quality),
                "state": "complete" if np.isfinite(look.quality) else "failed",
                "epochs": 0,
                "seconds": 0.0,
                "reason": look.reason,
            }
            for number, look in enumerate(seen.looks[:SHOWN])
        ],
        "left_out": max(0, len(seen.looks) - SHOWN),
        "finalists": finals,
        "chosen": {
            "kind": "finalist",
            "number": numbers.get(chosen.setting, 0),
            "values": values_of(space, chosen.setting, chosen.there.latency_ms),
            "found": _number(chosen.quality),
            "scores": [],
            "mean": None,
        },
        "ended": seen.ended,
    }


def values_of(space: Space, setting: Sequence[int], latency_ms: float) -> dict[str, Any]:
    """Return a setting as plain data: what each choice has, and the latency."""
    found: dict[str, Any] = {"latency": float(latency_ms)}
    for choice, place in zip(space.choices, setting, strict=True):
        option = choice.options[int(place)]
        found[choice.name] = ("in" if option else "out") if isinstance(option, bool) else option
    return found


def words_of(space: Space, setting: Sequence[int]) -> str:
    """Return what differs from the whole model, in words."""
    changed = []
    for choice, place in zip(space.choices, setting, strict=True):
        option = choice.options[int(place)]
        if int(place) == len(choice.options) - 1:
            continue
        changed.append(f"{choice.name} out" if isinstance(option, bool) else f"{choice.name} {option:g}")
    return ", ".join(changed) or "the whole model"


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
