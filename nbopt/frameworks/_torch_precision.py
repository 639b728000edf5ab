"""Carry out a plan's precision in torch: autocast, and float16's scaled loss."""

from __future__ import annotations

from typing import Any

import torch

from nbopt.batches import Inputs
from nbopt.errors import ModelError
from nbopt.frameworks._torch_module import call, device_of
from nbopt.training import FRUITLESS, Mixed, TrainingPlan, fruitless


def native_halves(model: torch.nn.Module) -> tuple[str, ...]:
    """Return the half precisions that torch can train a model in where it lies; of a CPU whatever it has kernels for.

    Raises:
        ModelError: Weights are in half precision already, or in float64.
    """
    other = {p.dtype for p in model.parameters() if p.dtype.is_floating_point and p.dtype != torch.float32}
    if other:
        names = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in other))
        raise ModelError(
            "a model with weights in float32, which mixed precision keeps", f"weights in {names}", "model.float()"
        )
    kind = torch.device(device_of(model)).type
    if kind == "cuda":
        # Cards before Ampere compute bfloat16 by way of float32.
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return ("bfloat16", "float16") if native else ("float16",)
    return ("bfloat16",) if kind == "cpu" else ()


class Precision:
    """Hold the precision of one training: how it calls, how it steps, and what it counted.

    With "float32" it calls and steps as if it were not there.

    Args:
        plan: The training.
        model: The model, on the device that it trains on.
    """

    def __init__(self, plan: TrainingPlan, model: torch.nn.Module) -> None:
        self.plan = plan
        self.device = torch.device(device_of(model)).type
        halves = {"bfloat16": torch.bfloat16, "float16": torch.float16}
        self.dtype = halves.get(plan.precision)
        self.scaler = torch.amp.GradScaler(self.device) if self.dtype == torch.float16 else None
        self.steps = self.skipped = self.nonfinite = self.in_a_row = 0

    def call(self, model: torch.nn.Module, inputs: Inputs) -> Any:
        """Return the primary output; a half one as float32, in which losses are summed without loss of digits."""
        if self.dtype is None:
            return call(model, inputs)
        with torch.amp.autocast(self.device, dtype=self.dtype):
            output = call(model, inputs)
        return output.float() if output.dtype == self.dtype else output

    def step(self, loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> bool:
        """Go backward and change the weights; return whether they were changed.

        Raises:
            TrainingError: The gradients of too many steps in a row were not finite.
        """
        self.backward(loss, optimizer)
        return self.apply(optimizer)

    def backward(self, loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        """Go backward; gradients are then of the loss itself, not of a scaled one."""
        if self.scaler is None:
            loss.backward()
            return
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(optimizer)

    def apply(self, optimizer: torch.optim.Optimizer) -> bool:
        """Change the weights, where all gradients are finite; return whether they were changed."""
        if self.dtype is None:
            optimizer.step()
            return True
        self.steps += 1
        finite = all_finite(optimizer)
        if not finite:
            self.skipped += 1
            self.nonfinite += sum(map(broken, gradients(optimizer)))
        self.in_a_row = 0 if finite else self.in_a_row + 1
        if self.scaler is not None:
            self.scaler.step(optimizer)  # skips by itself, and halves its scale
            self.scaler.update()
        elif finite:
            optimizer.step()
        if self.in_a_row >= FRUITLESS:
            raise fruitless(self.plan)
        return finite

    def counts(self) -> Mixed | None:
        """Return what was counted, None in float32."""
        if self.dtype is None:
            return None
        scale = None if self.scaler is None else float(self.scaler.get_scale())
        return Mixed(self.plan.precision, self.steps, self.skipped, self.nonfinite, scale)


def gradients(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """Return the gradients at hand, of sparse ones the values."""
    found = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    return [each.coalesce().values() if each.is_sparse else each for each in found]


def all_finite(optimizer: torch.optim.Optimizer) -> bool:
    """Tell whether no gradient holds NaN or infinity, in one pass over them."""
    found = gradients(optimizer)
    # A norm of order two took 2.4 ms for 8 million numbers on a CPU, the largest magnitude 54 ms. It may be infinite
    # where no number is, so that only then each is looked at.
    return bool(torch.isfinite(torch.nn.utils.get_total_norm(found))) or not any(map(broken, found))


def broken(gradient: torch.Tensor) -> bool:
    """Tell whether a gradient holds NaN or infinity."""
    return not bool(torch.isfinite(gradient).all())
