"""Repeats: the runs of one recipe with several seeds, as one row."""

from __future__ import annotations

import dataclasses
import math
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from statistics import fmean, median, stdev
from typing import Any

from nbopt.bounds import DEFAULT_DROP, allowed_drop
from nbopt.measurement import verdicts
from nbopt.measurement.distributions import t_quantile
from nbopt.measurement.intervals import Interval
from nbopt.measurement.statistics import verdict_of_ratio
from nbopt.runs import Run

SPREAD = ("quality", "quality_delta", "speedup", "latency_ms", "size_bytes", "peak_memory_bytes", "train_seconds")
"""Figures whose value for each seed is kept beside the mean."""


def over_seeds(runs: Sequence[Run], max_drop: float | None) -> Run:
    """Return one row for the runs of a recipe on a runtime that differ in their seed alone.

    Figures are means over the seeds (ratios of times: geometric). The half-width of an interval adds, in
    quadrature, Student's for the seeds and the mean one of the rows or rounds that each seed was judged on: all
    seeds share the rows, so that their own spread does not hold that part. The artifact is that of the seed whose
    quality is the median, never of the best one.

    Args:
        runs: Runs in order of their seeds, one or more. Failed ones are told of; where all failed the row has failed.
        max_drop: Loss of quality that is still acceptable; None is one point.
    """
    good = [run for run in runs if not run.failed and not run.collapsed]
    if not good:
        return dataclasses.replace(
            runs[0], id=uuid.uuid4().hex, seeds=tuple(run.seed for run in runs), spread=_spread(runs)
        )
    middle = _median_run(good)
    bounded = good[0].bounded
    quality = _within(_mean(good, "quality"), 0.0 if bounded else -math.inf, 1.0 if bounded else math.inf)
    delta = _within(_mean(good, "quality_delta"), -1.0 if bounded else -math.inf, 1.0 if bounded else math.inf)
    speedup, latency = _mean(good, "speedup", geometric=True), _mean(good, "latency", geometric=True, unit="_ms")
    technique = _geometric([run.speedup_technique for run in good])
    changes: dict[str, Any] = {
        **_fields("quality", quality),
        **_fields("quality_delta", delta),
        **_fields("speedup", speedup),
        **_fields("latency", latency, "_ms"),
        "speedup_technique": technique,
        "speedup_runtime": speedup.value / technique if speedup and technique else middle.speedup_runtime,
        "quality_p": None,
        "verdicts": (judged := _judged(good, delta, speedup, max_drop)),
    }
    for name in ("latency_p90_ms", "latency_p99_ms", "cpu_ms", "contention", "throughput", "agreement", "max_error",
                 "train_seconds", "search_seconds", "measure_seconds", "load_ms", "first_inference_ms"):  # fmt: skip
        values = [value for run in good if (value := getattr(run, name)) is not None]
        changes[name] = fmean(values) if values else None
    words = verdicts.phrase(judged, middle.metric)
    told = f"mean over {len(good)} seeds; the file is that of seed {middle.seed}, whose quality is the median"
    missing = [run for run in runs if run not in good]
    notes = [told, *(f"seed {run.seed} is left out: {run.reason}" for run in missing), *middle.notes]
    return dataclasses.replace(
        middle,
        id=uuid.uuid4().hex,
        created=datetime.now(UTC).isoformat(timespec="milliseconds"),
        label=f"{middle.label}, {len(runs)} seeds",
        seed=runs[0].seed,
        seeds=tuple(run.seed for run in runs),
        spread=_spread(runs),
        verdict=words,
        notes=tuple(dict.fromkeys(notes)),
        **changes,
    )


def _spread(runs: Sequence[Run]) -> dict[str, list[object]]:
    found: dict[str, list[object]] = {name: [getattr(run, name) for run in runs] for name in SPREAD}
    return {"runs": [run.id for run in runs], **found}


def _median_run(runs: Sequence[Run]) -> Run:
    known = [run.quality for run in runs if run.quality is not None]
    if len(known) < len(runs):
        return runs[0]
    middle = median(known)
    return min(runs, key=lambda run: abs((run.quality or 0.0) - middle))


def _mean(runs: Sequence[Run], name: str, *, geometric: bool = False, unit: str = "") -> Interval | None:
    """Return the mean of a figure with its interval over seeds and rows; None where a run lacks it."""
    into: Callable[[float], float] = math.log if geometric else float
    back: Callable[[float], float] = math.exp if geometric else float
    triples = [
        (getattr(run, f"{name}{unit}"), getattr(run, f"{name}_low{unit}"), getattr(run, f"{name}_high{unit}"))
        for run in runs
    ]
    values = [value for value, _, _ in triples if value is not None and (value > 0 or not geometric)]
    if len(values) < len(runs):
        return None
    # A bound that one seed lacks, since its machine was too busy to tell, all of them lack.
    known = [(into(v), low, high) for v, low, high in triples if low is not None or high is not None]
    lows = [v - into(low) if low is not None and (low > 0 or not geometric) else math.inf for v, low, _ in known]
    highs = [into(high) - v if high is not None else math.inf for v, _, high in known]
    middle = fmean(map(into, values))
    below, above = (fmean(reaches) if reaches else 0.0 for reaches in (lows, highs))
    reach = 0.0
    if len(values) > 1:
        reach = t_quantile(0.975, len(values) - 1) * stdev(map(into, values)) / math.sqrt(len(values))
    return Interval(back(middle), back(middle - math.hypot(reach, below)), back(middle + math.hypot(reach, above)))


def _within(interval: Interval | None, least: float, most: float) -> Interval | None:
    """Return an interval whose bounds are values that the figure can have: Student's of two seeds is wide."""
    if interval is None:
        return None
    return dataclasses.replace(interval, low=max(interval.low, least), high=min(interval.high, most))


def _geometric(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None and value > 0]
    return math.exp(fmean(map(math.log, known))) if len(known) == len(values) else None


def _fields(name: str, interval: Interval | None, unit: str = "") -> dict[str, float | None]:
    low, high = (None, None) if interval is None else (interval.low, interval.high)
    value = None if interval is None else interval.value
    return {f"{name}{unit}": value, f"{name}_low{unit}": low, f"{name}_high{unit}": high}


def _judged(
    runs: Sequence[Run], delta: Interval | None, speedup: Interval | None, max_drop: float | None
) -> dict[str, str]:
    """Return a word for each axis; sizes and memory as most seeds have them."""
    found = {}
    for axis in ("size", "memory"):
        words = [run.verdicts[axis] for run in runs if axis in run.verdicts]
        if words:
            found[axis] = max(set(words), key=words.count)
    if speedup is not None:
        busy = any(run.verdicts.get("latency") == "busy" for run in runs)
        word = verdict_of_ratio(speedup)
        found["latency"] = "busy" if word == "inconclusive" and busy else word
        own = [run.verdicts["technique"] for run in runs if "technique" in run.verdicts]
        if own:
            found["technique"] = max(set(own), key=own.count)
    if delta is not None:
        margin = allowed_drop(runs[0], DEFAULT_DROP if max_drop is None else max_drop)
        better = runs[0].greater_is_better
        found["quality"] = verdicts.of_quality(delta, margin=margin, greater_is_better=better)
    return found
