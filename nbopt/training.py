"""TrainingPlan: how one training goes.

Techniques that change training (schedules, stopping, precision, penalties, a teacher) do not train by
themselves: each returns an adjusted plan, and the plan is carried out once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from nbopt.errors import DataError, NbOptError, OptionError, TrainingError
from nbopt.schedules import MONITORS, SCHEDULES
from nbopt.teaching import Teacher

OPTIMIZERS = ("adamw", "adam", "sgd", "rmsprop")
AVERAGES = ("none", "ema", "swa")
PRECISIONS = ("float32", "bfloat16", "float16")
FEWEST_STEPS = 16
"""Of an epoch over arrays: of 200 rows the usual 128 a step would make two, and a fine-tuning of three epochs six."""
SMALLEST_BATCH = 16
FRUITLESS = 50
"""Steps in a row whose gradients were not finite, after which a training in half precision has diverged: float16's
loss scale has then been halved from 65,536 to almost nothing."""


@dataclass(frozen=True)
class TrainingPlan:
    """Describe one training.

    Args:
        epochs: Passes over the training split, 0 or more. 0 trains nothing.
        learning_rate: Step size of the optimizer, above 0.
        optimizer: One of "adamw", "adam", "sgd" (momentum 0.9), "rmsprop".
        weight_decay: Decoupled weight decay, 0 or more (Loshchilov & Hutter 2019, arXiv:1711.05101; torch's SGD and
            RMSprop add it to the gradient instead). Norms, biases and embeddings are spared.
        batch_size: Rows a step where the data is arrays; a loader keeps its own batches. Techniques begin with fewer
            where there are few rows: see `suited`.
        schedule: How the rate goes over all epochs, moved each step (each epoch where the data does not tell how many
            steps it has): "constant"; "step" drops it by `decay`, `drops` times; "exponential" goes to `decay` times
            the rate; "cosine" to 0 (Loshchilov & Hutter 2017, arXiv:1608.03983), `cycles` times; "one_cycle" rises from
            a 25th and falls to nearly nothing (Smith & Topin 2018, arXiv:1708.07120); "wsd" stays, then falls to 0 in
            `cooldown` (trapezoid; Haegele et al. 2024, arXiv:2405.18392); "plateau" drops it by `decay` where
            validation stands still for `plateau` epochs; "schedule_free" averages instead (Defazio et al. 2024,
            arXiv:2405.15682; adamw, adam, and in torch sgd).
        max_seconds: Stop after the epoch or step in which this much time has gone; None for no limit.
        keep_best: Validate before training and after each epoch, and keep the best state.
        seed: Seed of shuffling and of every random layer.
        warmup: Share of the steps in which the rate rises from nearly 0, 0 to 0.9; 0 for none. Of "one_cycle" it is the
            rise, and 0 takes its 0.3.
        cycles: Times that "cosine" starts again, 1 or more; 1 for no restart.
        drops: Times that "step" drops the rate, 1 or more, at equal distances.
        decay: Factor of a drop of "step" and "plateau", below 1, and of all of "exponential", above 0.
        cooldown: Share of the steps in which "wsd" falls, above 0, up to 1; 0.2 is enough (Haegele et al. 2024).
        plateau: Epochs without a gain, 1 or more, after which "plateau" drops the rate.
        patience: Epochs without a gain on validation after which training ends (early stopping; Prechelt 1998,
            doi:10.1007/3-540-49430-8_3), 0 or more; 0 never ends it. The best state is what `keep_best` keeps.
        min_delta: Smallest gain that counts for `patience` and "plateau", 0 or more, in units of the loss or metric.
        monitor: What a gain is on validation: of the "loss", the "metric", or of either ("both"). With `patience`, the
            state that is kept is the best by it; by the metric, and by the loss where that is equal, for "both".
        label_smoothing: Share of each label that all classes get alike, 0 (off) up to but not 1; 0.1 in Szegedy et al.
            2016 (https://arxiv.org/abs/1512.00567). Losses of classes only.
        mixup: Rows are mixed in pairs, by a share drawn from Beta(mixup, mixup) for each step, and so are their losses;
            0 (off) or more, 0.1 to 0.4 in Zhang et al. 2018 (https://arxiv.org/abs/1710.09412). Floating inputs only.
        cutmix: A box of each image is taken from another, by an area drawn from Beta(cutmix, cutmix) for each step; 0
            (off) or more, 1 in Yun et al. 2019 (https://arxiv.org/abs/1905.04899). With mixup too, each step does one.
        averaging: Which weights are judged and kept: "none" the last ones; "ema" a moving average over steps; "swa" the
            mean over the ends of the last epochs, with BatchNorm's statistics measured again (Izmailov et al. 2018,
            https://arxiv.org/abs/1803.05407).
        ema_decay: What a moving average keeps at each step, 0 to 1, both excluded; at step t it is (1 + t) / (10 + t)
            at most, so that a short training forgets where it began.
        swa_start: Share of the epochs after which their ends are averaged, 0 up to but not 1.
        precision: What layers compute in while it trains: "float32", the default, which is as the model is; "bfloat16"
            or "float16", in which torch's autocast and Keras's mixed policies compute products and convolutions,
            float16 with a scaled loss (Micikevicius et al. 2018, https://arxiv.org/abs/1710.03740). Weights stay
            float32, before, meanwhile and after.
        teacher: What is imitated beside the labels, and how much it counts; None, the default, for labels alone.
        devices: Processes that share each batch and average their gradients, 1 or more: each on a GPU of its own, or
            with its part of the CPU's cores (data parallelism; Goyal et al. 2017, https://arxiv.org/abs/1706.02677). A
            step has as many rows as in one process. PyTorch alone.

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
    warmup: float = 0.0
    cycles: int = 1
    drops: int = 2
    decay: float = 0.1
    cooldown: float = 0.2
    plateau: int = 2
    patience: int = 0
    min_delta: float = 0.0
    monitor: str = "both"
    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    averaging: str = "none"
    ema_decay: float = 0.999
    swa_start: float = 0.75
    precision: str = "float32"
    teacher: Teacher | None = None
    devices: int = 1

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
        self._check_schedule()
        self._check_regularizers()
        if self.precision not in PRECISIONS:
            raise OptionError(f"a precision among {', '.join(PRECISIONS)}", repr(self.precision))
        if self.devices < 1:
            raise OptionError("devices of 1 or more", f"{self.devices}", "--devices 1")

    def _check_regularizers(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise OptionError("a label smoothing from 0 up to but not 1", f"{self.label_smoothing}", "0.1")
        for name, value in (("mixup", self.mixup), ("cutmix", self.cutmix)):
            if not 0 <= value < math.inf:
                raise OptionError(f"a {name} of 0 or more", f"{value}", "0 for none, 0.2 or 1")
        if self.averaging not in AVERAGES:
            raise OptionError(f"averaging among {', '.join(AVERAGES)}", repr(self.averaging))
        if not 0 < self.ema_decay < 1:
            raise OptionError("an ema_decay between 0 and 1, both excluded", f"{self.ema_decay}", "0.999")
        if not 0 <= self.swa_start < 1:
            raise OptionError("a swa_start from 0 up to but not 1", f"{self.swa_start}", "0.75")
        if self.averaging != "none" and self.schedule == "schedule_free":
            raise OptionError("one average of weights", f"{self.averaging} of schedule_free, which averages already")

    def _check_schedule(self) -> None:
        if self.monitor not in MONITORS:
            raise OptionError(f"a monitor among {', '.join(MONITORS)}", repr(self.monitor))
        if not 0 <= self.warmup <= 0.9:
            raise OptionError("a warm-up between 0 and 0.9 of the steps", f"{self.warmup}", "--warmup 0.05")
        if not 0 < self.cooldown <= 1:
            raise OptionError("a cool-down above 0, up to 1 of the steps", f"{self.cooldown}", "--cooldown 0.2")
        if not self.decay > 0 or (self.decay >= 1 and self.schedule in ("step", "plateau")):
            raise OptionError("a decay above 0 and below 1", f"{self.decay}", "--decay 0.1")
        for name, least in (("cycles", 1), ("drops", 1), ("plateau", 1), ("patience", 0)):
            if getattr(self, name) < least:
                raise OptionError(f"{name} of {least} or more", f"{getattr(self, name)}")
        if self.min_delta < 0:
            raise OptionError("a smallest gain of 0 or more", f"{self.min_delta}", "--min-delta 0")
        if self.schedule == "schedule_free" and self.optimizer == "rmsprop":
            came = "rmsprop, of which there is no schedule-free form"
            raise OptionError("adamw, adam or sgd for schedule_free", came, "--optimizer adamw")

    @property
    def watches(self) -> bool:
        """Return whether validation steers the training, beside choosing the state that is kept."""
        return self.patience > 0 or self.schedule == "plateau"

    @property
    def watches_loss(self) -> bool:
        """Return whether the loss on validation is needed."""
        return self.watches and self.monitor != "metric"

    def suited(self, rows: int | None) -> TrainingPlan:
        """Return the plan with so few rows a step that an epoch has 16 steps, but no fewer than 16 rows.

        Args:
            rows: Of arrays to train on; None where the data brings its own batches.
        """
        if rows is None or rows >= FEWEST_STEPS * self.batch_size:
            return self
        size = 2 ** int(math.log2(max(rows / FEWEST_STEPS, 1)))
        return self.adjusted(batch_size=min(self.batch_size, max(size, SMALLEST_BATCH)))

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
        rates: Learning rate at the first step of each epoch.
        valid_losses: Loss on validation before training and after each epoch, where it was watched.
        mixed: What half precision did, None where all was in float32.
        shared: How several processes shared it, as a sentence; "" for one.
        left_out: Which batches it could not learn from, as a sentence; "" for none.
    """

    epochs: int = 0
    seconds: float = 0.0
    kept_epoch: int = 0
    losses: tuple[float, ...] = ()
    scores: tuple[float, ...] = ()
    stopped: str = ""
    rates: tuple[float, ...] = ()
    valid_losses: tuple[float, ...] = ()
    mixed: Mixed | None = None
    shared: str = ""
    left_out: str = ""


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
