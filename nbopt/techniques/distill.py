"""Distill: a smaller model learns from the labels and from what a larger one says of the same rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from nbopt.data import Split
from nbopt.draft import Context, Draft
from nbopt.errors import ModelError, OptionError, nearest
from nbopt.narrowing import narrowed
from nbopt.options import described, option
from nbopt.planning import lengthened
from nbopt.teaching import METHODS, Teacher, family_of
from nbopt.technique import Technique
from nbopt.techniques._distill.choosing import Choice, chosen
from nbopt.techniques._distill.lowering import lowering_of
from nbopt.techniques._distill.teachers import Panel, checked_pairs, layers_read, refuse_other_shape, unlabelled
from nbopt.training import TrainingPlan

STUDENTS = ("auto", "narrow", "simple")


@dataclass(frozen=True)
class Distill(Technique):
    """Train a student on the labels and on what a teacher says of the same rows.

    The teacher's probabilities, softened by a temperature, tell how it sees the wrong classes too (Hinton et al. 2015,
    https://arxiv.org/abs/1503.02531). The student is the model that a step before made smaller; or it inherits the
    teacher's weights with fewer units (`narrow`), which beats one from scratch; or it is one of the simple models for
    that kind of input (`simple`), which on tables and texts is often as good, and many times faster; or it is the
    user's own. Beside each result stands the same student after the same training on labels alone (`--alpha 0`; of
    the simple ones that which is best without a teacher): only what that does not give is the teacher's.
    """

    word: ClassVar[str] = "distill"
    summary: ClassVar[str] = "a smaller student that learns from the labels and from a teacher"
    needs_train: ClassVar[str] = "which distill trains on"

    teacher: Any = option(
        None, "model that teaches, or several by commas, whose probabilities are averaged; none means the bound model"
    )
    student: Literal["auto", "narrow", "simple"] | Any = option(
        "auto",
        "a model to train; narrow, the bound model with fewer units; simple, the best of a linear model, a small MLP, "
        "a bag of embeddings and a small CNN; auto, what a step before made of the model, else narrow",
        words=STUDENTS,
    )
    width: float | None = option(
        None,
        "share of the channels, heads and hidden units that a narrow student keeps, with their weights; 0.5 where "
        "--depth is not given",
        low=0.0,
        high=1.0,
        open_ends=True,
    )
    depth: float = option(
        1.0,
        "share of the blocks of a stack (the layers of a transformer, residual blocks of one shape) that a narrow "
        "student keeps, evenly spread (Sanh et al. 2019, arXiv:1910.01108); PyTorch only",
        low=0.05,
        high=1.0,
    )
    alpha: float = option(
        0.5, "weight of the teacher in the loss, from 0 (labels only) to 1 (teacher only)", low=0.0, high=1.0
    )
    temperature: float = option(
        4.0,
        "what log-probabilities are divided by before they are compared; higher shows more of the wrong classes",
        low=0.0,
        high=100.0,
        open_ends=True,
    )
    method: str = option(
        "kl",
        "kl is the divergence from the teacher (Hinton et al. 2015); decoupled weighs the label's class and the others "
        "apart (Zhao et al. 2022, arXiv:2203.08679)",
        choices=METHODS,
    )
    beta: float = option(8.0, "weight of the other classes in --method decoupled", low=0.0, high=100.0)
    loss: Any = option(
        None,
        "a loss of torchdistill in place of --method's: DISTLoss('.', 'output', '.', 'output') of "
        "torchdistill.losses.mid_level, for one (Matsubara 2021, arXiv:2011.12913), or a function like it; it reads "
        "layers of student and (first) teacher by their paths, '.' is the output; PyTorch only",
    )
    hints: tuple[str, ...] = option(
        (),
        "layers of the (first) teacher whose outputs the student imitates, by commas: NAME, or TEACHER=STUDENT where "
        "names differ (Romero et al. 2015, arXiv:1412.6550; of other widths, how alike rows are: Tung & Mori 2019, "
        "arXiv:1907.09682)",
    )
    hint_weight: float = option(1.0, "weight of --hints in the loss", low=0.0, high=1000.0)
    extra: Any = option(None, "data without labels that is learned from the teacher alone: a loader, arrays")
    epochs: int = option(0, "passes over train; 0 for 3, or 30 for simple students", low=0, high=10_000)
    learning_rate: float | None = option(
        None,
        "step size that training starts from; else that of a step before, 0.001, or 0.003 for simple students",
        low=0.0,
        high=10.0,
        open_ends=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.student, str) and self.student not in STUDENTS:
            raise OptionError(
                f"distill --student among {', '.join(STUDENTS)}, or a model",
                repr(self.student),
                nearest(self.student, STUDENTS),
            )
        if isinstance(self.teacher, str):
            raise OptionError("distill --teacher as a model, or several", repr(self.teacher), "--teacher big_model")
        if self.loss is not None and not callable(self.loss):
            raise OptionError("distill --loss as a loss of torchdistill, or a function of its form", repr(self.loss))

    def apply(self, draft: Draft, context: Context) -> Draft:
        """Return the draft with a student in place of the model, and with its teacher in the plan of the one training.

        Raises:
            ModelError: There is no student for this model, or its outputs or the teacher's have another shape.
            OptionError: Options don't go together, or name a layer that is not there.
            DataError: There is no train data, or the extra data can't be used.
        """
        self.check(context.workload)
        self._check(draft, context)
        lowering_of(context)  # a framework that has no students is refused before anything is made
        panel = Panel.of(self.teacher, context)
        extra, told = unlabelled(self.extra, context)
        teacher = self._teacher(panel, extra)
        if self.student == "simple":
            draft = self._simple(draft, teacher, panel, context)
        else:
            draft = self._started(draft, context)
            draft = draft.with_(plan=self._plan(draft.plan, 3, 1e-3))
        if teacher is None:
            return draft.noted("learns from the labels alone")
        if self.hints:
            pairs = checked_pairs(self.hints, panel.models[0], draft.model, context)
            teacher = replace(teacher, hints=pairs, hint_weight=self.hint_weight, model=panel.models[0])
        if self.loss is not None:
            reads = layers_read(self.loss, draft.model, panel, context)
            teacher = replace(teacher, loss=self.loss, reads=reads, model=panel.models[0])
        # A simple student starts from nothing: that its teacher is better is no news.
        before = None if self.student == "simple" else draft.model
        draft = draft.noted(*panel.notes(before, context), *told)
        # The control is trained on labels: what the untouched model would learn from itself is nobody's question.
        return draft.with_(plan=draft.plan.adjusted(teacher=teacher), bare={**draft.bare, "teacher": None})

    def beside(self) -> tuple[Technique, ...]:
        """Return the same student without a teacher, which must stand beside it."""
        if not self.alpha:
            return ()
        plain = type(self)()
        taught = ("teacher", "temperature", "method", "beta", "loss", "hints", "hint_weight", "extra")
        return (replace(self, alpha=0.0, **{name: getattr(plain, name) for name in taught}),)

    @property
    def label(self) -> str:
        """Return "distill", who learns, and what differs from the default beside that."""
        who = self.student if isinstance(self.student, str) else described(self.student)[1:-1]
        rest = replace(self, student="auto", alpha=self.alpha or 0.5).options_text()
        words = [word.removeprefix("--") for word in rest]
        alone = [] if self.alpha else ["on labels alone"]
        return " ".join(["distill", *([] if who == "auto" else [who]), *words, *alone])

    def _check(self, draft: Draft, context: Context) -> None:
        """Refuse options that would not do what they say."""
        changed = draft.model is not context.workload.model
        decoupled, output = self.method == "decoupled", context.workload.output
        family, plain, own = family_of(output), not self.alpha, self.loss is not None
        taught = self.teacher is not None or decoupled or self.temperature != 4.0
        derived = self.student == "narrow" or (self.student == "auto" and not changed)
        refused = (
            (changed and self.student == "simple", "a student of the step before", "--student simple too"),
            (changed and not isinstance(self.student, str), "a student of the step before", "--student too"),
            (changed and bool(draft.hold) and derived, "one way to make the model smaller", "--student narrow too"),
            (not derived and self.width is not None, "--width with --student narrow", "another student"),
            (not derived and self.depth != 1.0, "--depth with --student narrow", "another student"),
            (not decoupled and self.beta != 8.0, "--beta with --method decoupled", f"--method {self.method}"),
            (decoupled and family != "classes", "--method kl", f"outputs that are {output.replace('_', ' ')}"),
            (family == "values" and self.temperature != 4.0, "--temperature for classes", "outputs that are values"),
            (own and decoupled, "--loss or --method decoupled", "both"),
            (own and self.temperature != 4.0, "the temperature in --loss itself", "--temperature"),
            (own and self.student == "simple", "--loss with one student", "--student simple, which tries several"),
            (plain and own, "a teacher for --loss", "--alpha 0"),
            (not self.hints and self.hint_weight != 1.0, "--hints for --hint-weight to weigh", "none"),
            (plain and bool(self.hints), "a teacher for --hints", "--alpha 0"),
            (plain and self.extra is not None, "a teacher for --extra", "--alpha 0"),
            (plain and taught, "an alpha above 0 for --teacher, --temperature and --method", "--alpha 0"),
        )
        for wrong, expected, came in refused:
            if wrong:
                raise OptionError(f"distill: {expected}", came, "leave one of them out")

    def _teacher(self, panel: Panel, extra: Split | None) -> Teacher | None:
        """Return what the training imitates, None where labels alone count."""
        if not self.alpha:
            return None
        return Teacher(
            panel.outputs,
            panel.kind,
            panel.axis,
            temperature=self.temperature,
            alpha=self.alpha,
            method=self.method,
            beta=self.beta,
            extra=extra,
        )

    def _started(self, draft: Draft, context: Context) -> Draft:
        """Return the draft with the student as it is before it learns."""
        framework, changed = context.workload.framework, draft.model is not context.workload.model
        if not isinstance(self.student, str):
            if not framework.owns(self.student):
                raise ModelError(
                    f"a student of {framework.name}, as the teacher",
                    f"a {type(self.student).__name__}",
                    "--student with a model of the same framework",
                )
            student = framework.clone(self.student)
            refuse_other_shape("student", student, context)
            return draft.with_(model=student).noted(f"the student is {type(self.student).__name__}, as given")
        if self.student == "auto" and changed:
            return draft
        model, notes = draft.model, []
        if self.depth < 1:
            model, told = lowering_of(context).shallower(model, self.depth, context)
            notes.append(told)
        # Fewer blocks alone, where nobody asked for fewer units too.
        if self.depth == 1 or self.width is not None:
            try:
                model, told_too = narrowed(model, context, 1 - (self.width or 0.5))
            except ModelError as error:
                raise ModelError(
                    "a model that can be made narrower, so that the student inherits its weights",
                    error.came or error.expected,
                    "another --width, distill --student simple, or --student with a smaller model of your own",
                ) from error
            notes += told_too
        return draft.with_(model=model).noted(*notes)

    def _simple(self, draft: Draft, teacher: Teacher | None, panel: Panel, context: Context) -> Draft:
        """Return the draft with the best of the simple students, untrained, and its training in the plan."""
        plan = self._plan(draft.plan, 30, 3e-3)
        plan = plan.adjusted(batch_size=min(plan.batch_size, 64), teacher=teacher)
        choice: Choice = chosen(plan, panel, context)
        return draft.with_(model=choice.model, plan=plan).noted(*choice.notes)

    def _plan(self, plan: TrainingPlan, epochs: int, rate: float) -> TrainingPlan:
        """Return the plan of the one training for the whole recipe: as long as the longest that a step asks for."""
        if plan.epochs:
            return lengthened(plan, self.epochs, self.learning_rate)
        return lengthened(plan, self.epochs or epochs, self.learning_rate or rate).adjusted(schedule="cosine")


__all__ = ["Distill"]
