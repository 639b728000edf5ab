"""A learning-rate range test as a picture: loss over rate, and the rate to start from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from nbopt.rates import LRRange, smoothed
from nbopt.render.figures import finite
from nbopt.render.markup import MUTED, picture, safe
from nbopt.render.pictures import COLOURS

_WIDTH, _HEIGHT, _FOOT = 420, 150, 18


def bundle(found: LRRange) -> dict[str, Any]:
    """Return a range test as a sentence, and with its picture as HTML."""
    return {"text/plain": found.text, "text/html": range_html(found.to_dict())}


def range_html(found: Mapping[str, Any]) -> str:
    """Return the picture and the reason, of what an untrusted notebook keeps; "" where nothing was tested."""
    pairs = [
        (math.log10(rate), loss)
        for rate, value in zip(found.get("rates") or (), found.get("losses") or (), strict=False)
        if (loss := finite(value)) is not None and finite(rate) and rate > 0
    ]
    if len(pairs) < 3:
        return ""
    suggested = finite(found.get("suggested"))
    told = "no rate is suggested" if suggested is None else f"suggested learning rate {suggested:.2g}"
    line = f'<div style="font-size:12px;margin:4px 0 0 0">range test: {safe(told)}'
    why = f' <span style="{MUTED}">{safe(str(found.get("reason") or ""), 200)}</span></div>'
    return f"{line}{why}{_picture(pairs, suggested, told)}"


def range_text(found: Mapping[str, Any]) -> str:
    """Return it as a line; "" where nothing was tested."""
    if not found.get("rates"):
        return ""
    suggested = finite(found.get("suggested"))
    told = "no rate is suggested" if suggested is None else f"suggested learning rate {suggested:.2g}"
    return f"range test: {told}; {found.get('reason') or ''}"


def _picture(pairs: list[tuple[float, float]], suggested: float | None, told: str) -> str:
    logs = [log for log, _ in pairs]
    curve = [float(value) for value in smoothed([loss for _, loss in pairs])]
    low, start = min(curve), curve[0]
    # What explodes at the end would flatten the part that tells something.
    high = max(min(max(curve), start + (start - low) + abs(start) * 0.2), low + 1e-9)
    left, right = logs[0], logs[-1] if logs[-1] > logs[0] else logs[0] + 1

    def x(log: float) -> float:
        return round(8 + (log - left) / (right - left) * (_WIDTH - 16), 1)

    def y(loss: float) -> float:
        share = (min(max(loss, low), high) - low) / (high - low)
        return round(6 + (1 - share) * (_HEIGHT - _FOOT - 12), 1)

    parts = "".join(
        f'<circle cx="{x(log)}" cy="{y(loss)}" r="1.3" fill="{COLOURS["muted"]}" opacity="0.6"/>' for log, loss in pairs
    )
    path = "L".join(f"{x(log)} {y(value)}" for log, value in zip(logs, curve, strict=True))
    parts += f'<path d="M{path}" fill="none" stroke="{COLOURS["good"]}" stroke-width="1.6"/>'
    for decade in range(math.ceil(left), math.floor(right) + 1):
        parts += (
            f'<path d="M{x(decade)} {_HEIGHT - _FOOT}v4" stroke="{COLOURS["plain"]}"/>'
            f'<text x="{x(decade)}" y="{_HEIGHT - 3}" font-size="10" text-anchor="middle" '
            f'fill="{COLOURS["plain"]}">1e{decade}</text>'
        )
    if suggested is not None:
        at = x(math.log10(suggested))
        parts += f'<path d="M{at} 4V{_HEIGHT - _FOOT}" stroke="{COLOURS["mixed"]}" stroke-dasharray="4 3"/>'
    said = f"loss over learning rate from 1e{left:.0f} to 1e{right:.0f}; {told}"
    return f"<div>{picture(parts, _WIDTH, _HEIGHT, said)}</div>"
