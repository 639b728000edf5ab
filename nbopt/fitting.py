"""The one training of a candidate: its plan carried out on a copy, judged on the selection rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from nbopt.draft import Context, Draft
from nbopt.errors import TrainingError
from nbopt.measurement.metrics import metric_of
from nbopt.measurement.scores import not_finite
from nbopt.training import TrainingPlan, TrainingRecord, remedy

Judge = Callable[[int, float], None]
"""Told the epochs that are completed and the quality after them; what it raises ends the training."""


def train(draft: Draft, context: Context, seed: int, judge: Judge | None = None) -> tuple[Draft, TrainingRecord]:
    """Return the draft with its model trained by its plan, and what the training did.

    The user's own model is copied first; another one is trained in place.

    Args:
        draft: The model and the plan.
        context: The workload, whose train it learns from and whose valid decides which state is kept.
        seed: Seed of everything random in it.
        judge: Told the quality before training and after each epoch.

    Raises:
        DataError: The data can't be used.
        TrainingError: It diverged.
    """
    workload = context.workload
    if workload.train is None:
        return draft.noted("not fine-tuned: no train data was given"), TrainingRecord()
    model = draft.model
    if model is workload.model:
        model = workload.framework.clone(model)
    for begin in draft.begin:
        model = begin(model, seed)
    judged = workload.select_rows.targets is not None
    plan = replace(draft.plan, seed=seed)
    fitting = context.fitting(
        score=scoring(context, plan, judge) if judged else None,
        hold=draft.hold,
        pace=draft.pace,
        valid=workload.select if judged else None,
    )
    record = workload.framework.fit(model, plan, fitting)
    draft = replace(draft, model=model)
    if plan.watches and not judged:
        draft = draft.noted(f"{workload.select.name} has no labels: it neither ended the training nor moved its rate")
    if record.mixed is not None:
        draft = draft.noted(record.mixed.note)
    if record.shared:
        draft = draft.noted(record.shared)
    if record.left_out:
        draft = draft.noted(record.left_out)
    if record.stopped:
        draft = draft.noted(f"training ended early: {record.stopped}")
    if record.epochs and record.kept_epoch == 0 and record.scores:
        draft = draft.noted("fine-tuning did not help on validation, so its result was not kept")
    elif record.kept_epoch < record.epochs:
        draft = draft.noted(f"epoch {record.kept_epoch} of {record.epochs} was the best on validation and is kept")
    return draft, record


def scoring(context: Context, plan: TrainingPlan, judge: Judge | None = None) -> Callable[[Any], float]:
    """Return quality on the selection rows, which decides which state of a training is kept."""
    metric = metric_of(context.workload.metric, output=context.workload.output)
    epoch = 0

    def score(model: Any) -> float:
        nonlocal epoch
        raw = context.outputs(model)
        bad = int(not_finite(raw, metric.output).sum())
        if bad and epoch:
            came = f"training diverged: NaN or infinity in the outputs of {bad:,} of {len(raw):,} rows after an epoch"
            raise TrainingError("finite outputs on validation", came, remedy(plan))
        value = context.quality(raw)
        if judge is not None:
            judge(epoch, value)
        epoch += 1
        return value

    return score
