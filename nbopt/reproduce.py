"""Reproduce: repeat a kept run from its record, and say whether the two agree."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from html import escape
from typing import Any

from nbopt.comparison import Comparison
from nbopt.conditions import differing_words
from nbopt.errors import GateFailed, Interrupted, NbOptError, OptionError
from nbopt.loop import BUDGETS, optimize
from nbopt.progress import ProgressCallback, silent
from nbopt.recipe import Recipe
from nbopt.render import figures
from nbopt.runs import CONTROL, Run, RunStore
from nbopt.workload import Workload


@dataclass(frozen=True)
class Agreement:
    """Hold what one figure of a run and its repetition say.

    Args:
        name: What was compared: "accuracy", "size", "speedup".
        agree: The two agree.
        words: How: "accuracy equal (91.3%)".
    """

    name: str
    agree: bool
    words: str


@dataclass(frozen=True)
class Reproduction:
    """Hold a run, its repetition, and whether they agree. A notebook shows one sentence and the table.

    Args:
        old: The run from the store.
        new: The same recipe, seed and runtime, run again.
        comparison: The baseline, the old run and the new one.
    """

    old: Run
    new: Run
    comparison: Comparison

    @property
    def agreements(self) -> tuple[Agreement, ...]:
        """Return what was compared, figure by figure."""
        return tuple(_compared(self.old, self.new))

    @property
    def agrees(self) -> bool:
        """Tell whether every figure agrees: equal, or within its interval."""
        return all(each.agree for each in self.agreements)

    @property
    def text(self) -> str:
        """Return one sentence: whether the two agree, and figure by figure how."""
        apart = [each.words for each in self.agreements if not each.agree]
        alike = [each.words for each in self.agreements if each.agree]
        told = f"{self.old.name} of {self.old.created[:16].replace('T', ' ')} UTC, repeated with seed {self.old.seed}, "
        if apart:
            told += f"does not agree: {', '.join(apart)}" + (f"; {', '.join(alike)}" if alike else "")
        else:
            told += f"agrees: {', '.join(alike)}"
        if self.old.artifact_sha256 and self.new.artifact_sha256:
            same = self.old.artifact_sha256 == self.new.artifact_sha256
            told += ", the file is the same byte for byte" if same else ", the file's bytes differ"
        if conditions := differing_words((self.old, self.new)):
            told += f"; measured under different conditions: {', '.join(conditions)}"
        return f"{told}."

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        shown = dict(self.comparison._repr_mimebundle_())
        shown["text/plain"] = f"{self.text}\n\n{shown['text/plain']}"
        if "text/html" in shown:
            shown["text/html"] = f"<p><strong>{escape(self.text)}</strong></p>{shown['text/html']}"
        return shown

    def __repr__(self) -> str:
        return str(self._repr_mimebundle_()["text/plain"])


def rerun(
    workload: Workload, run: Run, *, store: RunStore | None = None, progress: ProgressCallback = silent
) -> Reproduction:
    """Repeat a run from its record: recipe, seeds, threads, measurement, runtime and the loss that it might have.

    Args:
        workload: The model and data that the run was made on.
        run: The run, as the store or a comparison holds it.
        store: Where the new run is kept; None takes `NBOPT_HOME` or `.nbopt` beside the notebook.
        progress: Told how far the work has come.

    Raises:
        OptionError: The workload is another than the run's; the message says what differs.
        Interrupted: The user interrupted; its `comparison` has the run and the rows that were finished.
        NbOptError: As `nbopt.optimize`.
    """
    if run.workload_key != workload.digest:
        raise OptionError(
            f"the model and data that {run.name} was measured on ({run.workload_key[:8]})",
            f"{workload.name} ({workload.digest[:8]}): {'; '.join(_differences(workload, run))}",
            "bind that model and data again (%optimize use), or run the recipe anew on these",
        )
    recipe = _recipe_of(run)
    # A baseline is measured once for each workload object: a copy of it, which shares the frozen rows, has none yet.
    work = workload if recipe.techniques else copy.copy(workload)
    measure, threads = run.environment.get("measure"), run.environment.get("threads")
    try:
        result = optimize(
            work,
            *([recipe] if recipe.techniques else []),
            seed=run.seed,
            seeds=max(1, len(run.seeds)),
            runtimes=[run.runtime],
            measure=measure if measure in BUDGETS else "quick",
            threads=threads if isinstance(threads, int) and threads > 0 else None,
            max_drop=run.max_drop,  # techniques search for what keeps within it
            store=store,
            progress=progress,
        )
    except GateFailed as error:
        if error.comparison is None:
            raise
        result = error.comparison  # as the run that is repeated may have done
    except (Interrupted, NbOptError) as error:
        if error.comparison:
            # What was measured by then, beside the run that it repeats.
            rows = error.comparison.runs
            before = [each for each in rows if each.is_baseline]
            old = replace(run, name=run.kept_name)
            error.comparison = Comparison([*before, old, *(each for each in rows if not each.is_baseline)])
        raise
    new = next(each for each in reversed(result.runs) if (each.recipe, each.runtime) == (run.recipe, run.runtime))
    old = replace(run, name=run.kept_name)
    baselines = [each for each in result if each.is_baseline and each.id != new.id]
    told = Reproduction(old, new, Comparison([])).text
    # The sentence goes with the row too, to where only the table is kept.
    rows = Comparison([*baselines, old, replace(new, notes=(*new.notes, told))])
    return Reproduction(rows.runs[-2], rows.runs[-1], rows)


def _recipe_of(run: Run) -> Recipe:
    """Return a run's recipe from its text, which has a description of an object that has no text of its own."""
    try:
        return Recipe.parse(run.recipe.removeprefix(CONTROL), seed=run.seed)
    except OptionError as error:
        if "{" not in run.recipe:
            raise
        came = f"{run.recipe}, in whose place of braces stood an object that is not kept"
        do = "run the line or cell that made it again, or nbopt.optimize with the object"
        raise OptionError("a recipe whose text says all of it", came, do) from error


def _differences(workload: Workload, run: Run) -> Iterator[str]:
    """Yield what differs between a run's record and a workload, as far as the record tells."""
    parameters = workload.framework.count(workload.model)[0]
    known = (
        ("framework", run.framework, workload.framework.name),
        ("metric", run.metric, workload.metric_name),
        ("reporting split", run.split, workload.report.name),
        ("reporting rows", run.rows, workload.report_rows.rows),
        ("parameters", run.params if run.is_baseline else None, parameters),
    )
    told = [f"{name} {now} instead of {then}" for name, then, now in known if then and then != now]
    yield from told
    if not told:
        yield from _by_the_kept_model(workload, run)


def _by_the_kept_model(workload: Workload, run: Run) -> Iterator[str]:
    """Yield whether weights or rows differ, from the untouched model that the store keeps of the run's workload."""
    unknown = "the model's weights, or the content of the reporting rows"
    try:
        kept = RunStore(run.home).runs(run.workload_key)
        model = next(each for each in kept if each.is_baseline and each.model_artifact).model
    except (NbOptError, StopIteration):
        yield unknown
        return
    now, then = ([value.tobytes() for _, value in workload.framework.weights(each)] for each in (workload.model, model))
    yield "the model's weights (was it trained since?)" if now != then else "the content of the reporting rows"


def _compared(old: Run, new: Run) -> Iterator[Agreement]:
    if old.failed or new.failed:
        both = old.failed and new.failed
        yield Agreement(
            "state", both, "both failed" if both else f"{'the first' if old.failed else 'the new'} run failed"
        )
        return
    yield _quality(old, new)
    size = (
        f"size equal ({new.size_bytes or 0:,} bytes)"
        if old.size_bytes == new.size_bytes
        else f"size {old.size_bytes or 0:,} and {new.size_bytes or 0:,} bytes"
    )
    yield Agreement("size", old.size_bytes == new.size_bytes, size)
    if old.speedup_low is not None or new.speedup_low is not None:
        yield _overlapping("speedup", "x", _bounds(old, "speedup"), _bounds(new, "speedup"))
    else:
        yield _overlapping("latency", " ms", _bounds(old, "latency"), _bounds(new, "latency"))


def _quality(old: Run, new: Run) -> Agreement:
    if not new.metric:
        return Agreement("quality", True, "quality not measured in either")
    name = figures.metric_title(new.metric)
    if old.collapsed or new.collapsed:
        both = old.collapsed and new.collapsed
        return Agreement(
            name, both, "both collapsed" if both else f"{'the first' if old.collapsed else 'the new'} run collapsed"
        )
    if old.quality is None or new.quality is None:
        same = old.quality == new.quality
        return Agreement(name, same, f"{name} not measured in {'either' if same else 'one'}")
    shown = [f"{figures.quality(run).value}{'%' if run.bounded else ''}" for run in (old, new)]
    if old.quality == new.quality:
        return Agreement(name, True, f"{name} equal ({shown[1]})")
    inside = all(
        run.quality_low is not None and run.quality_high is not None and run.quality_low <= other <= run.quality_high
        for run, other in ((old, new.quality), (new, old.quality))
    )
    return Agreement(name, inside, f"{name} {'within its interval' if inside else 'apart'} ({shown[0]} and {shown[1]})")


def _bounds(run: Run, what: str) -> tuple[float, float, float] | None:
    if what == "speedup":
        numbers = run.speedup, run.speedup_low, run.speedup_high
    else:
        numbers = run.latency_ms, run.latency_low_ms, run.latency_high_ms
    value, low, high = (figures.finite(number) for number in numbers)
    return None if value is None or low is None or high is None else (value, low, high)


def _overlapping(
    name: str, unit: str, old: tuple[float, float, float] | None, new: tuple[float, float, float] | None
) -> Agreement:
    if old is None or new is None:
        return Agreement(name, old == new, f"{name} not measured in {'either' if old == new else 'one'}")
    overlap = old[1] <= new[2] and new[1] <= old[2]
    first, second = (f"{figures.figure(*each).value}{unit} {figures.figure(*each).bounds}" for each in (old, new))
    return Agreement(name, overlap, f"{name}s {'overlap' if overlap else 'do not overlap'} ({first} and {second})")
