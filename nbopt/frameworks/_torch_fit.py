"""Train a torch module by a plan: one loop for every technique."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch

from nbopt.data import Batch, all_finite, to_numpy
from nbopt.errors import DataError, ModelError
from nbopt.frameworks import Fitting, trained_on
from nbopt.frameworks._averaging import RECALIBRATED_ROWS
from nbopt.frameworks._mixing import Mixing
from nbopt.frameworks._torch_averaging import Averaging
from nbopt.frameworks._torch_mixing import draw, mixed, mixed_loss
from nbopt.frameworks._torch_module import call, device_of, state_of, tensors
from nbopt.training import Progress, TrainingPlan, TrainingRecord, broken_loss


@contextmanager
def seeded(seed: int, device: str) -> Iterator[None]:
    """Seed torch for a training, and give the user's random state back afterwards."""
    devices = [torch.device(device)] if device.startswith("cuda") else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def make_optimizer(plan: TrainingPlan, model: torch.nn.Module) -> torch.optim.Optimizer:
    """Return the plan's optimizer over the parameters that train."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ModelError(
            "parameters to train", "none that require gradients", "set requires_grad on some layers, or --epochs 0"
        )
    kinds: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "adamw": torch.optim.AdamW,
        "adam": torch.optim.Adam,
        "sgd": lambda p, **k: torch.optim.SGD(p, momentum=0.9, **k),
        "rmsprop": torch.optim.RMSprop,
    }
    return kinds[plan.optimizer](parameters, lr=plan.learning_rate, weight_decay=plan.weight_decay)


def make_schedule(
    plan: TrainingPlan, optimizer: torch.optim.Optimizer, steps: int | None
) -> tuple[torch.optim.lr_scheduler.LRScheduler | None, bool]:
    """Return the plan's schedule, None for a constant rate, and whether it moves with each step or each epoch."""
    if plan.schedule == "constant":
        return None, False
    total = max(1, plan.epochs * (steps or 1))
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=total), steps is not None


def fit(model: torch.nn.Module, plan: TrainingPlan, fitting: Fitting) -> TrainingRecord:
    """Train `model` in place; on return, and on interrupt, it has the best state so far and is in evaluation mode.

    Raises:
        DataError: The training data has no labels, or the loss is not finite from the first step.
        TrainingError: The loss became NaN or infinite.
    """
    start = time.perf_counter()
    validate = fitting.score is not None and plan.keep_best
    sign = 1.0 if fitting.greater_is_better else -1.0
    scores: list[float] = []
    losses: list[float] = []
    best, best_epoch, best_state = -np.inf, 0, None
    fitting = trained_on(fitting, plan)
    averaging, mixing = Averaging.of(model, plan), Mixing.of(plan)

    def sample() -> Iterator[Batch]:
        return fitting.split.some(RECALIBRATED_ROWS, plan.batch_size, np.random.default_rng(plan.seed))

    def score(epoch: int, *, done: float) -> None:
        nonlocal best, best_epoch, best_state
        ready = fitting.paced(model, done)
        if averaging is not None:
            averaging.after_epoch(epoch)
        if not validate or fitting.score is None:
            return
        model.eval()
        with nullcontext() if averaging is None else averaging.in_place(model, sample):
            held(model)
            value = fitting.score(model)
            scores.append(value)
            # A tie goes to the later state: at equal quality the one that saw more data.
            if ready and sign * value >= best:
                best, best_epoch, best_state = sign * value, epoch, state_of(model)

    def held(model: torch.nn.Module) -> None:
        """Let masks hold in an average too."""
        if averaging is not None:
            with torch.no_grad():
                for hold in fitting.hold:
                    hold(model)

    stopped = ""
    with seeded(plan.seed, device_of(model)):
        rng = np.random.default_rng(plan.seed)
        optimizer = make_optimizer(plan, model)
        schedule, each_step = make_schedule(plan, optimizer, fitting.split.steps(plan.batch_size))
        try:
            score(0, done=0.0)
            for epoch in range(plan.epochs):
                model.train()
                in_epoch = schedule if each_step else None
                mean, stopped = _epoch(model, plan, fitting, optimizer, in_epoch, rng, epoch, start, averaging, mixing)
                losses.append(mean)
                if schedule is not None and not each_step:
                    schedule.step()
                score(epoch + 1, done=1.0 if stopped else (epoch + 1) / plan.epochs)
                if stopped:
                    break
        finally:
            if best_state is not None:
                model.load_state_dict(best_state)
            elif averaging is not None:
                averaging.settle(model, sample)
                held(model)
            optimizer.zero_grad(set_to_none=True)
            model.eval()
    kept = best_epoch if validate else len(losses)
    return TrainingRecord(len(losses), time.perf_counter() - start, kept, tuple(losses), tuple(scores), stopped)


def _epoch(
    model: torch.nn.Module,
    plan: TrainingPlan,
    fitting: Fitting,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler | None,
    rng: np.random.Generator,
    epoch: int,
    start: float,
    averaging: Averaging | None,
    mixing: Mixing | None,
) -> tuple[float, str]:
    """Train one pass; return the mean loss, and why it stopped early or ""."""
    steps = fitting.split.steps(plan.batch_size)
    total = 0.0
    step = 0
    for step, batch in enumerate(fitting.split.training_batches(plan.batch_size, rng), start=1):
        target, weight = _labels(batch, model)
        optimizer.zero_grad(set_to_none=True)
        inputs = tensors(model, batch.inputs)
        mix = None if mixing is None else draw(mixing, inputs)
        output = call(model, inputs if mix is None else mixed(inputs, mix))
        value = partial(_loss, fitting, output)
        loss = value(target, weight) if mix is None else mixed_loss(value, target, weight, mix)
        if not torch.isfinite(loss):
            finite, half = all_finite(batch), loss.dtype == torch.float16
            raise broken_loss(loss.item(), plan, epoch, step, finite=finite, overflows=half)
        loss.backward()
        optimizer.step()
        if schedule is not None:
            schedule.step()
        with torch.no_grad():
            for hold in fitting.hold:
                hold(model)
        if averaging is not None:
            averaging.after_step()
        total += loss.item()
        done = epoch + (step / steps if steps else 0.0)
        if fitting.pace:
            fitting.paced(model, min(1.0, done / plan.epochs))
        fitting.progress(Progress("training", done, plan.epochs, f"loss {total / step:.4f}"))
        if plan.max_seconds is not None and time.perf_counter() - start > plan.max_seconds:
            return total / step, f"max_seconds {plan.max_seconds:g} reached in epoch {epoch + 1}"
    return total / max(step, 1), ""


def _loss(fitting: Fitting, output: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
    """Return the loss; labels that it can't take are told with what they are."""
    try:
        loss: torch.Tensor = fitting.loss(output, target, weight)
    except (IndexError, RuntimeError, ValueError, TypeError) as error:
        low, high = (target.min().item(), target.max().item()) if target.numel() else (0, 0)
        raise DataError(
            f"train labels that go with an output of shape {tuple(output.shape)}",
            f"labels of shape {tuple(target.shape)}, {target.dtype}, from {low:g} to {high:g}, and the loss raised "
            f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}",
            "number classes from 0, in int64; or pass the loss that your labels go with",
        ) from error
    return loss


def _labels(batch: Batch, model: torch.nn.Module) -> tuple[torch.Tensor, torch.Tensor | None]:
    if batch.targets is None:
        raise DataError("labels in train", "batches without", "give (x, y), or a dict with 'labels'")
    device = next(model.parameters()).device

    def move(part: Any) -> torch.Tensor:
        return (part if isinstance(part, torch.Tensor) else torch.from_numpy(np.array(to_numpy(part)))).to(device)

    return move(batch.targets), None if batch.weight is None else move(batch.weight).float()
