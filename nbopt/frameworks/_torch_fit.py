"""Train a torch module by a plan: one loop for every technique."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import numpy as np
import torch

from nbopt.arrays import to_numpy
from nbopt.batches import Batch, all_finite
from nbopt.data import Split
from nbopt.errors import DataError, ModelError, NbOptError, NbOptWarning
from nbopt.frameworks import Fitting, trained_on
from nbopt.frameworks._mixing import Mixing
from nbopt.frameworks._torch_averaging import Averaging
from nbopt.frameworks._torch_crew import Crew
from nbopt.frameworks._torch_mixing import draw, mixed, mixed_loss
from nbopt.frameworks._torch_module import call, device_of, state_of, tensors
from nbopt.frameworks._torch_precision import Precision
from nbopt.frameworks._torch_random import seeded
from nbopt.frameworks._torch_schedules import Rates, make_optimizer
from nbopt.frameworks._torch_teaching import taught
from nbopt.misfits import NO_GRADIENT, ONE_ROW, misfit, remedy
from nbopt.progress import Epoch
from nbopt.training import TrainingPlan, TrainingRecord, broken_loss


def fit(model: torch.nn.Module, plan: TrainingPlan, fitting: Fitting, crew: Crew | None = None) -> TrainingRecord:
    """Train `model` in place; on return, and on interrupt, it has the best state so far and is in evaluation mode.

    Args:
        model: What trains.
        plan: How.
        fitting: Against what.
        crew: The other processes, where this is one of several.

    Raises:
        DataError: The training data has no labels, or the loss is not finite from the first step.
        TrainingError: The loss became NaN or infinite.
    """
    start = time.perf_counter()
    crew = crew or Crew()
    watch = crew.watch(plan, fitting, lambda: state_of(model), lambda split: loss_on(model, split, fitting))
    averaging = Averaging(model, plan, fitting)
    smoothed = trained_on(fitting, plan)  # validation is judged by the labels as they are
    losses: list[float] = []
    stopped, alone = "", 0
    with seeded(plan.seed, device_of(model)), taught(smoothed, plan, model) as smoothed:
        rng = np.random.default_rng(plan.seed)
        optimizer = make_optimizer(plan, model)
        rates = Rates(plan, optimizer, fitting.split.steps(plan.batch_size))
        precision = Precision(plan, model)
        try:
            model.eval()
            watch.look(model, 0, done=0.0)
            for epoch in range(plan.epochs):
                watch.rates.append(rates.now)
                model.train()
                rates.to_train()
                mean, stopped, alone = _epoch(
                    model, plan, smoothed, rates, averaging, precision, rng, epoch, start, crew
                )
                losses.append(mean)
                rates.to_judge(model, plan, fitting)
                with averaging.judged(epoch + 1):
                    why = watch.look(model, epoch + 1, done=1.0 if stopped else (epoch + 1) / plan.epochs)
                stopped = stopped or why
                if stopped:
                    break
                rates.end_epoch(watch.value)
        finally:
            rates.settle(model, fitting)
            if watch.best_state is not None:
                model.load_state_dict(watch.best_state)
            else:
                averaging.settle()
            optimizer.zero_grad(set_to_none=True)
    return TrainingRecord(
        epochs=len(losses),
        seconds=time.perf_counter() - start,
        kept_epoch=watch.kept_epoch(len(losses)),
        losses=tuple(losses),
        scores=tuple(watch.scores),
        stopped=stopped,
        rates=tuple(watch.rates),
        valid_losses=tuple(watch.valid_losses),
        mixed=precision.counts(),
        left_out=f"batches of one row did not train, for BatchNorm's sake: {alone} in an epoch" if alone else "",
    )


def _epoch(
    model: torch.nn.Module,
    plan: TrainingPlan,
    fitting: Fitting,
    rates: Rates,
    averaging: Averaging,
    precision: Precision,
    rng: np.random.Generator,
    epoch: int,
    start: float,
    crew: Crew,
) -> tuple[float, str, int]:
    """Train one pass; return the mean loss, why it stopped early or "", and how many batches of one row it left out."""
    reports = Epoch(fitting.progress, plan.epochs, epoch, fitting.split.steps(plan.batch_size))
    mixing = Mixing.of(plan, epoch)
    total, step, alone = 0.0, 0, 0
    for batch in fitting.split.training_batches(plan.batch_size, rng):
        rates.optimizer.zero_grad(set_to_none=True)
        try:
            loss = step_loss(fitting, crew.called(model), batch, precision, mixing)
        except (NbOptError, NbOptWarning):
            raise
        except Exception as error:
            if crew.alone and batch.rows == 1 and ONE_ROW in str(error):
                alone += 1
                continue
            # Whatever a user's forward raises in training mode.
            raise misfit("train", batch, batch.inputs, error) from error
        step += 1
        if not loss.requires_grad:
            raise ModelError(
                "a loss that depends on the weights", "no gradient for any weight", remedy(NO_GRADIENT, batch)
            )
        if not torch.isfinite(loss):
            finite, half = all_finite(batch), loss.dtype == torch.float16
            raise broken_loss(loss.item(), plan, epoch, step, finite=finite, overflows=half)
        rate, part = rates.now, crew.part(loss, batch)
        if precision.step(part, rates.optimizer):
            rates.step()
        with torch.no_grad():
            for hold in fitting.hold:
                hold(model)
        averaging.after_step()
        total += part.item()
        if fitting.pace:
            fitting.paced(model, min(1.0, reports.done(step) / plan.epochs))
        reports.tell(step, total / step)
        if fitting.each_step is not None and fitting.each_step(loss.item(), rate):
            return total / step, f"ended in step {step} of epoch {epoch + 1}", alone
        if plan.max_seconds is not None and time.perf_counter() - start > plan.max_seconds:
            return total / step, f"max_seconds {plan.max_seconds:g} reached in epoch {epoch + 1}", alone
    if alone and not step:
        raise DataError("train batches that can be learned from", "one row in each", remedy(ONE_ROW, batch))
    return crew.mean(total / max(step, 1)), "", alone


def step_loss(
    fitting: Fitting, model: torch.nn.Module, batch: Batch, precision: Precision, mixing: Mixing | None = None
) -> torch.Tensor:
    """Return the loss of one batch, of its rows mixed where a plan mixes them."""
    target, weight = labels_of(batch, model)
    inputs = tensors(model, batch.inputs)
    mix = None if mixing is None else draw(mixing, inputs)
    inputs = inputs if mix is None else mixed(inputs, mix)
    output = precision.call(model, inputs)
    value = partial(told_loss, fitting.loss, output)
    loss = value(target, weight) if mix is None else mixed_loss(value, target, weight, mix)
    if fitting.teach is None:
        return loss
    blended: torch.Tensor = fitting.teach(
        loss, lambda rows: precision.call(model, tensors(model, rows)), inputs, output, target, weight
    )
    return blended


def loss_on(model: torch.nn.Module, split: Split, fitting: Fitting) -> float:
    """Return the mean loss of a model in evaluation mode over the rows of a split."""
    total = count = 0.0
    with torch.no_grad():
        for batch in split:
            target, weight = labels_of(batch, model)
            loss = told_loss(fitting.loss, call(model, tensors(model, batch.inputs)), target, weight)
            share = batch.rows if weight is None else weight.sum().item()
            total, count = total + share * loss.item(), count + share
    return total / count if count else 0.0


def told_loss(of: Any, output: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
    """Return the loss; labels that it can't take are told with what they are."""
    try:
        loss: torch.Tensor = of(output, target, weight)
    except (NbOptError, NbOptWarning):
        raise
    except Exception as error:
        # A user's loss raises whatever it likes.
        low, high = (target.min().item(), target.max().item()) if target.numel() else (0, 0)
        raise DataError(
            f"train labels that go with an output of shape {tuple(output.shape)}",
            f"labels of shape {tuple(target.shape)}, {target.dtype}, from {low:g} to {high:g}, and the loss raised "
            f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}",
            "number classes from 0, in int64; or pass the loss that your labels go with",
        ) from error
    return loss


def labels_of(batch: Batch, model: torch.nn.Module) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return a batch's labels and row weights, where the model is."""
    if batch.targets is None:
        raise DataError("labels in train", "batches without", "give (x, y), or a dict with 'labels'")
    device = next(model.parameters()).device

    def move(part: Any) -> torch.Tensor:
        return (part if isinstance(part, torch.Tensor) else torch.from_numpy(np.array(to_numpy(part)))).to(device)

    return move(batch.targets), None if batch.weight is None else move(batch.weight).float()
