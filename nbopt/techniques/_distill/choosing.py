"""Which simple student is best: each is trained, and the one with the highest lower bound of quality is taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nbopt.arrays import to_numpy
from nbopt.batches import Batch, Inputs, leaves, map_leaves, take_rows
from nbopt.data import Split
from nbopt.draft import Context
from nbopt.errors import DataError, ModelError, TrainingError
from nbopt.frozen import IGNORE_LABEL, join_ragged
from nbopt.measurement.intervals import Interval
from nbopt.measurement.metrics import Metric, metric_of
from nbopt.measurement.predictions import prepare
from nbopt.measurement.resampling import quality_interval
from nbopt.progress import Progress
from nbopt.teaching import family_of
from nbopt.techniques._distill.lowering import lowering_of
from nbopt.techniques._distill.simple import Design, columns_of, designs
from nbopt.techniques._distill.teachers import Panel
from nbopt.training import TrainingPlan, TrainingRecord

Array = np.ndarray[Any, Any]

SMALL = 1000
"""Selection rows below which students are judged on train too, on rows that they were not trained on."""
FOLDS = 3
LOOKED_AT = 20_000
"""Rows of train at most that scales and vocabulary are taken from, and that folds are made of."""
LOOKED_BYTES = 256 << 20
"""Bytes of their inputs at most: of large images fewer rows are held."""
SECONDS = 30.0  # of one training on the way of a choice: with its folds a student is tried in two minutes


@dataclass(frozen=True)
class Choice:
    """Hold the best of the simple students, untrained.

    Args:
        model: The framework's model.
        design: What it is.
        notes: What was tried, with the figures.
    """

    model: Any
    design: Design
    notes: tuple[str, ...]


@dataclass
class Tried:
    """Hold one student that was tried.

    Args:
        design: What it is.
        quality: On rows that it was not trained on.
        failure: Why there is no such figure, "" where there is.
        parameters: Of it.
        stopped: Why its training ended early, "" where it did not.
    """

    design: Design
    quality: Interval | None = None
    failure: str = ""
    parameters: int = 0
    stopped: str = ""


def best_of(tried: list[Tried], *, greater_is_better: bool) -> Tried:
    """Return the student whose quality is surest: the best bound on the side that is worse; the simplest of equals.

    Raises:
        ModelError: None of them could be trained.
    """
    judged = [each for each in tried if each.quality is not None]
    if not judged:
        reasons = "; ".join(f"{each.design.title}: {each.failure}" for each in tried)
        raise ModelError("a simple student that can be trained", reasons, "--student narrow, or with a model")

    def surest(each: Tried) -> float:
        assert each.quality is not None
        return each.quality.low if greater_is_better else -each.quality.high

    return max(judged, key=surest)


def chosen(plan: TrainingPlan, panel: Panel, context: Context) -> Choice:
    """Train each simple student by the plan, and return the best of them, untrained: the loop trains it.

    Args:
        plan: The training.
        panel: Tells where classes are in the outputs.
        context: Workload, seed, progress.

    Raises:
        ModelError: There is no simple student for such a model, or none could be trained.
        DataError: The selection rows have no labels.
    """
    workload = context.workload
    if workload.select_rows.targets is None:
        raise DataError("labels in valid, to choose a student by", "rows without", "give valid=(x, y)")
    if panel.axis != -1:
        raise ModelError(
            "outputs with their classes last, for --student simple", "classes second", "--student narrow, or a model"
        )
    rows = _rows(context)
    lowering = lowering_of(context)
    metric = metric_of(workload.metric, output=workload.output)
    signature = workload.signature
    columns = columns_of(
        signature.leaves,
        [to_numpy(leaf) for leaf in leaves(rows.inputs)],
        lowering.channels(workload.model),
        channels_last=workload.framework.family == "keras",
        vocabulary=lowering.vocabulary(workload.model, take_rows(rows.inputs, slice(0, 2))),
    )
    all_designs = designs(
        columns,
        keyed=signature.keyed,
        outputs=tuple(workload.outputs_shape),
        kind=workload.output,
        family=family_of(workload.output),
        targets=None if rows.targets is None else to_numpy(rows.targets),
    )
    tried = []
    for design in all_designs:
        context.progress(Progress(f"trying {design.title}"))
        tried.append(_try(design, plan, rows, metric, context))
    best = best_of(tried, greater_is_better=metric.greater_is_better)
    how = "on valid" if workload.select_rows.rows >= SMALL else f"on valid and, in {FOLDS} folds, on train"
    told = "; ".join(_told(each) for each in tried)
    notes = [f"{best.design.title} is the surest of the simple students by {metric.name} {how}: {told}"]
    unseen = [column.name for column in columns if column.use == "unused"]
    if unseen:
        notes.append(f"simple students do not look at {', '.join(unseen)}")
    return Choice(lowering.build(best.design, context.seed), best.design, tuple(notes))


def _told(each: Tried) -> str:
    if each.quality is None:
        return f"{each.design.title} failed: {each.failure}"
    return (
        f"{each.design.title} {each.quality.value:.4f} [{each.quality.low:.4f}, {each.quality.high:.4f}], "
        f"{each.parameters:,} parameters{f', {each.stopped}' if each.stopped else ''}"
    )


def _try(design: Design, plan: TrainingPlan, rows: Batch, metric: Metric, context: Context) -> Tried:
    """Train one student and judge it where it has not been."""
    workload, framework = context.workload, context.workload.framework
    lowering = lowering_of(context)
    tried = Tried(design)
    try:
        model = lowering.build(design, context.seed)
        tried.parameters = framework.count(model)[0]
        assert workload.train is not None
        record = _fit(model, plan, workload.train, context, judged=True)
        tried.stopped = record.stopped
        parts = [(context.outputs(model), workload.select_rows.targets, workload.select_rows.weight)]
        if workload.select_rows.rows < SMALL and rows.targets is not None:
            parts += _out_of_fold(design, plan, rows, record.kept_epoch, context)
        # Each split may be padded to a length of its own.
        outputs = join_ragged([part[0] for part in parts])
        targets = join_ragged([part[1] for part in parts if part[1] is not None], IGNORE_LABEL)
        weights = [part[2].reshape(len(part[2]), -1) for part in parts if part[2] is not None]
        weight = join_ragged(weights) if len(weights) == len(parts) else None
        scored = prepare(targets, outputs, metric.output, weight)
        tried.quality = quality_interval(
            metric, scored.y, scored.scores, weight=scored.weight, groups=scored.groups, rng=context.seed
        )
    except (TrainingError, ModelError, DataError) as error:  # of the data: its outputs are no longer numbers
        tried.failure = error.one_line
    return tried


def _fit(model: Any, plan: TrainingPlan, split: Split, context: Context, *, judged: bool) -> TrainingRecord:
    fitting = context.fitting(split=split) if judged else context.fitting(split=split, score=None, valid=None)
    return context.workload.framework.fit(model, plan.adjusted(seed=context.seed, max_seconds=SECONDS), fitting)


def _out_of_fold(
    design: Design, plan: TrainingPlan, rows: Batch, epochs: int, context: Context
) -> list[tuple[Array, Array, Array | None]]:
    """Return outputs for each fold of train of a student that learned from the others, as long as was best on valid."""
    framework, lowering = context.workload.framework, lowering_of(context)
    order = context.rng().permutation(rows.rows)
    found = []
    for fold in range(FOLDS):
        held, rest = order[fold::FOLDS], np.concatenate([order[i::FOLDS] for i in range(FOLDS) if i != fold])
        if not len(held) or not len(rest):
            continue
        model = lowering.build(design, context.seed)
        part = _taken(rows, np.sort(rest))
        split = Split((part.inputs, part.targets, part.weight), "train")
        # The whole schedule is shortened to the epoch that was the best, so that it ends where it did.
        fold_plan = plan.adjusted(epochs=max(1, epochs), patience=0, schedule="cosine")
        _fit(model, fold_plan, split, context, judged=False)
        out = _taken(rows, held)
        outputs = [
            framework.predict(model, take_rows(out.inputs, slice(start, start + 256)))
            for start in range(0, out.rows, 256)
        ]
        found.append((np.concatenate(outputs), out.targets, out.weight))
    return found


def _taken(rows: Batch, which: Array) -> Batch:
    return Batch(
        take_rows(rows.inputs, which),
        None if rows.targets is None else rows.targets[which],
        None if rows.weight is None else rows.weight[which],
    )


def _rows(context: Context) -> Batch:
    """Return rows of train in memory, up to a limit.

    Raises:
        ModelError: Batches have rows of different lengths.
    """
    train = context.workload.train
    assert train is not None
    batches: list[Batch] = []
    held = 0
    # As a training reads them: of arrays that are sorted by class, the first rows would be of one class.
    for batch in train.some(LOOKED_AT, 256, context.rng()):
        batches.append(batch)
        held += sum(to_numpy(leaf).nbytes for leaf in leaves(batch.inputs))
        if held >= LOOKED_BYTES:
            break
    try:
        joined = [np.concatenate(parts) for parts in zip(*(_arrays(batch) for batch in batches), strict=True)]
    except ValueError as error:
        raise ModelError(
            "rows of one length in all batches of train, for --student simple",
            "batches that are padded to lengths of their own",
            "pad all rows to one length, or --student with a model",
        ) from error
    first = batches[0].inputs
    names = list(first) if isinstance(first, dict) else None
    inputs: Inputs = dict(zip(names, joined, strict=True)) if names else tuple(joined)
    targets = [to_numpy(batch.targets) for batch in batches if batch.targets is not None]
    weights = [to_numpy(batch.weight) for batch in batches if batch.weight is not None]
    return Batch(
        inputs,
        np.concatenate(targets) if len(targets) == len(batches) else None,
        np.concatenate(weights) if len(weights) == len(batches) else None,
    )


def _arrays(batch: Batch) -> list[Array]:
    return [to_numpy(leaf) for leaf in leaves(map_leaves(to_numpy, batch.inputs))]
