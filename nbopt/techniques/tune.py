"""Tune: search the hyperparameters of the bound workload's training, one training for each trial."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from nbopt.draft import Context, Draft
from nbopt.errors import MissingExtra, ModelError, OptionError, nearest
from nbopt.narrowing import thinner
from nbopt.options import option
from nbopt.planning import check_range_test, lengthened, range_tested
from nbopt.space import Dimension, Search, most_starts
from nbopt.studies import PRUNERS, SAMPLERS
from nbopt.technique import Technique
from nbopt.training import OPTIMIZERS, TrainingPlan
from nbopt.workload import Workload

BATCHES = (32, 64, 128, 256, 512)
DECAYS = (0.0, 1e-4, 1e-3, 1e-2, 1e-1)
RATE_SPAN = 30.0
"""The learning rate is searched so many times below and above the plan's."""

MOST_DROPOUT = 0.7
SHAPES = ("cosine", "one_cycle")
"""Schedules that are searched beside the plan's own; `schedule` compares more of them."""
SHARES = (0.25, 0.5, 0.75, 1.0)
"""Of each layer's units, where weights are drawn anew."""
FEWEST, MOST = 2, 8
"""Fresh seeds where nobody says how many."""


@dataclass(frozen=True)
class Tune(Technique):
    """Search learning rate, its schedule, weight decay, batch size, optimizer, dropout and width at equal epochs.

    By an ordinary Optuna study (https://optuna.org, Akiba et al. 2019, https://arxiv.org/abs/1907.10902) beside the
    runs; what other steps of the recipe leave open is searched with it, in the same trainings. The untouched values are
    tried first, and kept unless others are better with fresh seeds.
    """

    word: ClassVar[str] = "tune"
    summary: ClassVar[str] = "learning rate and its schedule, weight decay, batch size, optimizer, dropout and width"
    needs_train: ClassVar[str] = "which tune trains on"
    body: ClassVar[Literal["model", "objective"]] = "objective"

    trials: int = option(20, "trainings of the search, the untouched values first", low=1, high=100_000)
    epochs: int | None = option(
        None, "passes over train of each training at least; 5 where no step says more", low=1, high=10_000
    )
    learning_rate: float | None = option(
        None, "middle of the learning rates, 0.001 where no step says another", low=0.0, high=10.0, open_ends=True
    )
    only: tuple[str, ...] = option(
        (),
        "only these of learning_rate, schedule, weight_decay, batch_size, optimizer, dropout_rate, width (that one "
        "--from-scratch); none means all",
    )
    budget: float | None = option(None, "time in which trainings are begun", low=0, unit="s", open_ends=True)
    sampler: str = option("auto", "what draws the next values; auto chooses by dimensions and trials", choices=SAMPLERS)
    pruner: str = option(
        "auto",
        "what ends a training early that falls behind on valid; none lets each one end, as auto does where schedules "
        "are searched",
        choices=PRUNERS,
    )
    finalists: int = option(3, "best ones that are trained again with fresh seeds", low=0, high=20)
    repeats: int | None = option(
        None,
        "fresh seeds of each finalist; else 2 to 8 of a training, a third as many in all as trials, and 5 of a cell's "
        "score",
        low=1,
        high=100,
    )
    jobs: int = option(1, "trainings at a time, in processes of their own", low=1, high=64)
    vs: str = option("none", "random: a random search with as many trials beside it", choices=("none", "random"))
    warm: str = option(
        "none", "auto starts from the best of earlier searches of this workload and recipe", choices=("none", "auto")
    )
    range_test: bool = option(False, "find the middle of the learning rates by a range test first")
    from_scratch: bool = option(False, "draw the weights anew for each training, not go on from the model's own")

    def check(self, workload: Workload) -> None:
        """Refuse a rate together with a test that finds one, and to train on nothing."""
        super().check(workload)
        check_range_test(self.range_test, self.learning_rate)

    def apply(self, draft: Draft, context: Context) -> Draft:
        """Return the draft with the hyperparameters as dimensions of its search.

        Raises:
            DataError: There is no train data.
            OptionError: Options don't go together, or `only` names what there is not.
        """
        workload = context.workload
        self.check(workload)
        if self.from_scratch:
            draft = draft.from_scratch(workload.framework)
        plan = lengthened(draft.plan, self.epochs, self.learning_rate)
        # What it is compared with is the training as it would have been, begun alike and as long.
        if not draft.control:
            draft = draft.with_(control=True, control_plan=plan)
        if self.range_test:
            draft, plan = range_tested(draft, plan, context)
        draft, dimensions = self._dimensions(draft.with_(plan=plan), context)
        unknown = [name for name in self.only if name not in dimensions]
        if unknown:
            hint = nearest(unknown[0], dimensions)
            raise OptionError(f"--only among {', '.join(dimensions)}", ", ".join(unknown), hint)
        chosen = [each for name, each in dimensions.items() if not self.only or name in self.only]
        search = Search(
            self.trials,
            self.budget,
            self.sampler,
            self.pruner,
            self.finalists,
            self.jobs,
            self.repeats or repeats_of(self.trials, self.finalists),
            "" if self.vs == "none" else self.vs,
            self.warm,
            () if draft.search is None else draft.search.first[: most_starts(self.trials)],
        )
        return draft.with_(search=search).searching(*chosen)

    def _dimensions(self, draft: Draft, context: Context) -> tuple[Draft, dict[str, Dimension]]:
        """Return what can be searched, by name, and the draft with notes on what can't."""
        found = space_of(draft.plan, context.workload, draft.model)
        dimensions = {name: each for name, each in found.items() if name not in draft.settled}
        if any(each.name == "dropout" for each in draft.space):
            dimensions.pop("dropout_rate", None)  # what regularize searches, in other words
        if context.workload.framework.initialise not in draft.begin:
            told = "what is trained keeps its units, which prune --structured takes out"
            return draft.noted(f"width is searched --from-scratch alone: {told}"), dimensions
        try:
            thinner(draft.model, context, 1 - SHARES[-2])
        except (ModelError, MissingExtra) as error:
            return draft.noted(f"width was not searched, which takes {error.expected}; here: {error.came}"), dimensions

        # Other processes train too: what shows progress or measures here does not go there.
        data = Context(context.workload, context.seed)

        def apply(trial: Draft, share: Any) -> Draft:
            return trial if share == 1 else trial.with_(model=thinner(trial.model, data, 1 - share))

        return draft, dimensions | {"width": Dimension("width", apply, 1.0, choices=SHARES, reshapes=True)}

    @property
    def label(self) -> str:
        """Return "tune 20 trials" and what differs from the default beside that."""
        rest = replace(self, trials=20).options_text()
        return " ".join([f"tune {self.trials} trials", *(word.removeprefix("--") for word in rest)])


def repeats_of(trials: int, finalists: int) -> int:
    """Return the fresh seeds of each finalist and of the untouched values: a third as many trainings as trials.

    The best of 60 trials is the luckiest of many. Two seeds then told a setting better by 0.001 (AUC, Adult) that was
    worse by 0.0006 over six: seeds of one setting differ by as much.
    """
    return max(FEWEST, min(MOST, trials // (3 * (finalists + 1))))


def space_of(plan: TrainingPlan, workload: Workload, model: Any) -> dict[str, Dimension]:
    """Return the dimensions of a workload's training around a plan, whose values are the defaults."""
    rate = plan.learning_rate
    found = [
        Dimension(
            "learning_rate", _of_plan("learning_rate"), rate, low=rate / RATE_SPAN, high=rate * RATE_SPAN, log=True
        ),
        # A constant rate leaves the last steps as large as the first, and their noise in the weights.
        Dimension("schedule", _of_plan("schedule"), plan.schedule, choices=_with(("constant", *SHAPES), plan.schedule)),
        Dimension(
            "weight_decay", _of_plan("weight_decay"), plan.weight_decay, choices=_with(DECAYS, plan.weight_decay)
        ),
        Dimension(
            "optimizer",
            _of_plan("optimizer"),
            plan.optimizer,
            # adam differs from adamw in nothing here: weight decay is decoupled in both.
            choices=_with(tuple(name for name in OPTIMIZERS if name != "adam"), plan.optimizer),
        ),
    ]
    rows = None if workload.train is None else workload.train.whole_rows
    if rows is not None:
        sizes = _with(tuple(size for size in BATCHES if size <= rows // 4), plan.batch_size)
        if len(sizes) > 1:
            found.append(Dimension("batch_size", _of_plan("batch_size"), plan.batch_size, choices=sizes))
    dropout = dropout_of(workload, model)
    if dropout is not None:
        found.append(dropout)
    return {each.name: each for each in found}


def dropout_of(workload: Workload, model: Any) -> Dimension | None:
    """Return the dimension of the dropout that a model has, None where it has none.

    Where all layers have one rate it is that rate, and otherwise the highest one: the others keep their share of it.
    """
    framework = workload.framework
    lowering = importlib.import_module(f"nbopt.techniques._tune.{framework.family}")
    rates = lowering.rates(model)
    highest = max(rates, default=0.0)
    if not highest:
        return None

    def apply(draft: Draft, value: Any) -> Draft:
        model = framework.clone(draft.model)
        now = max(lowering.rates(model), default=0.0)  # another step may have changed them
        if now:
            lowering.scale(model, float(value) / now)
        return draft.with_(model=model)

    return Dimension("dropout_rate", apply, highest, low=0.0, high=max(MOST_DROPOUT, highest))


def _of_plan(name: str) -> Callable[[Any, Any], Draft]:
    def apply(draft: Draft, value: Any) -> Draft:
        return draft.with_(plan=draft.plan.adjusted(**{name: value}))

    return apply


def _with(choices: tuple[Any, ...], default: Any) -> tuple[Any, ...]:
    """Return choices with the default among them, numbers in order."""
    if isinstance(default, str):
        return tuple(dict.fromkeys((default, *choices)))
    return tuple(sorted({*choices, default}))
