"""Schedule: how the learning rate goes over a training, and when it ends; fixed, or compared at equal budget."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

from nbopt.draft import Context, Draft
from nbopt.errors import OptionError
from nbopt.options import option
from nbopt.planning import check_range_test, lengthened, range_tested
from nbopt.schedules import MONITORS, SCHEDULES
from nbopt.space import Dimension, Search, most_starts
from nbopt.technique import Technique
from nbopt.training import TrainingPlan
from nbopt.workload import Workload

FACTORS = (1.0, 3.0, 1 / 3)
"""Times the learning rate at which every schedule is tried, the constant rate too: each gets the same tuning."""

COMPARED = ("step", "cosine", "one_cycle", "wsd", "plateau", "schedule_free")

PARTS = ("warmup", "cycles", "drops", "decay", "cooldown", "plateau", "patience", "min_delta", "monitor")
"""Options that are fields of the plan."""

OF_SEARCH = ("trials", "finalists", "budget")

APPLIES = {
    "cycles": ("cosine",), "drops": ("step",), "decay": ("step", "exponential", "plateau"), "cooldown": ("wsd",),
    "plateau": ("plateau",), **dict.fromkeys(OF_SEARCH, ()),
}  # fmt: skip
"""Options that have an effect with some schedules only; all of them with "auto"."""


@dataclass(frozen=True)
class Schedule(Technique):
    """Let the learning rate go by a schedule, and end the training where validation says so.

    By torch's `lr_scheduler` and Keras's `optimizers.schedules`. A good schedule needs fewer epochs: with few of them
    one-cycle (Smith & Topin 2018, https://arxiv.org/abs/1708.07120), cosine (Loshchilov & Hutter 2017,
    https://arxiv.org/abs/1608.03983) and WSD (Haegele et al. 2024, https://arxiv.org/abs/2405.18392) are ahead of a
    constant rate, with many there is little between them. So "auto" compares them on the user's own data, each schedule
    and the constant rate with the same epochs and the same learning rates.
    """

    word: ClassVar[str] = "schedule"
    summary: ClassVar[str] = "learning-rate schedules with early stopping, fixed or compared at equal budget"
    needs_train: ClassVar[str] = "which schedule trains on"

    schedule: str = option(
        "auto",
        "how the rate goes; auto trains by each, and by a constant rate as well, and keeps the best on valid",
        choices=("auto", *SCHEDULES),
    )
    epochs: int | None = option(
        None, "passes over train at least; 5 where no step of the recipe says more", low=1, high=10_000
    )
    learning_rate: float | None = option(
        None,
        "highest step size, 0.001 where no step of the recipe says another",
        low=0.0,
        high=10.0,
        open_ends=True,
    )
    warmup: float = option(
        0.0, "share of the steps in which the rate rises; of one_cycle its rise, 0 for 0.3", low=0.0, high=0.9
    )
    cycles: int = option(1, "times that cosine starts again, 1 for no restart", low=1, high=100)
    drops: int = option(2, "times that step drops the rate", low=1, high=100)
    decay: float = option(
        0.1, "factor of a drop of step and plateau, and of all of exponential", low=0.0, high=1.0, open_ends=True
    )
    cooldown: float = option(0.2, "share of the steps in which wsd falls to 0", low=0.01, high=1.0)
    plateau: int = option(2, "epochs without a gain after which plateau drops the rate", low=1, high=1000)
    patience: int = option(
        0,
        "epochs without a gain on valid after which training ends, its best state kept (Prechelt 1998); 0 for never",
        low=0,
        high=1000,
    )
    min_delta: float = option(0.0, "smallest gain that counts, in units of the loss or metric", low=0.0, high=1e6)
    monitor: str = option("both", "what must gain on valid: the loss, the metric, or either of both", choices=MONITORS)
    range_test: bool = option(False, "find the learning rate by a range test first (Smith 2017, arXiv:1506.01186)")
    from_scratch: bool = option(False, "draw the weights anew instead of training on from the model's own")
    trials: int = option(21, "trainings that auto compares at most", low=2, high=10_000)
    finalists: int = option(2, "best ones of auto that are trained again with fresh seeds", low=0, high=20)
    budget: float | None = option(None, "time in which auto begins trainings", low=0, unit="s", open_ends=True)

    def apply(self, draft: Draft, context: Context) -> Draft:
        """Return the draft with the schedule in its plan, or with the schedules as a dimension of its search.

        Raises:
            DataError: There is no train data.
            OptionError: An option is given that has no effect with this schedule.
        """
        self.check(context.workload)
        if self.from_scratch:
            draft = draft.from_scratch(context.workload.framework)
        plan = self._plan(draft.plan)
        if self.range_test:
            draft, plan = range_tested(draft, plan, context)
        constant = plan.adjusted(schedule="constant", warmup=0.0, patience=0)
        if not draft.control:
            draft = draft.with_(control=True, control_plan=constant)
        if self.schedule != "auto":
            return draft.with_(plan=plan.adjusted(schedule=self.schedule)).settling("schedule")
        return self._compared(draft.with_(plan=plan), context)

    def _plan(self, plan: TrainingPlan) -> TrainingPlan:
        """Return the plan of the one training for the whole recipe, its schedule still as it was.

        What is at its default here stays as an earlier step has it.
        """
        named = {name: value for name in PARTS if (value := getattr(self, name)) != DEFAULTS[name]}
        patience = max(plan.patience, self.patience)
        return lengthened(plan, self.epochs, self.learning_rate).adjusted(**{**named, "patience": patience})

    def _compared(self, draft: Draft, context: Context) -> Draft:
        plan = draft.plan
        usable, missing = usable_schedules(context.workload.framework.name, plan.optimizer)
        kinds = tuple(dict.fromkeys((plan.schedule, "constant", *usable)))
        rate = plan.learning_rate
        grid = [
            {"schedule": kind, "learning_rate": rate * factor}
            for factor in FACTORS
            for kind in kinds
            if (kind, factor) != (plan.schedule, 1.0)
        ]
        before = draft.search
        if before is not None and (told := [name for name in OF_SEARCH if getattr(self, name) != DEFAULTS[name]]):
            flags = " and ".join(f"--{name}" for name in told)
            draft = draft.noted(
                f"{flags} of schedule had no effect: another step of the recipe says how it is searched"
            )
        # Beside other dimensions the schedules are only where the search starts, and not all of it.
        most = len(grid) if before is None else most_starts(before.trials)
        search = before or Search(
            self.trials, self.budget, finalists=self.finalists, sampler="tpe",
            # A schedule that warms up is behind at first, and not worse for it.
            pruner="none",
        )  # fmt: skip
        draft = draft.with_(search=replace(search, first=(*search.first, *grid[:most])))
        return draft.searching(
            Dimension("schedule", _with_schedule, plan.schedule, choices=kinds),
            Dimension("learning_rate", _with_rate, rate, low=rate / 10, high=rate * 10, log=True),
        ).noted(*([missing] if missing else []))

    def check(self, workload: Workload) -> None:
        """Refuse options that have no effect with this schedule, and a schedule without anything to train on."""
        super().check(workload)
        for name, kinds in APPLIES.items():
            if self.schedule != "auto" and self.schedule not in kinds and getattr(self, name) != DEFAULTS[name]:
                fitting = " or ".join((*kinds, "auto"))
                raise OptionError(
                    f"--{name} together with --schedule {fitting}",
                    f"--schedule {self.schedule}, where it has no effect",
                    f"leave --{name} out",
                )
        steered = self.patience or self.schedule in ("plateau", "auto")
        if not steered and (self.min_delta or self.monitor != "both"):
            raise OptionError(
                "--monitor and --min-delta together with --patience or --schedule plateau", "neither", "--patience 3"
            )
        check_range_test(self.range_test, self.learning_rate)

    @property
    def label(self) -> str:
        """Return "schedule cosine" and what differs from the default beside that."""
        rest = replace(self, schedule="auto").options_text()
        return " ".join([f"schedule {self.schedule}", *(word.removeprefix("--") for word in rest)])


DEFAULTS = {field.name: field.default for field in fields(Schedule)}


def usable_schedules(framework: str, optimizer: str) -> tuple[tuple[str, ...], str]:
    """Return the schedules that can be compared here, and what must be said of one that can't."""
    if framework == "torch":
        missing = "" if importlib.util.find_spec("schedulefree") else 'pip install "nbopt[schedule]"'
        fits = optimizer in ("adamw", "adam", "sgd")
    else:
        keras = importlib.import_module(framework)
        missing = "" if hasattr(keras.optimizers, "ScheduleFreeAdamW") else "it needs Keras 3.15"
        fits = optimizer in ("adamw", "adam")
    if not fits:
        missing = f"it has no {optimizer}"
    usable = tuple(kind for kind in COMPARED if not (missing and kind == "schedule_free"))
    return usable, f"schedule_free was not compared: {missing}" if missing else ""


def _with_schedule(draft: Draft, value: Any) -> Draft:
    return draft.with_(plan=draft.plan.adjusted(schedule=value))


def _with_rate(draft: Draft, value: Any) -> Draft:
    return draft.with_(plan=draft.plan.adjusted(learning_rate=value))
