"""Candidate: a recipe carried out on the framework's model, before anything is exported."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from nbopt.draft import Context, Draft
from nbopt.errors import ExportError, NbOptError, TrainingError
from nbopt.fitting import train
from nbopt.frameworks import Framework
from nbopt.frameworks._weights import digest_of
from nbopt.progress import Progress
from nbopt.recipe import Recipe
from nbopt.runs import CONTROL
from nbopt.runtimes import Runtime
from nbopt.searching import Found, searched, trained_as_found
from nbopt.stage import Stage
from nbopt.studies import journal_file
from nbopt.technique import Technique
from nbopt.training import TrainingPlan, TrainingRecord


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
        found: What the search over its dimensions found, None where there was none.
        failure: Why there is no such model: its training diverged, or was refused, or of what stands beside a recipe
            there is none; None where there is one.
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
    failure: NbOptError | None = None
    found: Found | None = None

    @property
    def control_plan(self) -> TrainingPlan:
        """Return the training that the control gets: the one that a technique names, or else the candidate's own.

        It is as long as the candidate's, in float32 and in one process, and without what techniques keep from it
        (`Draft.bare`).
        """
        plan = self.draft.plan if self.draft.control_plan is None else self.draft.control_plan
        plan = plan.adjusted(epochs=self.draft.plan.epochs)  # steps after the one that named it may ask for more
        return plan.adjusted(seed=self.seed, precision="float32", devices=1, **self.draft.bare)

    @property
    def epochs(self) -> int:
        """Return the epochs of all its trainings."""
        return self.record.epochs if self.found is None else self.found.epochs

    @property
    def interrupted(self) -> bool:
        """Tell whether the user interrupted a search, and this is the best so far."""
        return self.draft.interrupted or (self.found is not None and self.found.interrupted)

    @property
    def search_seconds(self) -> float:
        """Return the time of its search, beside the training that is kept."""
        return 0.0 if self.found is None else max(0.0, self.found.seconds - self.record.seconds)

    def refused(self, runtime: Runtime) -> str:
        """Return why a runtime has no way to this recipe, "" where it has."""
        reasons = (step.refuses(runtime) for step in self.draft.lower)
        return next(filter(None, reasons), "")


@dataclass(frozen=True)
class Control(Recipe):
    """Be the recipe of the untouched model that is given another recipe's training.

    Args:
        epochs: Passes over train.
        how: What else is said of the training in a table: "constant", "from scratch".
    """

    epochs: int = 0
    how: str = ""

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
        how = f", {self.how}" if self.how else ""
        return f"train {self.epochs} epoch{'s' if self.epochs > 1 else ''}{how} (control)"


def make_control(stage: Stage, candidate: Candidate) -> Candidate:
    """Give the untouched model the training that a candidate had, or the one that it is compared with."""
    plan = candidate.control_plan
    draft = Draft(stage.workload.model, plan, begin=candidate.draft.begin)
    label, made = f"train {plan.epochs} epochs", candidate.draft.plain
    try:
        if made is not None and made.plan == plan and made.begun == len(draft.begin):
            draft, record = replace(draft, model=made.model), made.record
        else:
            draft, record = train(draft, stage.context(candidate.seed), candidate.seed)
    except TrainingError as error:
        return Candidate(draft, TrainingRecord(), (0, 0), False, candidate.seed, label, (), failure=error)
    had = candidate.draft.plan
    without = [name.replace("_", " ") for name, value in candidate.draft.bare.items() if getattr(had, name) != value]
    exact = "" if candidate.record.mixed is None else " in float32"
    exact += " in one process" if candidate.record.shared else ""
    left = f" without {', '.join(without)}" if without else ""
    which = f"the same training{exact}{left}: what that alone does to quality"
    if candidate.draft.control_plan is not None:
        which = f"{how_of(candidate)} for as many epochs: what the technique is compared with"
    draft = draft.noted(f"the untouched model, given {which}")
    draft, artifact = _kept(stage, draft)
    counts = stage.workload.framework.count(draft.model)
    return Candidate(
        draft, record, counts, untouched=False, seed=candidate.seed, trained=label, model_artifact=artifact
    )


def how_of(candidate: Candidate) -> str:
    """Return what is said of a control's training beside its epochs: "" where it is the candidate's own."""
    if candidate.draft.control_plan is None:
        return ""
    plan = candidate.control_plan
    rate = f"{plan.schedule} rate {plan.learning_rate:.2g}"
    return f"{rate} from scratch" if candidate.draft.begin else rate


def make_candidate(
    stage: Stage, recipe: Recipe, runtimes: Sequence[Runtime] = (), found: Found | None = None
) -> Candidate:
    """Apply the techniques, carry out the one training that they ask for, and finish the model.

    Args:
        stage: The workload and how it is measured.
        recipe: The techniques.
        runtimes: Where the result will run.
        found: What the search of the same recipe found with another seed; None searches, where there are dimensions.

    Raises:
        ModelError: A technique can't be used on this model.
        DataError: There is a training to do, and the train data can't be used.
    """
    workload, framework = stage.workload, stage.workload.framework
    context = stage.context(recipe.seed, runtimes)
    draft = Draft.of(workload)
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
        if draft.plan.epochs and not draft.interrupted:
            draft, record, found = _trained(stage, draft, context, recipe, found)
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
        found=found,
    )


def _trained(
    stage: Stage, draft: Draft, context: Context, recipe: Recipe, found: Found | None
) -> tuple[Draft, TrainingRecord, Found | None]:
    """Carry out the one training, or a search with one training for each trial."""
    if not draft.space or stage.workload.train is None:
        return *train(draft, context, recipe.seed), None
    if found is not None:
        # Other seeds repeat the training, not the search: what was searched for is one set of values.
        return *trained_as_found(draft, context, recipe.seed, found), None
    # Of a student or a teacher that the user made, the text has the class alone: another one is another search.
    given = digest_of(stage.workload.framework, _models(stage.workload.framework, recipe))
    what = f"{stage.digest[:8]}{given[:8]}{stage.workload.training_digest[:8]}"
    name = f"{stage.workload.name}: {recipe.text()}, seed {recipe.seed}, {what}"
    key = f"{stage.digest}{given}: {recipe.text()}"
    return searched(draft, context, recipe.seed, name=name, key=key, storage=journal_file(stage.store.home))


def _models(framework: Framework, recipe: Recipe) -> Iterator[Any]:
    """Yield the framework's models among a recipe's options, those in lists too."""
    for step in recipe.techniques:
        for spec in fields(step):
            value = getattr(step, spec.name)
            yield from filter(framework.owns, value if isinstance(value, (list, tuple)) else [value])


def _kept(stage: Stage, draft: Draft) -> tuple[Draft, str]:
    """Keep the finished model in the store; return where, and "" with a note where it can't be kept."""
    try:
        return draft, stage.keep_model(draft.model)
    except ExportError as error:
        return draft.noted(f"run.model was not kept: {error.one_line}"), ""
