"""Candidate: a recipe carried out on the framework's model, before anything is exported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from nbopt.errors import ExportError, TrainingError
from nbopt.frameworks import Fitting
from nbopt.measurement.predictions import not_finite
from nbopt.recipe import Recipe
from nbopt.runs import CONTROL
from nbopt.runtimes import Runtime
from nbopt.stage import Stage
from nbopt.technique import Draft, Technique
from nbopt.training import Progress, TrainingPlan, TrainingRecord, remedy


@dataclass(frozen=True)
class Candidate:
    """Hold a recipe's finished model, before export.

    Args:
        draft: The model after training and finishing, with the steps on the file still to do.
        record: What the training did.
        counts: Parameters, and those that are not zero.
        untouched: The model is the user's own: only the file changes.
        seed: Seed of everything random in it.
        trained: The techniques that changed the model, as a table writes them: one step, since they share one
            training. "" where none did.
        lowered: For each step on the file its technique, likewise.
        failure: Why there is no such model: its training diverged, or was refused; None where there is one.
        model_artifact: Where the store keeps the framework's model, so that `run.model` works in any later kernel.
    """

    draft: Draft
    record: TrainingRecord
    counts: tuple[int, int]
    untouched: bool
    seed: int = 0
    trained: str = ""
    lowered: tuple[str, ...] = ()
    model_artifact: str = ""
    failure: TrainingError | None = None

    @property
    def control_plan(self) -> TrainingPlan:
        """Return the training that the untouched model gets beside it: the same one, in float32, without `bare`."""
        return self.draft.plan.adjusted(seed=self.seed, precision="float32", **self.draft.bare)

    def refused(self, runtime: Runtime) -> str:
        """Return why a runtime has no way to this recipe, "" where it has."""
        reasons = (step.refuses(runtime) for step in self.draft.lower)
        return next(filter(None, reasons), "")


@dataclass(frozen=True)
class Control(Recipe):
    """Be the recipe of the untouched model that is given another recipe's training.

    Args:
        epochs: Passes over train.
    """

    epochs: int = 0

    def text(self) -> str:
        """Return the recipe whose training it is, marked."""
        return f"{CONTROL}{super().text()}"

    @property
    def words(self) -> str:
        """Return "control"."""
        return "control"

    @property
    def label(self) -> str:
        """Return what was done, as a table writes it."""
        return f"train {self.epochs} epoch{'s' if self.epochs > 1 else ''} (control)"


def make_control(stage: Stage, candidate: Candidate) -> Candidate:
    """Give the untouched model the training that a candidate had."""
    plan = candidate.control_plan
    draft, label = Draft(stage.workload.model, plan), f"train {plan.epochs} epochs"
    made = candidate.draft.plain
    try:
        if made is not None and made.plan == plan:
            draft, record = replace(draft, model=made.model), made.record
        else:
            draft, record = _train(stage, draft, candidate.seed)
    except TrainingError as error:
        return Candidate(draft, TrainingRecord(), (0, 0), False, candidate.seed, label, (), failure=error)
    exact = "" if candidate.record.mixed is None else " in float32"
    had = candidate.draft.plan
    without = [name.replace("_", " ") for name, value in candidate.draft.bare.items() if getattr(had, name) != value]
    left = f" without {', '.join(without)}" if without else ""
    draft = draft.noted(f"the untouched model, given the same training{exact}{left}: what that alone does to quality")
    draft, artifact = _kept(stage, draft)
    counts = stage.workload.framework.count(draft.model)
    return Candidate(
        draft, record, counts, untouched=False, seed=candidate.seed, trained=label, model_artifact=artifact
    )


def make_candidate(stage: Stage, recipe: Recipe, runtimes: Sequence[Runtime] = ()) -> Candidate:
    """Apply the techniques, carry out the one training that they ask for, and finish the model.

    Args:
        stage: The workload and how it is measured.
        recipe: The techniques.
        runtimes: Where the result will run.

    Raises:
        ModelError: A technique can't be used on this model.
        DataError: There is a training to do, and the train data can't be used.
    """
    workload, framework = stage.workload, stage.workload.framework
    context = stage.context(recipe.seed, runtimes)
    draft = Draft(workload.model)
    trained: list[Technique] = []
    lowered: list[str] = []
    for step in recipe.techniques:
        stage.settings.progress(Progress(step.word))
        before, draft = draft, step.apply(draft, context)
        added = len(draft.lower) - len(before.lower)
        lowered += [step.label] * added
        # What trains for its own step on the file (quantization-aware training) is that step, and no other.
        if not added:
            trained.append(step)
    record, steps = TrainingRecord(), (" + ".join(step.label for step in trained), tuple(lowered))
    try:
        for ready in draft.ready:
            draft = ready(draft, context)
        if draft.plan.epochs:
            draft, record = _train(stage, draft, recipe.seed)
    except TrainingError as error:
        # A finding about this recipe: other rows are facts all the same.
        return Candidate(draft, record, (0, 0), False, recipe.seed, *steps, failure=error)
    for finish in draft.finish:
        draft = replace(draft, model=finish(draft.model))
    for deploy in draft.deploy:
        draft = deploy(draft)
    # Kept before anything is exported or measured: whatever fails there, what was trained is not lost.
    draft, model_artifact = _kept(stage, draft)
    return Candidate(
        draft,
        record,
        framework.count(draft.model),
        untouched=draft.model is workload.model,
        seed=recipe.seed,
        trained=steps[0],
        lowered=steps[1],
        model_artifact=model_artifact,
    )


def _kept(stage: Stage, draft: Draft) -> tuple[Draft, str]:
    """Keep the finished model in the store; return where, and "" with a note where it can't be kept."""
    try:
        return draft, stage.keep_model(draft.model)
    except ExportError as error:
        return draft.noted(f"run.model was not kept: {error.one_line}"), ""


def _train(stage: Stage, draft: Draft, seed: int) -> tuple[Draft, TrainingRecord]:
    workload = stage.workload
    if workload.train is None:
        return draft.noted("not fine-tuned: no train data was given"), TrainingRecord()
    model = draft.model
    if model is workload.model:
        model = workload.framework.clone(model)
    fitting = Fitting(
        split=workload.train,
        loss=workload.loss,
        score=_score(stage, draft.plan),
        greater_is_better=stage.metric.greater_is_better,
        hold=draft.hold,
        pace=draft.pace,
        progress=stage.settings.progress,
    )
    record = workload.framework.fit(model, replace(draft.plan, seed=seed), fitting)
    draft = replace(draft, model=model)
    if record.mixed is not None:
        draft = draft.noted(record.mixed.note)
    if record.stopped:
        draft = draft.noted(f"training ended early: {record.stopped}")
    if record.epochs and record.kept_epoch == 0 and record.scores:
        draft = draft.noted("fine-tuning did not help on validation, so its result was not kept")
    elif record.kept_epoch < record.epochs:
        draft = draft.noted(f"epoch {record.kept_epoch} of {record.epochs} was the best on validation and is kept")
    return draft, record


def _score(stage: Stage, plan: TrainingPlan) -> Any:
    """Return quality on the selection rows, which decides which state of a training is kept."""
    if stage.workload.select_rows.targets is None:
        return None
    context, before = stage.context(plan.seed), True

    def score(model: Any) -> float:
        nonlocal before
        raw = context.outputs(model)
        bad, first = int(not_finite(raw, stage.metric.output).sum()), before
        before = False
        if bad and not first:
            came = f"training diverged: NaN or infinity in the outputs of {bad:,} of {len(raw):,} rows after an epoch"
            raise TrainingError("finite outputs on validation", came, remedy(plan))
        return context.quality(raw)

    return score
