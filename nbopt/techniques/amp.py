"""Amp: train in half precision where that is faster, and in float32 where it is not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nbopt.draft import Context, Draft
from nbopt.errors import TrainingError
from nbopt.measurement.environment import has_bfloat16
from nbopt.options import option
from nbopt.technique import Technique
from nbopt.techniques._amp.choice import HALVES, NO_BF16, candidates, chosen
from nbopt.techniques._amp.trial import tried


@dataclass(frozen=True)
class Amp(Technique):
    """Train with products and convolutions in bfloat16 or float16, and with weights in float32.

    Micikevicius et al. 2018 (https://arxiv.org/abs/1710.03740) keep float32 weights and scale float16's loss, so that
    small gradients do not vanish; bfloat16 has float32's range and needs no scale (Kalamkar et al. 2019,
    https://arxiv.org/abs/1905.12322). torch's autocast and GradScaler and Keras's dtype policies and LossScaleOptimizer
    do it. Halves pay on GPUs and on CPUs that compute in bfloat16, for wide layers and large batches; small ones only
    lose. So steps of each precision are timed first, and training stays in float32 where no half is faster. The
    result is a float32 model, and beside it stands the same training in float32.

    Several devices share each batch (https://huggingface.co/docs/accelerate, over torch's DistributedDataParallel), so
    that a step is what it is on one; the training beside it is on one device.
    """

    word: ClassVar[str] = "amp"
    summary: ClassVar[str] = "training in bfloat16 or float16, where timed steps are faster"
    needs_train: ClassVar[str] = "which amp trains on in half precision"
    times: ClassVar[bool] = True

    precision: str = option(
        "auto",
        "bfloat16 on CPUs that compute in it and on GPUs since Ampere, float16 on CUDA GPUs alone; auto times what "
        "there is and takes the fastest",
        choices=("auto", *HALVES),
    )
    epochs: int = option(
        3, "passes over train; the longest of a recipe counts, and 0 leaves it to the others", low=0, high=10_000
    )
    learning_rate: float | None = option(
        None, "step size of the optimizer; none leaves what the recipe has, 0.001 at first", low=0.0, high=10.0,
        open_ends=True,
    )  # fmt: skip
    batch_size: int = option(
        0,
        "rows a step where train is arrays; 0 leaves what the recipe has, 128 at first or fewer where rows are few; "
        "halves gain more with more",
        low=0,
        high=1_000_000,
        unit="rows",
    )
    steps: int = option(
        20, "steps of each precision that are timed before the training, in turns", low=3, high=10_000, unit="steps"
    )
    min_gain: float = option(
        1.1,
        "times faster that steps must be, at the lower bound of the interval, or training stays in float32; 0 takes "
        "the half whatever it gives",
        low=0.0,
        high=100.0,
    )

    devices: int = option(
        1,
        "processes that share each batch, by Accelerate: each on a GPU of its own where the model lies on one, else "
        "with its part of the CPU's cores; PyTorch alone",
        low=1,
        high=1024,
    )

    def apply(self, draft: Draft, context: Context) -> Draft:
        """Return the draft with its training in the plan, and with what chooses the precision once the plan is whole.

        Raises:
            DataError: There is no train data.
            ModelError: The model is not in float32.
            OptionError: The precision, or so many devices, can't be had on this machine.
            MissingExtra: Several devices are asked for, and Accelerate is not installed.
        """
        workload = context.workload
        self.check(workload)
        self.halves(draft, context)
        changes = {"learning_rate": self.learning_rate, "batch_size": self.batch_size or None}
        changes["devices"] = self.devices if self.devices > 1 else None
        given = {name: value for name, value in changes.items() if value is not None}
        plan = draft.plan.adjusted(epochs=max(draft.plan.epochs, self.epochs), **given)
        workload.framework.check_devices(draft.model, plan)
        return draft.with_(plan=plan, control=True, ready=(*draft.ready, self.decide))

    @property
    def label(self) -> str:
        """Return "amp" and what differs from the default, as a table writes it."""
        return " ".join([self.word, *(word.removeprefix("--") for word in self.options_text())])

    def halves(self, draft: Draft, context: Context) -> tuple[str, ...]:
        """Return the half precisions that can be tried for this model on this machine.

        Raises:
            ModelError: The model is not in float32.
            OptionError: The precision that was asked for can't be had.
        """
        framework = context.workload.framework
        device, native = framework.device(draft.model), framework.native_halves(draft.model)
        return candidates(self.precision, device, native, has_bfloat16())

    def decide(self, draft: Draft, context: Context) -> Draft:
        """Return the draft with the precision that timed steps are faster in, or with a note why it is float32.

        Raises:
            TrainingError: No half is faster, and the recipe is this technique alone, on one device: there is nothing
                else to do.
            OptionError: Another step of the recipe can't be carried out on several devices.
        """
        if not draft.plan.epochs:
            return draft.noted("amp changed nothing: the recipe trains no epoch")
        context.workload.framework.check_devices(draft.model, draft.plan, held=bool(draft.hold or draft.pace))
        halves = self.halves(draft, context)
        results = tried(draft, context, halves, self.steps) if halves else []
        best = chosen(results, self.min_gain)
        if best is not None:
            return draft.with_(plan=draft.plan.adjusted(precision=best.precision)).noted(best.note)
        where = context.workload.framework.device(draft.model)
        reason = " and ".join(each.told for each in results)
        if not results:
            reason = NO_BF16 if where == "cpu" else f"mixed precision is for CPUs and CUDA GPUs, not for {where}"
        if self.devices == 1 and draft == self.apply(Draft.of(context.workload), context):
            wanted = f"steps at least {self.min_gain:g} times faster than in float32"
            raise TrainingError(wanted, f"mixed precision refused: {reason}", "leave amp out: train in float32")
        return draft.noted(f"mixed precision refused, trained in float32: {reason}")
