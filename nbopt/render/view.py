"""View: the runs of one workload, with the judgements that every rendering of them shares."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from nbopt.bounds import allowed_drop, asked_drop, least_speedup, most_speedup, within
from nbopt.comparison import Comparison
from nbopt.conditions import differing_words
from nbopt.errors import NbOptError
from nbopt.measurement.rounds import UNSEEN
from nbopt.measurement.statistics import QUIET, Interval, verdict_of_ratio
from nbopt.measurement.verdicts import of_memory, of_quality, of_size, phrase
from nbopt.overlap import overlaps_in
from nbopt.render.figures import Unit, finite, metric_title, one_line, unit_of
from nbopt.runs import Run
from nbopt.runtimes import all_runtimes

Axis = Literal["quality", "latency", "size", "memory"]
Tone = Literal["good", "mixed", "bad", "plain", "muted"]

LOST = 0.05
"""A loss beyond five points, or 5% of a metric that has no bounds, is shown in red whatever was gained."""

COMPARE_RATIOS = "Compare speedups, not milliseconds."


def runtime_title(name: str) -> str:
    """Return how tables write a runtime; a runtime that this nbopt does not know keeps its word."""
    runtime = all_runtimes().get(name)
    return runtime.title if runtime is not None else one_line(name)


def label_of(run: Run) -> str:
    """Return a run's recipe as a table writes it."""
    return one_line(run.label or run.recipe or run.name)


def notes_of(run: Run) -> list[str]:
    """Return what footnotes say of a run: why its verdict is what it is, and its conditions; each once."""
    texts = () if run.failed or run.reason == run.verdict else (run.reason,)
    every = (*texts, *run.notes, *_leaks(run))
    return list(dict.fromkeys(note for text in every if (note := one_line(text))))


def _leaks(run: Run) -> list[str]:
    """Return what a run's figures owe to rows that it may have seen before it was asked about them.

    Every measured row reports on what train shares with that split: the user's model comes from somewhere. What
    was selected on matters to a run that trained, since a training keeps its best state on valid.
    """
    if run.failed or run.quality is None:
        return []
    found = [each for each in overlaps_in(run.environment) if each.rows]
    mine = [each for each in found if run.epochs or each.pair == f"train-{run.split}"]
    return [each.text(run.split) for each in mine]


def ratio(larger: float | None, smaller: float | None) -> float | None:
    """Return how many times larger one exact figure is than another; None where one is missing."""
    top, bottom = finite(larger), finite(smaller)
    return top / bottom if top and bottom and top > 0 and bottom > 0 else None


@dataclass(frozen=True)
class View:
    """Hold the runs of one workload in order.

    Args:
        runs: One or more.
    """

    runs: tuple[Run, ...]

    @cached_property
    def comparison(self) -> Comparison:
        """Return the runs as a comparison of their own."""
        return Comparison(self.runs)

    @cached_property
    def baseline(self) -> Run | None:
        """Return the untouched model on its own framework."""
        return self.comparison.baseline

    @cached_property
    def max_drop(self) -> float:
        """Return the loss of quality that the headline's run may have: what its variants were asked to keep within."""
        return asked_drop(self.runs)

    @cached_property
    def best(self) -> Run | None:
        """Return the headline's run: the baseline where nothing wins, None where nothing was measured."""
        # What owes all its speed to the runtime may by luck have more than the untouched model there: it is no rival.
        rivals = [run for run in self.runs if run.is_baseline or self.wins(run)]
        run = self._chosen(rivals) or self._chosen(self.runs) or self.baseline
        if run is None or run is self.baseline or self.wins(run):
            return run
        return self.baseline or run

    def _chosen(self, among: Iterable[Run]) -> Run | None:
        """Return the best of some runs, None where there is none to choose."""
        try:
            return Comparison(among).choose(max_drop=self.max_drop)[0]
        except (NbOptError, ValueError):
            return None  # bounds that contradict their estimate, from a damaged record, leave nothing to rank

    @cached_property
    def measured(self) -> tuple[Run, ...]:
        """Return the runs that have an artifact."""
        return tuple(run for run in self.runs if not run.failed)

    @cached_property
    def sample(self) -> Run:
        """Return the run whose conditions stand for all: the headline's, or the first."""
        return self.best or self.runs[0]

    @cached_property
    def metric(self) -> str:
        """Return the metric's title, "" where quality was not measured."""
        named = next((run.metric for run in self.runs if run.metric), "")
        return metric_title(one_line(named))

    @cached_property
    def bounded(self) -> bool:
        """Tell whether differences read in points."""
        return self.sample.bounded

    @cached_property
    def unit(self) -> Unit:
        """Return the unit of sizes in this table."""
        return unit_of(run.size_bytes for run in self.runs)

    @cached_property
    def contention(self) -> float | None:
        """Return the highest contention of all runs."""
        values = [value for run in self.measured if (value := finite(run.contention)) is not None]
        return max(values, default=None)

    def verdict(self, run: Run, axis: Axis) -> str:
        """Return one word for an axis: the run's own, or what its figures say; "" where not measured."""
        if axis in run.verdicts:
            return run.verdicts[axis]
        if run.failed or run is self.baseline:
            return ""
        if axis == "latency":
            if (interval := _interval(run.speedup, run.speedup_low, run.speedup_high)) is None:
                return ""
            return verdict_of_ratio(interval, contention=max(1.0, finite(run.contention) or 1.0))
        if axis == "quality":
            delta = _interval(run.quality_delta, run.quality_delta_low, run.quality_delta_high)
            if delta is None:
                return ""
            margin = allowed_drop(run, asked_drop([run]))
            return of_quality(delta, margin=margin, greater_is_better=run.greater_is_better)
        if axis == "size":
            return self.size_verdict(run)
        mine, its = run.peak_memory_bytes, self.baseline.peak_memory_bytes if self.baseline else None
        return of_memory(mine, its) if mine and its else ""

    def size_verdict(self, run: Run) -> str:
        """Return better, same or worse for a run's file beside the baseline's; "" where one is unknown."""
        mine, its = run.size_bytes, self.baseline.size_bytes if self.baseline else None
        return of_size(mine, its) if mine and its else ""

    def size_ratio(self, run: Run) -> float | None:
        """Return how many times smaller than the baseline a run's file is."""
        return ratio(self.baseline.size_bytes, run.size_bytes) if self.baseline else None

    def memory_ratio(self, run: Run) -> float | None:
        """Return how many times less memory than the baseline a run needs."""
        return ratio(self.baseline.peak_memory_bytes, run.peak_memory_bytes) if self.baseline else None

    def wins(self, run: Run, axes: tuple[Axis, ...] = ("latency", "size", "quality", "memory")) -> bool:
        """Tell whether a run is better than the baseline on some axis; the runtime's speed alone does not count."""
        if run.verdicts.get("technique") in {"same", "worse"}:
            # The speed is the runtime's, and a row of its own shows that.
            axes = tuple(axis for axis in axes if axis != "latency")
        return not (run.failed or run.collapsed) and any(self.verdict(run, axis) == "better" for axis in axes)

    def faster(self) -> list[Run]:
        """Return variants that are faster than the headline's and lose more than it allows."""
        best = self.best
        if best is None:
            return []
        floor = most_speedup(best) or 1.0
        return [
            run
            for run in self.measured
            if run is not best and not run.collapsed and not within(run, self.max_drop) and least_speedup(run) > floor
        ]

    def words(self, run: Run) -> str:
        """Return a run's verdict as a few words, "-" for the baseline."""
        if run is self.baseline and run.verdict in {"", "baseline"}:
            return "-"
        if run.verdict:
            return one_line(run.verdict)
        axes: tuple[Axis, ...] = ("quality", "latency", "size")
        judged: dict[str, str] = {axis: verdict for axis in axes if (verdict := self.verdict(run, axis))}
        return phrase(judged, one_line(run.metric), runtime_only=run.is_baseline) or "-"

    def tone(self, run: Run) -> Tone:
        """Return the one thing that colour says: good, mixed, bad, plain, or muted for what failed."""
        if run.failed:
            return "muted"
        if run.collapsed:
            return "bad"
        if run is self.baseline:
            return "plain"
        quality, speed = self.verdict(run, "quality"), self.verdict(run, "latency")
        wins = self.wins(run, ("latency", "size", "quality"))  # of memory the words beside the colour say nothing
        if self._lost(run) or speed == "worse":
            return "bad"
        if run.verdicts.get("technique") == "worse":
            return "mixed" if wins else "bad"
        if quality in {"worse", "slightly worse"}:
            return "mixed" if wins else "bad"
        if not wins:
            return "plain"
        return "mixed" if quality == "inconclusive" or self.verdict(run, "size") == "worse" else "good"

    def _lost(self, run: Run) -> bool:
        delta = finite(run.quality_delta)
        if delta is None or self.verdict(run, "quality") not in {"worse", "inconclusive"}:
            return False
        return (-delta if run.greater_is_better else delta) > allowed_drop(run, LOST)

    @cached_property
    def busy(self) -> bool:
        """Tell whether other load disturbed a measurement."""
        return (self.contention or 1.0) > QUIET or UNSEEN * (self.foreign or 0.0) > QUIET - 1

    @cached_property
    def foreign(self) -> float | None:
        """Return the greatest share of the processors that other processes used while one of the runs was measured."""
        values = [value for run in self.measured if isinstance(value := run.environment.get("foreign_load"), float)]
        return max(values, default=None)

    @cached_property
    def differing(self) -> tuple[str, ...]:
        """Return the conditions in which measured runs differ, so that milliseconds do not rank them."""
        return tuple(one_line(words, 160) for words in differing_words(self.measured))


def _interval(value: float | None, low: float | None, high: float | None) -> Interval | None:
    numbers = finite(value), finite(low), finite(high)
    if numbers[0] is None or numbers[1] is None or numbers[2] is None:
        return None
    return Interval(numbers[0], numbers[1], numbers[2])


def views(comparison: Comparison) -> list[View]:
    """Return a view for each workload in a comparison, in order of appearance."""
    grouped: dict[tuple[str, str], list[Run]] = {}
    for run in comparison.runs:
        grouped.setdefault((run.workload_key, run.workload), []).append(run)
    return [View(tuple(runs)) for runs in grouped.values()]
