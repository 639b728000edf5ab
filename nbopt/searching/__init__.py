"""The search over what all techniques of a recipe leave open: one training for each trial, by that trial's plan."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nbopt.draft import Context, Draft
from nbopt.errors import DataError, StudyError, TrainingError
from nbopt.fitting import train
from nbopt.measurement.metrics import metric_of
from nbopt.progress import Progress, silent
from nbopt.searching.clashes import compatible
from nbopt.searching.finalists import FINALIST, UNTOUCHED, Finalist, finalists_of, repeat, whole_rounds, winner_of
from nbopt.searching.objective import EPOCHS, OneTraining, Trained, untouched
from nbopt.searching.telling import notes_on, table_of
from nbopt.space import Dimension, Search
from nbopt.studies import Budget, Opened, Running, best_of, defaults, distributions, open_study, run_study, values_of
from nbopt.studies.repeating import fresh_seeds
from nbopt.studies.trials import SEED
from nbopt.training import TrainingRecord


@dataclass(frozen=True)
class Found:
    """Say what a search found.

    Args:
        values: The values that were chosen, by the dimensions' names.
        table: What was tried, as plain data of `Run.search`.
        seed: Seed of the search.
        epochs: Epochs of all trainings together.
        seconds: Time of the search, all its trainings included.
        interrupted: The user interrupted, and this is the best so far.
    """

    values: Mapping[str, Any]
    table: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    epochs: int = 0
    seconds: float = 0.0
    interrupted: bool = False


def searched(
    draft: Draft, context: Context, seed: int, *, name: str, key: str = "", storage: Path | None = None
) -> tuple[Draft, TrainingRecord, Found]:
    """Search over a draft's dimensions, and return it with the best values, trained.

    The untouched values are tried first. The best few are trained again with fresh seeds, beside the untouched ones,
    and chosen by the mean of those: the best of many trials is likely only the luckiest. What is returned is the
    training with the first fresh seed, so that nothing is trained once more.

    Args:
        draft: The candidate with its dimensions.
        context: The workload.
        seed: Seed of the search and of its trainings.
        name: Name of the study; one of that name that was not finished goes on.
        key: What is searched, so that later searches of the same can start from its best.
        storage: File of the studies; None is the one beside the runs.

    Raises:
        DataError: There are no labels to select by.
        TrainingError: No training gave a finite quality.
        StudyError: There is something in the workload that can't go to other processes.
        MissingExtra: Optuna is not installed.
    """
    workload = context.workload
    held = bool(draft.hold or draft.pace or draft.finish)
    fitting = compatible(draft.space, draft.search or Search(), draft.plan, held=held)
    search, space = fitting.search, fitting.space
    draft = replace(draft, space=space, search=search).noted(*fitting.notes)
    if workload.select_rows.targets is None:
        raise DataError("labels in valid, to search by", "rows without", "give valid=(x, y)")
    began = time.monotonic()
    metric = metric_of(workload.metric, output=workload.output)
    context.progress(Progress("searching", 0, search.trials, "; ".join(each.text for each in space)))
    directions = ("maximize" if metric.greater_is_better else "minimize",)
    opened = _unfinished(name, directions, storage, key, search.trials)
    training = OneTraining(draft, replace(context, progress=silent), metric.greater_is_better)
    running = _running(search, space, seed)
    resumed = [f"resumed with {done} trials of an earlier run"] if (done := opened.ended) else []
    if not opened.resumed:
        # The sampler's queue is first in, first out, and the untouched values go before these.
        running = replace(running, start=None)
        for values in ({}, *search.first):
            opened.study.enqueue_trial({**defaults(space), **values})
    rival: Opened | None = None
    ended = interrupted = ""
    try:
        ended = run_study(opened, training, running, progress=context.progress, what="searching").reason
        if search.vs == "random":
            rival = open_study(f"{opened.name}, random", directions=directions, storage=storage)
            alike = replace(running, sampler="random", start=None, budget=Budget(opened.ended, min_gain=0))
            run_study(rival, training, alike, progress=context.progress, what="random search")
    except StudyError as error:
        if not error.failed:
            raise StudyError(error.expected, error.came, "--jobs 1") from error
        diverged = all(f": {TrainingError.__name__}: " in reason for reason in error.failed)
        do = "try another --learning-rate, or fewer --epochs" if diverged else ""
        raise TrainingError("a training that ends with a finite quality", error.came, do) from error
    except KeyboardInterrupt:
        if training.best is None:
            raise  # the study is kept, and goes on from there
        interrupted = f"interrupted after {opened.ended} of {search.trials} trials: the best so far"
    finals = finalists_of(training, opened.study, search.finalists, None if rival is None else rival.study)
    epochs = _epochs(opened) + (0 if rival is None else _epochs(rival))
    if interrupted or not search.finalists or len(finals) < 2:
        finals = []
    try:
        repeat(finals, training, fresh_seeds(seed, search.repeats), context.progress)
    except KeyboardInterrupt:
        interrupted = "interrupted before all finalists were trained again"
    epochs += sum(final.epochs for final in finals)
    finals = whole_rounds(finals)
    chosen = winner_of(finals, greater=metric.greater_is_better)
    if chosen is None or chosen.first is None:
        chosen, extra = _best_trial(training, opened)
        epochs += extra
    assert chosen.first is not None
    what = f"{metric.name} on {workload.select.name}"
    table = table_of(opened.study, space, what, finals, chosen, ended)
    found = Found(chosen.values, table, seed, epochs, time.monotonic() - began, bool(interrupted))
    told = [*opened.notes, *resumed, *_stale(draft), *notes_on(table, epochs), *filter(None, [interrupted])]
    return chosen.first.draft.noted(*told), chosen.first.record, found


def trained_as_found(draft: Draft, context: Context, seed: int, found: Found) -> tuple[Draft, TrainingRecord]:
    """Train a draft with the values that a search found, and another seed.

    Raises:
        TrainingError: It diverged.
    """
    training = OneTraining(draft, context, greater=True)
    trained, record = train(training.with_values(found.values), context, seed)
    told = [note for note in notes_on(found.table, found.epochs) if note.startswith(("searched", "chosen"))]
    return trained.noted(
        *told, f"searched with seed {found.seed} alone; other seeds train what was found there"
    ), record


def _stale(draft: Draft) -> list[str]:
    """Return notes on dimensions whose default is not what a later step of the recipe put into the plan."""
    plan = vars(draft.plan)
    return [
        f"a later step set {each.name} to {plan[each.name]}, and its search goes around {each.default}: put it last"
        for each in draft.space
        if plan.get(each.name, each.default) != each.default
    ]


def _unfinished(name: str, directions: tuple[str, ...], storage: Path | None, key: str, trials: int) -> Opened:
    """Open the study of a name to go on with; one that has all its trials stays as it is, and the next is new."""
    number = 1
    while True:
        called = name if number == 1 else f"{name} #{number}"
        opened = open_study(called, directions=directions, storage=storage, key=key)
        if opened.ended < trials:
            return opened
        number += 1


def _running(search: Search, space: Sequence[Dimension], seed: int) -> Running:
    finals = search.repeats * (search.finalists + 1 + (search.vs == "random")) if search.finalists else 0
    pruner = search.pruner
    if pruner == "auto" and any(each.name == "schedule" for each in space):
        pruner = "none"  # a rate that falls later is behind at first, and not worse for it
    return Running(
        Budget(search.trials, search.max_seconds),
        sampler=search.sampler,
        pruner=pruner,
        seed=seed,
        start=defaults(space),
        warm=search.warm,
        space=distributions(space),
        jobs=search.jobs,
        reserve=lambda usual: usual * finals,
    )


def _best_trial(training: OneTraining, opened: Opened) -> tuple[Finalist, int]:
    """Return the best trial with its model, and the epochs that this took: none where the model is at hand.

    Raises:
        TrainingError: No trial gave a finite quality.
    """
    found = best_of(opened.study)
    space = training.draft.space
    best, epochs = training.best, 0
    if found and (best is None or values_of(found[0].params, space) != best.values):
        # It was trained in another process, or before an interruption: with the same seed it comes out the same.
        values = values_of(found[0].params, space)
        best = training.trained(values, found[0].user_attrs[SEED])
        epochs = best.record.epochs
    if best is None:
        raise TrainingError("a training that ends with a finite quality", "none did", "a lower --learning-rate")
    kind = UNTOUCHED if best.values == untouched(space) else FINALIST
    number = found[0].number if found else 0
    return Finalist(kind, number, dict(best.values), best.quality, first=best), epochs


def _epochs(opened: Opened) -> int:
    return sum(int(trial.user_attrs.get(EPOCHS, 0)) for trial in opened.study.get_trials(deepcopy=False))


__all__ = ["Found", "OneTraining", "Trained", "searched", "trained_as_found", "untouched"]
