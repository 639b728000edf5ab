"""The only loop: recipe -> candidate -> artifacts -> measurement -> runs."""

from __future__ import annotations

import inspect
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from nbopt.artifacts import size_of
from nbopt.candidate import Candidate, Control, how_of, make_candidate, make_control
from nbopt.comparison import Comparison, Limits, without_repeats
from nbopt.data import kept_randomness
from nbopt.draft import Draft
from nbopt.errors import (
    FULL,
    ExportError,
    GateFailed,
    Interrupted,
    ModelError,
    NbOptError,
    NbOptWarning,
    OptionError,
    StoreError,
    disk_error,
)
from nbopt.frameworks import Exported
from nbopt.measurement.audit import Audit, leftovers
from nbopt.measurement.metrics import metric_of
from nbopt.measurement.subject import Subject
from nbopt.progress import Progress, ProgressCallback, silent
from nbopt.recipe import Recipe
from nbopt.recording import Settings
from nbopt.repeats import over_seeds
from nbopt.runs import Run, RunStore
from nbopt.runtimes import Manifest, Runtime
from nbopt.searching import Found
from nbopt.stage import Stage, choose_runtimes
from nbopt.technique import Technique
from nbopt.training import TrainingRecord
from nbopt.workload import Workload

BUDGETS = ("quick", "full")
MOST_SEEDS = 100


def optimize(
    workload: Workload,
    *techniques: Technique | Recipe | str,
    seed: int = 0,
    seeds: int = 1,
    runtimes: Sequence[str] | str | None = None,
    measure: str = "quick",
    threads: int | None = None,
    max_drop: float | None = None,
    min_speedup: float | None = None,
    max_size: int | None = None,
    max_latency: float | None = None,
    max_memory: int | None = None,
    store: RunStore | None = None,
    progress: ProgressCallback = silent,
) -> Comparison:
    """Apply one recipe to a workload, and measure it beside the untouched model on every runtime.

    Each finished run is in the store before the next begins. The user's model is not touched.

    Args:
        workload: Model, data and metric.
        techniques: Steps of one recipe, in order; none measures the baselines alone.
        seed: Seed of everything random, 0 by default.
        seeds: Repeats with `seed`, `seed + 1` and so on, 1 to 100, 1 by default. Rows are then means over seeds,
            and comparisons are made over seeds; each repeat is kept in the store as a run of its own.
        runtimes: Words such as "onnxruntime", "all", or None for those that are on by default here.
        measure: "quick" (about 1 s a variant) or "full" (until the interval is within 1%, at most 20 s).
        threads: Threads of one inference, equal for all runtimes; None takes the cores this process may use.
        max_drop: Quality that may be lost, 0.01 is one point; at the interval's bound. Limits judge recipes alone.
        min_speedup: Times faster than the untouched model on its own framework.
        max_size: Bytes of the exported file.
        max_latency: Milliseconds of one row.
        max_memory: Bytes of peak memory.
        store: Where runs are kept; None takes `NBOPT_HOME` or `.nbopt` beside the notebook.
        progress: Told how far the work has come.

    Raises:
        OptionError: An option or runtime is unknown or out of range.
        DataError: The data can't be used; the message says why.
        ModelError: A technique can't be used on this model.
        StoreError: The store can't be written; its `comparison` has all rows so far, also the one that was not kept.
        GateFailed: No variant keeps within the limits; its `comparison` has all rows.
        Interrupted: The user interrupted; its `comparison` has the rows that were finished.
    """
    if not isinstance(workload, Workload):
        raise OptionError(
            "a Workload", f"a {type(workload).__name__}", "nbopt.Workload(model, train=..., valid=..., metric=...)"
        )
    if measure not in BUDGETS:
        raise OptionError(f"measure among {', '.join(BUDGETS)}", repr(measure))
    if threads is not None and threads < 1:
        raise OptionError("threads of 1 or more", str(threads), "threads=1")
    if not 1 <= seeds <= MOST_SEEDS:
        raise OptionError(f"seeds between 1 and {MOST_SEEDS}", str(seeds), "seeds=3")
    recipe = _recipe_of(techniques, seed)
    for step in recipe.techniques:
        step.check(workload)
    limits = Limits(max_drop, min_speedup, max_size, max_latency, max_memory)
    metric = metric_of(workload.metric, output=workload.output)
    if max_drop is not None and metric.bounded and max_drop >= 1:
        warnings.warn(
            f"max_drop={max_drop:g} lets all of {metric.name} go, which is 1 at most; 0.01 or 1% is one point",
            NbOptWarning,
            stacklevel=2,
        )
    settings = Settings(measure, threads, max_drop, seed, progress, max_size, max_latency)
    chosen = choose_runtimes(workload, runtimes)
    done: list[Run] = []
    try:
        with (
            kept_randomness(workload.train, workload.valid, workload.test),
            Stage(workload, store or RunStore(), settings) as stage,
        ):
            named = {runtimes} if isinstance(runtimes, str) else set(runtimes or ())
            for run in _runs(stage, recipe, chosen, named, seeds):
                done.append(run)
                progress(Progress("measured", note=run.name))
    except KeyboardInterrupt as interrupt:
        stopped = Interrupted(f"{len(done)} rows were finished and are kept")
        stopped.comparison = Comparison(done)
        raise stopped from interrupt
    except OSError as error:
        if error.errno not in FULL:
            raise
        full = disk_error(error, tempfile.gettempdir(), "set TMPDIR to a folder with more")
        full.comparison = Comparison(done)
        raise full from error
    except NbOptError as error:
        # What was measured by then goes with the error, and so does the row for which the disk had no room.
        unkept = getattr(error, "run", None)
        error.comparison = Comparison(done if unkept is None else [*done, unkept])
        raise
    result = Comparison(without_repeats(done))
    broken = limits.broken_by(result) if recipe.techniques else ""
    if broken:
        failed = GateFailed(str(limits), broken, "allow more, or try another technique or runtime")
        failed.comparison = result
        raise failed
    return result


def _recipe_of(techniques: Sequence[Technique | Recipe | str], seed: int) -> Recipe:
    """Return the recipe; one with `--max-latency` in its text is told that a function has an argument for that."""
    try:
        return Recipe.of(*techniques, seed=seed)
    except OptionError as error:
        keyword = error.came.removeprefix("--").replace("-", "_")
        if keyword not in inspect.signature(optimize).parameters:
            raise
        raise OptionError(
            "the recipe's own options in its text", error.came, f"nbopt.optimize(work, ..., {keyword}=...)"
        ) from error


def _runs(stage: Stage, recipe: Recipe, runtimes: Sequence[Runtime], named: set[str], seeds: int = 1) -> Iterator[Run]:
    """Yield rows as they are finished: the untouched model on every runtime, the recipe, its means over seeds."""
    for runtime in runtimes:
        yield stage.baseline(runtime).run
    if not recipe.techniques:
        return
    # The native runtime is always there as the baseline; the recipe runs on it only where nobody chose others.
    chosen = [r for r in runtimes if r.name in named] if named and "all" not in named else runtimes
    stage.warm_up([stage.native, *chosen])
    repeats: dict[str, list[Run]] = {}
    found: Found | None = None
    others: dict[str, Found | None] = {}
    for seed in range(recipe.seed, recipe.seed + seeds):
        if not any(step.times for step in recipe.techniques):
            for runtime in chosen:
                stage.prepare(runtime)  # importing a framework takes as long as measuring: let it go on beside the work
        candidate = make_candidate(stage, recipe.with_seed(seed), chosen, found)
        found = found or candidate.found
        # That a runtime which nobody named has no way to this recipe is no news.
        planned = [each for each in chosen if named & {each.name, "all"} or not candidate.refused(each)]
        stage.settings.progress(Progress("to measure", note=", ".join(each.name for each in planned)))
        for runtime in planned:
            run = measure_candidate(stage, recipe, candidate, runtime)
            repeats.setdefault(runtime.name, []).append(run)
            yield run
        if candidate.draft.control and candidate.record.epochs:
            # On one runtime: what it tells is what the training alone does to quality.
            control = Control(recipe.techniques, seed, candidate.control_plan.epochs, how_of(candidate))
            where = next((each for each in chosen if not candidate.refused(each)), chosen[0])
            run = _measure_control(stage, control, candidate, where)
            repeats.setdefault(control.words, []).append(run)
            yield run
        if candidate.interrupted or (found is not None and found.interrupted):
            raise KeyboardInterrupt  # what the search had by then is kept and shown, and no more is begun
        for other in recipe.beside():
            rival, places = _make_beside(stage, recipe, other.with_seed(seed), chosen, others)
            for runtime in places:
                run = measure_candidate(stage, other.with_seed(seed), rival, runtime)
                repeats.setdefault(f"{other.text()}/{runtime.name}", []).append(run)
                yield run
            if rival.interrupted or any(each is not None and each.interrupted for each in others.values()):
                raise KeyboardInterrupt
        if seeds > 1 and _is_settled(repeats.values()):
            break
    if seeds > 1:
        for runs in repeats.values():
            yield stage.store.add(over_seeds(runs, stage.settings.max_drop))


def _measure_control(stage: Stage, control: Control, candidate: Candidate, runtime: Runtime) -> Run:
    """Train the untouched model as a candidate was trained, and measure it; recipes of one training share it."""

    def make() -> Run:
        return measure_candidate(stage, control, make_control(stage, candidate), runtime)

    return stage.control((candidate.control_plan, len(candidate.draft.begin)), make)


def _make_beside(
    stage: Stage, recipe: Recipe, other: Recipe, chosen: Sequence[Runtime], found: dict[str, Found | None]
) -> tuple[Candidate, Sequence[Runtime]]:
    """Carry out a recipe that must stand beside another, and return it with the runtimes to measure it on.

    One runtime tells its quality; all of them where its latency counts too. That there is no such candidate is a row.
    """
    try:
        candidate = make_candidate(stage, other, chosen, found.get(other.text()))
    except (ModelError, OptionError) as error:
        candidate = Candidate(Draft(stage.workload.model), TrainingRecord(), (0, 0), False, other.seed, failure=error)
        return candidate, chosen[:1]
    found.setdefault(other.text(), candidate.found)
    usable = [each for each in chosen if not candidate.refused(each)] or chosen[:1]
    everywhere = any(step.beside_everywhere and step.beside() for step in recipe.techniques)
    return candidate, usable if everywhere else usable[:1]


def _is_settled(repeats: Iterable[Sequence[Run]]) -> bool:
    """Tell whether nothing depends on the seed: two seeds gave the same files, or the same reasons."""
    return all(
        len(runs) > 1 and len({(run.artifact_sha256, run.failed, run.failed and run.reason) for run in runs}) == 1
        for runs in repeats
    )


def measure_candidate(stage: Stage, recipe: Recipe, candidate: Candidate, runtime: Runtime) -> Run:
    """Export, lower and measure a candidate on one runtime; what goes wrong there is a row with the reason."""
    stage.settings.progress(Progress(f"{recipe.words} on {runtime.title}"))
    try:
        missing = runtime.unavailable(stage.workload.framework.family) or candidate.refused(runtime)
        if missing:
            raise NbOptError(missing)
        if candidate.failure is not None:
            raise candidate.failure
        with stage.scratch() as folder:
            run = _measure_on(stage, recipe, candidate, runtime, folder)
    except StoreError:
        raise  # no runtime is to blame, and the next one would find no room either
    except NbOptError as error:
        run = replace(
            stage.record.failed(recipe.text(), recipe.label, runtime, error, recipe.words), seed=candidate.seed
        )
    return stage.store.add(run)


def _measure_on(stage: Stage, recipe: Recipe, candidate: Candidate, runtime: Runtime, folder: Path) -> Run:
    draft, record = candidate.draft, candidate.record
    began = time.perf_counter()
    stage.prepare(runtime)
    exported = _source(stage, candidate, runtime, folder)
    precision, notes = "float32", [*draft.notes, *exported.notes]
    context = stage.context(candidate.seed)
    sensitivity: dict[str, Any] = dict(draft.sensitivity)
    # Each file on the way is what the steps so far gave; the untouched model is a baseline already.
    made = (
        []
        if candidate.untouched or not candidate.trained
        else [(candidate.trained, exported.path, stage.manifest(runtime, exported, precision))]
    )
    for index, (step, words) in enumerate(zip(draft.lower, candidate.lowered, strict=True)):
        target = folder / f"step{index}"
        target.mkdir()
        lowered = step(draft.model, stage.workload.signature, exported, runtime, target, context)
        exported, precision = lowered.exported, lowered.precision
        sensitivity = lowered.sensitivity or sensitivity
        notes += [*lowered.notes, *exported.notes]
        made.append((words, exported.path, stage.manifest(runtime, exported, precision)))
    manifest = stage.manifest(runtime, exported, precision)
    artifact = stage.store.keep(exported.path, manifest, {"recipe": recipe.text(), "workload": stage.workload.name})
    search_seconds = time.perf_counter() - began + candidate.search_seconds
    path = stage.store.home / artifact[0]
    native = stage.subject(stage.native)
    same_runtime = None
    if runtime.name != stage.native.name and not stage.baseline(runtime).run.failed:
        same_runtime = stage.subject(runtime)
    with ExitStack() as opened:
        subject = _open(stage, opened, path, manifest)
        before = {words: _open(stage, opened, file, how) for words, file, how in made[:-1]}
        measured = stage.measure(subject, native, same_runtime, before, made[-1][0] if made else "")
        opened.close()
        _check_leftovers(stage, measured.audit)
        return stage.record.run(
            recipe=recipe.text(),
            label=recipe.label,
            runtime=runtime,
            subject=subject,
            measured=measured,
            artifact=artifact,
            notes=tuple(dict.fromkeys(notes)),
            counts=candidate.counts,
            words=recipe.words,
            asked=draft.dtype,
            seed=candidate.seed,
            train_seconds=record.seconds if record.epochs else None,
            search_seconds=search_seconds,
            measure_seconds=time.perf_counter() - began - search_seconds + candidate.search_seconds,
            epochs=candidate.epochs or None,
            model_artifact=candidate.model_artifact,
            sensitivity=sensitivity,
            search={**draft.tested, **({} if candidate.found is None else candidate.found.table)},
        )


def _check_leftovers(stage: Stage, audit: Audit) -> None:
    """Refuse a file in which masks or fake quantizers of a technique survived; those of the user's own may stay."""
    told = leftovers(audit, Audit.from_dict(stage.baseline(stage.native).run.audit))
    if told:
        raise ExportError(told)


def _open(stage: Stage, opened: ExitStack, path: Path, manifest: Manifest) -> Subject:
    """Open an artifact in a fresh process, and let it predict the reporting rows."""
    bench = opened.enter_context(stage.bench(path, manifest))
    return Subject(bench, bench.predict(stage.workload.report_rows.folder), size_of(path))


def _source(stage: Stage, candidate: Candidate, runtime: Runtime, folder: Path) -> Exported:
    """Return the float artifact that lowering starts from; an untouched model's baseline serves again."""
    if candidate.untouched:
        kept = stage.baseline(runtime)
        if kept.exported is None:
            raise NbOptError(kept.run.reason)
        return kept.exported
    return stage.export(candidate.draft.model, runtime, folder)
