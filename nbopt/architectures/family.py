"""All candidates of one model: read from it, sharing its weights, each built on its own where it is judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nbopt.architectures.factors import Factors
from nbopt.architectures.lowering import Lowering, lowering_of
from nbopt.architectures.parts import Parts
from nbopt.architectures.sandwich import Pace, Sandwich
from nbopt.architectures.space import KINDS, SHARES, Space, space_of
from nbopt.controllers import Settings
from nbopt.data import kept_randomness
from nbopt.draft import Context
from nbopt.errors import ModelError
from nbopt.narrowing.lowering import RECALIBRATED_ROWS, Ranking, Traced, some_of_train
from nbopt.narrowing.lowering import lowering_of as narrowing_of
from nbopt.narrowing.widths import importance
from nbopt.teaching import Teacher
from nbopt.training import TrainingPlan


@dataclass(frozen=True)
class Family:
    """Hold the whole model and what is known of its candidates.

    Args:
        model: The whole model, a copy of the user's; a training of shared weights changes it in place.
        space: What may change.
        factors: Each choice as factors of the weights.
        traced: What can be made narrower in it; None where nothing can.
        context: The workload.
    """

    model: Any
    space: Space
    factors: Factors
    traced: Traced | None
    context: Context

    @classmethod
    def of(
        cls, model: Any, context: Context, *, kinds: Sequence[str] = KINDS, shares: Sequence[float] = SHARES
    ) -> Family:
        """Read a model.

        Args:
            model: The framework's model; it stays as it is.
            context: Whose data serves.
            kinds: What may change: "width", "kernel", "block".
            shares: Of a width's units that may stay.

        Raises:
            ModelError: Nothing in it can change.
        """
        own, narrow = lowering_of(context), narrowing_of(context)
        traced: Traced | None = None
        notes: list[str] = []
        try:
            traced = narrow.trace(model, context.workload.signature.example)
        except ModelError as error:
            # Blocks and kernels may change all the same.
            notes.append(f"widths stay as they are: {error.came or error.expected}")
        whole = context.workload.framework.clone(model) if traced is None else traced.model
        widths = [] if traced is None else [width for width in traced.widths if width.size > 1 and not width.normed]
        streams = [] if traced is None else [width.name for width in traced.widths if width.normed]
        if traced is not None:
            notes += traced.notes
        if streams:
            notes.append(f"{', '.join(streams)} keep their width, which LayerNorm looks at as a whole")
        parts = Parts(
            widths,
            own.kernels(whole),
            own.blocks(whole, context.two_rows),
            narrow.shapes(whole),
            own.layers(whole),
            tuple(notes),
        )
        space = space_of(parts, kinds=kinds, shares=shares)
        scores = Ranking("magnitude", narrow, context).scores(whole)
        importances = {width.name: importance(width, scores) for width in widths}
        return cls(whole, space, Factors(space, importances), traced, context)

    @property
    def lowering(self) -> Lowering:
        """Return the lowering to the framework."""
        return lowering_of(self.context)

    def lessons(self, plan: TrainingPlan, teacher: Teacher) -> Any:
        """Return what `Fitting.teach` is of a training in which all candidates learn together.

        Args:
            plan: The training, on the workload's train data.
            teacher: What the whole model is to its candidates.
        """
        train = self.context.workload.train
        assert train is not None
        steps = train.steps(plan.batch_size)
        if steps is None:  # a source that does not tell is read once for it
            with kept_randomness(train):
                steps = sum(1 for _ in train.training_batches(plan.batch_size, self.context.rng()))
        pace, sandwich = Pace(plan.epochs * steps, plan.max_seconds), Sandwich(self.space.grid, self.context.seed)
        return self.lowering.lessons(self.model, self.factors, sandwich, teacher, pace)

    def built(self, setting: Sequence[int] | Settings) -> Any:
        """Return a candidate as a model of its own, with its weights out of the shared ones.

        Raises:
            ModelError: It does not run, or gives outputs of another shape: a failed candidate, with its reason.
        """
        framework, blueprint = self.context.workload.framework, self.space.blueprint(setting)
        going = {
            width.name: self.factors.going(width, blueprint.widths.get(width.name, width.size))
            for width in self.space.parts.widths
        }
        if self.traced is not None and any(len(units) for units in going.values()):
            model = self.traced.remove(self.model, going)
        else:
            model = framework.clone(self.model)
        model = self.lowering.cropped(model, blueprint.kernels)
        model = self.lowering.without(model, blueprint.skipped)
        wanted = (2, *self.context.workload.outputs_shape)
        try:
            came = framework.predict(model, self.context.two_rows).shape
        except Exception as error:
            # Whatever the user's code raises, or TensorFlow, whose errors are no RuntimeError: a candidate that failed.
            first = (str(error).splitlines() or [""])[0]
            raise ModelError("a candidate that runs", f"{type(error).__name__}: {first}") from error
        if tuple(came) != wanted:
            raise ModelError(f"a candidate with outputs of shape {wanted}", f"shape {tuple(came)}")
        return model

    def judged(self, setting: Sequence[int] | Settings) -> tuple[Any, float]:
        """Return a candidate and its quality on the selection rows, BatchNorm's statistics measured anew.

        Those of the whole model are wrong for it: without new ones all candidates look alike, and bad (Yu & Huang
        2019). It is not trained.

        Raises:
            ModelError: It does not run.
        """
        model = self.built(setting)
        if self.context.workload.train is not None:
            narrowing_of(self.context).recalibrate(model, some_of_train(self.context, RECALIBRATED_ROWS))
        return model, self.context.score(model)
