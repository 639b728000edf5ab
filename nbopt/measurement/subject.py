"""Measure one artifact beside the untouched baseline."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from nbopt.frozen import Frozen
from nbopt.measurement import verdicts
from nbopt.measurement.bench import Bench
from nbopt.measurement.intervals import Interval
from nbopt.measurement.lock import measuring
from nbopt.measurement.metrics import Metric
from nbopt.measurement.quality import Quality, judge
from nbopt.measurement.rounds import Budget, Latency, Rounds, run_rounds
from nbopt.measurement.statistics import QUIET

BATCHES = {"quick": (1, 8, 64), "full": (1, 2, 4, 8, 16, 32, 64)}
BATCH_SECONDS = {"quick": 0.05, "full": 0.5}
NATIVE, RUNTIME, VARIANT = "native", "runtime", "variant"

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Subject:
    """Hold an artifact that is open in a process of its own, with what is known of it.

    Args:
        bench: The process.
        raw: Outputs for every reporting row.
        size_bytes: Bytes that a user ships.
    """

    bench: Bench
    raw: Array
    size_bytes: int


@dataclass(frozen=True)
class Measurement:
    """Hold the figures of one artifact.

    Args:
        quality: Value, difference from the baseline, agreement.
        latency: Times of one row at a time.
        speedup: Times faster than the untouched model on its own framework; None for that model itself.
        technique: Times faster than the untouched model on the same runtime; None where that is not known.
        throughput: Rows a second at the best batch size.
        throughput_batch: That batch size.
        contention: Wall time over CPU time per busy thread, >= 1.
        foreign: Share of the CPUs that other processes used, or None.
        verdicts: A word for each axis.
    """

    quality: Quality
    latency: Latency
    speedup: Interval | None
    technique: Interval | None
    throughput: float
    throughput_batch: int
    contention: float
    foreign: float | None
    verdicts: dict[str, str]


def measure_subject(
    subject: Subject,
    *,
    native: Subject | None,
    same_runtime: Subject | None,
    rows: Frozen,
    metric: Metric,
    margin: float,
    budget: str = "quick",
    seed: int = 0,
    waiting: Callable[[float], None] = lambda _: None,
    on_round: Callable[[Rounds], None] | None = None,
) -> Measurement:
    """Measure an artifact, in turns with its baselines.

    Args:
        subject: What is measured.
        native: The untouched model on its own framework; None where `subject` is that.
        same_runtime: The untouched model on the subject's runtime; None where there is none, or it is `native`.
        rows: Reporting rows.
        metric: What quality is.
        margin: Loss of quality that is still acceptable, in the metric's unit.
        budget: "quick" or "full".
        seed: Seed of order and bootstrap.
        waiting: Called while another process of this machine measures.
        on_round: Called after each round.

    Raises:
        DataError: Outputs are NaN, or do not go with the labels.
        ExportError: A process died.
    """
    base_raw = None if native is None else native.raw
    quality = judge(metric, subject.raw, rows.targets, rows.weight, base_raw, seed=seed)
    sides = {VARIANT: subject.bench.side()}
    if same_runtime is not None:
        sides = {RUNTIME: same_runtime.bench.side(), **sides}
    if native is not None:
        sides = {NATIVE: native.bench.side(), **sides}
    subjects = [s for s in (native, same_runtime, subject) if s is not None]
    with measuring(waiting):
        rounds = run_rounds(
            sides,
            Budget.of("full" if budget == "full" else "quick"),
            rng=seed,
            pids=[s.bench.pid for s in subjects],
            on_round=on_round,
        )
        throughput, batch = best_throughput(subject.bench, budget)
    speedup = rounds.ratio(NATIVE, VARIANT) if native is not None else None
    technique = speedup if same_runtime is None else rounds.ratio(RUNTIME, VARIANT)
    contention = rounds.contention()
    words: dict[str, str] = {}
    if native is not None:
        latency = rounds.verdict(NATIVE, VARIANT)
        words["latency"] = "busy" if latency == "inconclusive" and contention > QUIET else latency
        words["size"] = verdicts.of_size(subject.size_bytes, native.size_bytes)
        reference = same_runtime or native
        words["memory"] = verdicts.of_memory(subject.bench.loaded.peak_bytes, reference.bench.loaded.peak_bytes)
        if quality.difference is not None:
            words["quality"] = verdicts.of_quality(
                quality.difference.interval, margin=margin, greater_is_better=metric.greater_is_better
            )
    return Measurement(
        quality=quality,
        latency=rounds.latency(VARIANT),
        speedup=speedup,
        technique=technique,
        throughput=throughput,
        throughput_batch=batch,
        contention=contention,
        foreign=rounds.foreign,
        verdicts=words,
    )


def best_throughput(bench: Bench, budget: str) -> tuple[float, int]:
    """Return the most rows a second over batch sizes, and the batch size; sizes that are refused are left out."""
    limit_ns = BATCH_SECONDS.get(budget, BATCH_SECONDS["quick"]) * 1e9
    best, best_batch = 0.0, 1
    fixed = bench.manifest.batch
    for batch in BATCHES.get(budget, BATCHES["quick"]) if fixed is None else (fixed,):
        side = bench.side(batch)
        first = side(1)
        calls = math.ceil(limit_ns / float(np.median(first.wall_ns)))
        block = side(calls) if calls > 1 else first
        rows_a_second = batch * 1e9 / float(np.median(block.wall_ns))
        if rows_a_second > best:
            best, best_batch = rows_a_second, batch
    return best, best_batch


__all__ = ["Measurement", "Subject", "best_throughput", "measure_subject"]
