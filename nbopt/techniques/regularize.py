"""Regularize: keep a model from learning its training rows by heart, where it does."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

from nbopt.draft import Context, Draft, Trained
from nbopt.errors import TrainingError
from nbopt.options import option
from nbopt.progress import Progress
from nbopt.space import Search
from nbopt.technique import Technique
from nbopt.techniques._regularize.adding import deployed, with_dropout, with_norms
from nbopt.techniques._regularize.cocktail import dimensions, mixing_refused
from nbopt.techniques._regularize.diagnosis import Diagnosis, diagnose
from nbopt.training import TrainingPlan

OFF = {"weight_decay": 0.0, "label_smoothing": 0.0, "mixup": 0.0, "cutmix": 0.0, "averaging": "none"}
"""Fields of a plan that regularize, and what they are in the control."""


@dataclass(frozen=True)
class Regularize(Technique):
    """Train with what keeps a model from learning its rows by heart, each alone or several searched together.

    Dropout (Srivastava et al. 2014, https://jmlr.org/papers/v15/srivastava14a.html), BatchNorm that keeps a trained
    model's function, decoupled weight decay (Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101), label
    smoothing (Szegedy et al. 2016, https://arxiv.org/abs/1512.00567), mixup (Zhang et al. 2018,
    https://arxiv.org/abs/1710.09412), CutMix (Yun et al. 2019, https://arxiv.org/abs/1905.04899), averages of weights
    (SWA: Izmailov et al. 2018, https://arxiv.org/abs/1803.05407) and early stopping. Whoever names none gets a cocktail
    (Kadra et al. 2021, https://arxiv.org/abs/2106.11189): a search over all, in which each may be off.

    Whether there is anything to mend is looked at first: the gap between quality on train and on validation, with its
    interval. Where it covers zero nothing is done. A model that has learned nothing yet is trained without regularizers
    for that, and that training is the control as well. Beside the result stands the untouched model with the same
    training and no regularizers. For the file, Dropout is taken out and BatchNorm folded into the weights before it.
    """

    word: ClassVar[str] = "regularize"
    summary: ClassVar[str] = "dropout, decay, smoothed labels, mixed rows and averaged weights, where a model overfits"
    needs_train: ClassVar[str] = "which regularize trains on"

    dropout: float = option(
        0.0,
        "share of units dropped in training, before hidden linear and recurrent layers and the head; half of it, of "
        "whole channels, before convolutions; where a model has Dropout its rates change; 0 for none",
        low=0.0,
        high=0.95,
    )
    norm: str = option(
        "none",
        "norms put after linear layers and convolutions that have none; a trained model keeps its function with "
        "batchnorm, and layernorm is for untrained ones",
        choices=("none", "batchnorm", "layernorm"),
    )
    weight_decay: float = option(
        0.0, "decoupled decay of weights, sparing norms, biases and embeddings; 0 for none, 0.01 to 1", low=0.0, high=10
    )
    label_smoothing: float = option(
        0.0, "share of each label that all classes get alike; 0 for none, 0.1 is usual", low=0.0, high=0.95
    )
    mixup: float = option(
        0.0,
        "rows are mixed in pairs by a share from Beta(mixup, mixup); 0 for none, 0.2 is usual; not for token ids",
        low=0.0,
        high=100.0,
    )
    cutmix: float = option(
        0.0,
        "a box of each image comes from another, of an area from Beta(cutmix, cutmix); 0 for none, 1 is usual; with "
        "mixup too, each step does one of them",
        low=0.0,
        high=100.0,
    )
    averaging: str = option(
        "none",
        "which weights are judged and kept: the last, a moving average over steps (ema), or the mean of the last "
        "quarter of epochs (swa), which wants a rate that does not fall to 0",
        choices=("none", "ema", "swa"),
    )
    patience: int = option(
        0,
        "epochs without a gain on validation after which training ends; 0 for never",
        low=0,
        high=10_000,
        unit="epochs",
    )
    cocktail: bool = option(
        False, "search those that are not named too, each of which may be off; on where none is named"
    )
    trials: int = option(
        16, "trainings of the cocktail's search, where no other technique sets them", low=1, high=100_000
    )
    epochs: int = option(10, "passes over train; the longest of a recipe counts", low=1, high=10_000)
    learning_rate: float | None = option(
        None, "step size of the optimizer; none leaves what the recipe has, 0.001 at first", low=0.0, high=10.0,
        open_ends=True,
    )  # fmt: skip
    from_scratch: bool = option(
        False, "draw the weights anew instead of training on from the model's own; the control's too"
    )
    anyway: bool = option(False, "go on where the model is not overfitted")
    fold: bool = option(True, "fold BatchNorm and take Dropout out of the result; not, where it shall be trained on")

    def apply(self, draft: Draft, context: Context) -> Draft:
        """Return the draft with regularizers in its plan, its model and its space, or as it was where nothing overfits.

        Raises:
            DataError: There is no train data, a split has no labels, or the inputs can't be mixed.
            ModelError: Layers or losses can't take what was named; the message says why.
        """
        self.check(context.workload)
        if self.from_scratch:
            draft = draft.with_(begin=(*draft.begin, context.workload.framework.initialise))
        given = {} if self.learning_rate is None else {"learning_rate": self.learning_rate}
        plan = draft.plan.adjusted(
            epochs=max(draft.plan.epochs, self.epochs), patience=max(draft.plan.patience, self.patience), **given
        )
        seen, plain = self._diagnosed(draft, context, plan)
        draft = draft.noted(*filter(None, [seen.text, "" if plain is None else _AFTER]))
        if not seen.overfitted and not self.anyway:
            draft = draft.with_(begin=draft.begin[: len(draft.begin) - self.from_scratch])
            return draft.noted(_STOPPED).with_(ready=(*draft.ready, partial(_stop, seen)))
        trained = plain is None and not draft.begin
        bare = {**OFF, "weight_decay": plan.weight_decay}
        draft = draft.with_(plan=plan, control=True, bare={**bare, **draft.bare}, plain=plain or draft.plain)
        draft = self._with_named(draft, context, trained=trained)
        if self.cocktail or not self._named:
            space, notes = dimensions(draft, context, self._named, trained=trained)
            search = draft.search or Search(trials=self.trials)
            draft = draft.searching(*space).with_(search=search).noted(*notes)
        if not self.fold:
            return draft
        return draft.with_(deploy=(*draft.deploy, partial(deployed, context=context)))

    @property
    def _named(self) -> list[str]:
        """Return the names of the regularizers that the user has set, as dimensions are called."""
        names = ["dropout", "weight_decay", "label_smoothing"]
        set_ = [name for name in names if getattr(self, name)]
        set_ += ["mixing"] if self.mixup or self.cutmix else []
        set_ += ["patience"] if self.patience else []
        return set_ + [name for name in ("norm", "averaging") if getattr(self, name) != "none"]

    def _with_named(self, draft: Draft, context: Context, *, trained: bool) -> Draft:
        """Return the draft with the regularizers that the user has set."""
        refused = mixing_refused(context, self.mixup, self.cutmix)
        if refused is not None and (self.mixup or self.cutmix):
            raise refused
        if self.label_smoothing:
            context.workload.loss.smoothed(self.label_smoothing)  # refused now, not after the first epoch
        if self.norm != "none":
            draft = with_norms(draft, context, self.norm, trained=trained)
        if self.dropout:
            draft = with_dropout(draft, context, self.dropout)
        fields: dict[str, Any] = {name: getattr(self, name) for name, off in OFF.items() if getattr(self, name) != off}
        return draft.with_(plan=draft.plan.adjusted(**fields))

    def _diagnosed(self, draft: Draft, context: Context, plan: TrainingPlan) -> tuple[Diagnosis, Trained | None]:
        """Return the gap of the model, of an untrained one after a training without regularizers."""
        context.progress(Progress("looking for overfitting"))
        seen = diagnose(draft.model, context)
        if not seen.untrained:
            return seen, None
        context.progress(Progress("training without regularizers, to see whether that overfits"))
        plan = plan.adjusted(**{**OFF, "weight_decay": plan.weight_decay}, seed=context.seed)
        plain = context.trained(draft.model, plan, draft.begin)
        return diagnose(plain.model, context), plain

    @property
    def label(self) -> str:
        """Return "regularize" and the options that differ from the default, how long it trains left out."""
        rest = replace(self, epochs=10, learning_rate=None, trials=16).options_text()
        return " ".join(["regularize", *(word.removeprefix("--") for word in rest)])


_AFTER = "so it was after a training without regularizers, since the model had learned nothing yet"
_STOPPED = "nothing was regularized; --anyway goes on"


def _stop(seen: Diagnosis, draft: Draft, context: Context) -> Draft:
    """Refuse a recipe that has nothing else to do.

    Raises:
        TrainingError: The draft is the untouched model, and no other technique changes it.
    """
    idle = draft.model is context.workload.model and not (draft.plan.epochs or draft.lower or draft.space)
    if idle:
        raise TrainingError(
            "a gap between train and validation, which regularizers close", seen.text, "--anyway goes on"
        )
    return draft
