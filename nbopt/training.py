"""TrainingPlan: how one training goes.

Techniques that change training (schedules, stopping, precision, penalties, a teacher) do not train by
themselves: each returns an adjusted plan, and the plan is carried out once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from nbopt.errors import DataError, NbOptError, OptionError, TrainingError

OPTIMIZERS = ("adamw", "adam", "sgd", "rmsprop")
SCHEDULES = ("constant", "cosine")
PRECISIONS = ("float32", "bfloat16", "float16")
FRUITLESS = 50
"""Steps in a row whose gradients were not finite, after which a training in half precision has diverged: float16's
loss scale has then been halved from 65,536 to almost nothing."""


@dataclass(frozen=True)
class Progress:
    """Say how far a piece of work has come.

    Args:
        what: What is being done, a few words.
        done: Units done so far.
        total: Units in all, or None where that is not known.
        note: A figure worth seeing beside it (a loss, a quality).
    """

    what: str
    done: float = 0.0
    total: float | None = None
    note: str = ""


ProgressCallback = Callable[[Progress], None]


def silent(_: Progress) -> None:
    """Ignore progress."""


@dataclass(frozen=True)
class TrainingPlan:
    """Describe one training.

    Args:
        epochs: Passes over the training split, 0 or more. 0 trains nothing.
        learning_rate: Step size of the optimizer, above 0.
        optimizer: One of "adamw", "adam", "sgd" (momentum 0.9), "rmsprop".
        weight_decay: Decoupled weight decay, 0 or more.
        batch_size: Rows a step where the data is arrays; a loader keeps its own batches.
        schedule: "constant", or "cosine" from `learning_rate` to 0 over all epochs, each step (each epoch where
            the data does not tell how many steps it has).
        max_seconds: Stop after the epoch or step in which this much time has gone; None for no limit.
        keep_best: Validate before training and after each epoch, and keep the best state.
        seed: Seed of shuffling and of every random layer.
        precision: What layers compute in while it trains: "float32", the default, which is as the model is; "bfloat16"
            or "float16", in which torch's autocast and Keras's mixed policies compute products and convolutions,
            float16 with a scaled loss (Micikevicius et al. 2018, https://arxiv.org/abs/1710.03740). Weights stay
            float32, before, meanwhile and after.

    Raises:
        OptionError: A value is out of its range.
    """

    epochs: int = 0
    learning_rate: float = 1e-3
    optimizer: str = "adamw"
    weight_decay: float = 0.0
    batch_size: int = 128
    schedule: str = "constant"
    max_seconds: float | None = None
    keep_best: bool = True
    seed: int = 0
    precision: str = "float32"

    def __post_init__(self) -> None:
        if self.epochs < 0:
            raise OptionError("epochs of 0 or more", f"{self.epochs}", "--epochs 1")
        if not self.learning_rate > 0:
            raise OptionError("a learning rate above 0", f"{self.learning_rate}", "--learning-rate 0.001")
        if self.optimizer not in OPTIMIZERS:
            raise OptionError(f"an optimizer among {', '.join(OPTIMIZERS)}", repr(self.optimizer))
        if self.schedule not in SCHEDULES:
            raise OptionError(f"a schedule among {', '.join(SCHEDULES)}", repr(self.schedule))
        if self.batch_size < 1:
            raise OptionError("a batch size of 1 or more", f"{self.batch_size}")
        if self.precision not in PRECISIONS:
            raise OptionError(f"a precision among {', '.join(PRECISIONS)}", repr(self.precision))

    def adjusted(self, **changes: Any) -> TrainingPlan:
        """Return the plan with some fields changed."""
        return replace(self, **changes)


@dataclass(frozen=True)
class Mixed:
    """Count what half precision did to a training.

    Args:
        precision: "bfloat16" or "float16".
        steps: Steps, skipped ones with them.
        skipped: Steps that changed no weight, because a gradient was NaN or infinite.
        nonfinite: Gradients that were so, one for each weight and step.
        scale: Of float16 what the loss was multiplied by at the end; None for bfloat16, which has float32's range.
    """

    precision: str
    steps: int = 0
    skipped: int = 0
    nonfinite: int = 0
    scale: float | None = None

    @property
    def note(self) -> str:
        """Return the counts as a sentence."""
        scaled = "" if self.scale is None else f"; the loss scale was {self.scale:,.4g} at the end"
        if not self.skipped:
            return f"trained in {self.precision}: none of {self.steps:,} steps was skipped{scaled}"
        one = self.skipped == 1
        return (
            f"trained in {self.precision}: {self.skipped:,} of {self.steps:,} steps {'was' if one else 'were'} skipped "
            f"for {self.nonfinite:,} gradient{'s that were' if self.nonfinite > 1 else ' that was'} not finite{scaled}"
        )


@dataclass(frozen=True)
class TrainingRecord:
    """Keep what a training did.

    Args:
        epochs: Epochs that were completed.
        seconds: Wall time in seconds.
        kept_epoch: Epoch whose state was kept; 0 is the state before training.
        losses: Mean training loss of each epoch.
        scores: Quality on validation before training and after each epoch, as the metric gives it.
        stopped: Why it ended before its epochs, or "".
        mixed: What half precision did, None where all was in float32.
    """

    epochs: int = 0
    seconds: float = 0.0
    kept_epoch: int = 0
    losses: tuple[float, ...] = ()
    scores: tuple[float, ...] = ()
    stopped: str = ""
    mixed: Mixed | None = None


def broken_loss(
    loss: float, plan: TrainingPlan, epoch: int, step: int, *, finite: bool, overflows: bool = False
) -> NbOptError:
    """Return the error of a loss that is NaN or infinite.

    Args:
        loss: The loss.
        plan: What was trained by.
        epoch: Epoch that it came in, from 0.
        step: Step of that epoch, from 1.
        finite: The batch's inputs and targets are all numbers.
        overflows: The loss is in float16, which ends at 65,504.
    """
    came = f"{loss} in epoch {epoch + 1}, step {step}"
    do = "train in float32 (model.float()): float16 weights overflow" if overflows else ""
    if plan.precision == "float16":
        do = "float16 ends at 65,504: --precision bfloat16, or leave amp out"
    if not finite or (epoch, step) == (0, 1):
        # No weight has changed, or no weights could help.
        return DataError(
            "a finite training loss", came, do or "check train for NaN, and what the loss makes of the outputs"
        )
    return TrainingError("a finite training loss", f"training diverged: its loss was {came}", do or remedy(plan))


def fruitless(plan: TrainingPlan) -> TrainingError:
    """Return the error of a training in half precision in which no step finds finite gradients any more."""
    come = f"{FRUITLESS} steps in a row with gradients that are NaN or infinite, in {plan.precision}"
    other = "--precision bfloat16" if plan.precision == "float16" else "leave amp out"
    return TrainingError("finite gradients", come, f"{remedy(plan)}, or {other}")


def remedy(plan: TrainingPlan) -> str:
    """Return what to try after a training that diverged."""
    return f"try --learning-rate {plan.learning_rate / 10:g} (a tenth), or fewer --epochs"
