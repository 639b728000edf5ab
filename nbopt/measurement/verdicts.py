"""One word for each axis, and the few words that a table shows."""

from __future__ import annotations

from nbopt.measurement.intervals import Interval
from nbopt.measurement.statistics import verdict_of_difference

SIZE_TOLERANCE = 0.02
MEMORY_TOLERANCE = 0.10
"""Peak memory moves by a few percent between runs of one artifact: pages, allocator arenas."""
SMALL_MEMORY = 8 << 20
"""Below 8 MB of peak the allocator decides, not the model."""


def of_size(size: int, baseline: int) -> str:
    """Return "better" (smaller), "worse" or "same"; sizes are exact, so 2% is what matters."""
    return _of_amounts(size, baseline, SIZE_TOLERANCE)


def of_memory(peak: int, baseline: int) -> str:
    """Return "better" (less), "worse" or "same"."""
    if max(peak, baseline) < SMALL_MEMORY:
        return "same"
    return _of_amounts(peak, baseline, MEMORY_TOLERANCE)


def _of_amounts(value: int, baseline: int, tolerance: float) -> str:
    if value < baseline * (1 - tolerance):
        return "better"
    return "worse" if value > baseline * (1 + tolerance) else "same"


def of_quality(difference: Interval, *, margin: float, greater_is_better: bool) -> str:
    """Return identical, better, same, slightly worse, worse or inconclusive; see `verdict_of_difference`."""
    return verdict_of_difference(difference, margin=margin, greater_is_better=greater_is_better)


def phrase(verdicts: dict[str, str], metric: str, *, runtime_only: bool = False) -> str:
    """Return a verdict as a table shows it: "faster, smaller, same accuracy".

    Args:
        verdicts: A word for each of quality, latency, technique, size, memory, of those that were measured.
        metric: Name of the metric.
        runtime_only: The model is untouched and only its runtime differs: "faster (runtime)".
    """
    latency = {
        "better": "faster",
        "worse": "slower",
        "same": "same speed",
        "inconclusive": "speed inconclusive",
        "busy": "speed inconclusive, machine busy",
    }.get(verdicts.get("latency", ""), "")
    if runtime_only:
        parts = [f"{latency} (runtime)" if latency in ("faster", "slower") else latency]
        if verdicts.get("quality") not in ("identical", "same", None):
            parts.append(_quality(verdicts["quality"], metric))
        return ", ".join(filter(None, parts)) or "untouched model"
    own = verdicts.get("technique", "")
    if own == "worse":
        # Whatever the runtime gained, the technique took some of it back.
        latency = "slower than untouched there"
    elif latency == "faster" and own == "same":
        latency = "faster by the runtime alone"
    elif latency == "faster" and own in ("inconclusive", "busy"):
        latency = "faster, the technique's part inconclusive"
    size = {"better": "smaller", "worse": "larger", "same": "same size"}.get(verdicts.get("size", ""), "")
    quality = _quality(verdicts.get("quality", ""), metric)
    return ", ".join(filter(None, (latency, size, quality)))


def _quality(word: str, metric: str) -> str:
    name = metric.replace("_", " ")
    return {
        "identical": f"identical {name}",
        "same": f"same {name}",
        "better": f"better {name}",
        "slightly worse": f"slightly worse {name}",
        "worse": f"worse {name}",
        "inconclusive": f"{name} inconclusive",
    }.get(word, "")
