"""Measure one artifact beside the untouched baseline."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from nbopt.errors import DataError, ExportError, NbOptError
from nbopt.frozen import Frozen
from nbopt.measurement import verdicts
from nbopt.measurement.audit import Audit
from nbopt.measurement.bench import Bench
from nbopt.measurement.budget import Budget
from nbopt.measurement.intervals import Interval
from nbopt.measurement.lock import measuring
from nbopt.measurement.metrics import Metric
from nbopt.measurement.placement import Placement
from nbopt.measurement.quality import Quality, judge
from nbopt.measurement.rounds import Latency, Rounds
from nbopt.measurement.steps import Step
from nbopt.measurement.turns import run_rounds

BATCHES = {"quick": (8, 64), "full": (2, 4, 8, 16, 32, 64)}
BATCH_SECONDS = {"quick": 0.05, "full": 0.5}
LONGEST_CALLS = 20
"""A batch whose one call would take this many times the time that a batch size gets is not tried."""
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
        technique: Times faster than the untouched model on the same runtime; None where that does not run there, or
            is what was measured.
        throughput: Rows a second at the best batch size.
        throughput_batch: That batch size.
        throughputs: Rows a second at each batch size that was tried.
        audit: What the artifact is, layer by layer.
        contention: Wall time over CPU time per busy thread, >= 1.
        foreign: Share of the CPUs that other processes used, or None.
        verdicts: A word for each axis: quality, latency, size, memory; and for technique, which is latency against
            the untouched model on the same runtime, where that is not the native one.
        steps: What each step of a pipeline gave; empty where there is only one.
    """

    quality: Quality
    latency: Latency
    speedup: Interval | None
    technique: Interval | None
    throughput: float
    throughput_batch: int
    throughputs: dict[int, float]
    audit: Audit
    contention: float
    foreign: float | None
    verdicts: dict[str, str]
    steps: tuple[Step, ...] = ()


def measure_subject(
    subject: Subject,
    *,
    native: Subject | None,
    same_runtime: Subject | None,
    rows: Frozen,
    metric: Metric,
    margin: float,
    before: Mapping[str, Subject] | None = None,
    last_step: str = "",
    budget: str = "quick",
    threads: int = 1,
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
        before: What the artifact was after each step but the last, by the step's words, in order.
        last_step: Words of the step that made the artifact of the last of them.
        budget: "quick" or "full".
        threads: Threads of one inference.
        seed: Seed of order and bootstrap.
        waiting: Called while another process of this machine measures.
        on_round: Called after each round.

    Raises:
        DataError: Outputs are NaN, or do not go with the labels.
        ExportError: A process died.
    """
    base_raw = None if native is None else native.raw
    quality = judge(metric, subject.raw, rows.targets, rows.weight, base_raw, seed=seed)
    steps = dict(before or {})
    named = {f"step {words}": step for words, step in steps.items()} | {VARIANT: subject}
    if same_runtime is not None:
        named = {RUNTIME: same_runtime, **named}
    if native is not None:
        named = {NATIVE: native, **named}
    place = Placement(threads, seed)
    # What runs on another device is driven by one thread, which runs on one processor like all others of its kind.
    driver = Placement(1, seed)
    places = {name: place if each.bench.manifest.device == "cpu" else driver for name, each in named.items()}

    def turn() -> None:
        place.turn()
        driver.turn()

    with measuring(waiting):
        rounds = run_rounds(
            {name: each.bench.side(placement=places[name]) for name, each in named.items()},
            Budget.of("full" if budget == "full" else "quick"),
            rng=seed,
            pids=[pid for each in named.values() for pid in each.bench.pids],
            apart=True,
            before_round=turn,
            on_round=on_round,
        )
        place.free()
        driver.free()
        throughputs = throughput_by_batch(subject.bench, rounds.latency(VARIANT).median * 1e6, budget, places[VARIANT])
    speedup = rounds.ratio(NATIVE, VARIANT) if native is not None else None
    at_home = native is not None and subject.bench.manifest.runtime == native.bench.manifest.runtime
    technique = rounds.ratio(RUNTIME, VARIANT) if same_runtime is not None else speedup if at_home else None
    audit = _audit(subject.bench)
    contention = rounds.contention()
    best_batch = max(throughputs, key=lambda batch: throughputs[batch])
    chain = []
    if native is not None and steps:
        made = [(f"step {words}", words, step) for words, step in steps.items()]
        # Where the untouched model does not run, nobody knows what of the first step's gain is the runtime's.
        start = [(RUNTIME, "", same_runtime)] if same_runtime is not None else [(NATIVE, "", native)] if at_home else []
        chain = [*start, *made, (VARIANT, last_step, subject)]
    words: dict[str, str] = {}
    if native is not None:
        words["latency"] = _speed_word(rounds, NATIVE)
        if same_runtime is not None:
            words["technique"] = _speed_word(rounds, RUNTIME)
        words["size"] = verdicts.of_size(subject.size_bytes, native.size_bytes)
        words["memory"] = verdicts.of_memory(
            subject.bench.loaded.peak_bytes, (same_runtime or native).bench.loaded.peak_bytes
        )
        if quality.difference is not None:
            words["quality"] = verdicts.of_quality(
                quality.difference.interval, margin=margin, greater_is_better=metric.greater_is_better
            )
    return Measurement(
        quality=quality,
        latency=rounds.latency(VARIANT),
        speedup=speedup,
        technique=technique,
        throughput=throughputs[best_batch],
        throughput_batch=best_batch,
        throughputs=throughputs,
        audit=audit,
        contention=contention,
        foreign=rounds.foreign,
        verdicts=words,
        steps=tuple(_step(rounds, metric, rows, seed, one, other) for one, other in pairwise(chain)),
    )


def _audit(bench: Bench) -> Audit:
    """Return what the artifact is; where that can't be read its other figures are facts all the same."""
    try:
        return bench.audit()
    except NbOptError as error:
        return Audit(unread=error.one_line)


def _speed_word(rounds: Rounds, baseline: str) -> str:
    """Return the verdict on the variant's speed against one side; "busy" where other load is why there is none."""
    word = rounds.verdict(baseline, VARIANT)
    return "busy" if word == "inconclusive" and rounds.busy else word


def _step(
    rounds: Rounds,
    metric: Metric,
    rows: Frozen,
    seed: int,
    before: tuple[str, str, Subject],
    after: tuple[str, str, Subject],
) -> Step:
    """Return what a step gave: sides of the same rounds, outputs for the same rows."""
    (side_before, _, one), (side_after, words, other) = before, after
    speed = rounds.ratio(side_before, side_after)
    try:
        judged = judge(metric, other.raw, rows.targets, rows.weight, one.raw, seed=seed)
    except DataError:
        judged = None  # NaN came with the step before, which says so of itself: nothing can be compared with it
    value = None if judged is None else judged.value
    difference = None if judged is None or judged.difference is None else judged.difference.interval
    return Step(
        words=words,
        speedup=speed.value,
        speedup_low=speed.low,
        speedup_high=speed.high,
        size_bytes=other.size_bytes,
        size_ratio=one.size_bytes / max(1, other.size_bytes),
        peak_memory_bytes=other.bench.loaded.peak_bytes,
        quality=None if value is None else value.value,
        quality_delta=None if difference is None else difference.value,
        quality_delta_low=None if difference is None else difference.low,
        quality_delta_high=None if difference is None else difference.high,
    )


def throughput_by_batch(
    bench: Bench, latency_ns: float, budget: str, placement: Placement | None = None
) -> dict[int, float]:
    """Return rows a second at each batch size of the budget.

    Sizes that the artifact does not take, that its process did not live through, or that would take too long are
    left out; what is asked of one row at a time is known already.

    Args:
        bench: The artifact, in its process.
        latency_ns: Median wall time of one row.
        budget: "quick" or "full".
        placement: Where it runs.
    """
    limit_ns = BATCH_SECONDS[budget] * 1e9
    fixed = bench.manifest.batch
    found: dict[int, float] = {}
    if fixed is None:
        found[1] = 1e9 / latency_ns
    for batch in BATCHES[budget] if fixed is None else (fixed,):
        if found and batch * latency_ns > LONGEST_CALLS * limit_ns:
            break
        try:
            side = bench.side(batch, placement, alone=True)
            first = side(1)
            calls = math.ceil(limit_ns / float(np.median(first.wall_ns)))
            block = side(calls) if calls > 1 else first
        except (DataError, ExportError):
            if not found:
                raise
            break
        found[batch] = batch * 1e9 / float(np.median(block.wall_ns))
    return found


__all__ = ["Measurement", "Subject", "measure_subject", "throughput_by_batch"]
