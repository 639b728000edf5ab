"""Train a torch module by a plan: one loop for every technique."""

from __future__ import annotations

import copy
import functools
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from torch.nn import functional

from nbopt.data import Batch, Split, all_finite, classes_second, to_numpy
from nbopt.errors import DataError, ModelError, NbOptWarning
from nbopt.frameworks import Fitting, OutputKind
from nbopt.frameworks._torch_module import call, device_of, state_of, tensors
from nbopt.frameworks._torch_schedules import Rates, make_optimizer
from nbopt.frameworks._watching import Watch
from nbopt.training import Progress, TrainingPlan, TrainingRecord, broken_loss

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]
TINY = 1e-7  # probabilities are clipped to [TINY, 1 - TINY] before their logarithm
IGNORED = -100  # label that losses of sequence models skip, torch's own default


def loss_for(user: Any, kind: OutputKind) -> tuple[Loss, str]:
    """Return `loss(output, target, weight) -> scalar` and its plain name.

    Args:
        user: The user's loss, `loss(output, target)`, or None to infer it.
        kind: What the output means.

    Raises:
        ModelError: The user's loss can't be called.
    """
    if user is not None:
        if not callable(user):
            raise ModelError("loss as a function or module loss(output, target)", f"{user!r}")
        return _weighted(user), f"{_name(user)} (yours)"
    losses: dict[str, tuple[Loss, str]] = {
        "logits": (_cross_entropy, "cross-entropy of logits (inferred)"),
        "probabilities": (_nll_of_probabilities, "cross-entropy of probabilities (inferred)"),
        "log_probabilities": (_nll, "negative log-likelihood (inferred)"),
        "binary_logits": (_binary_logits, "binary cross-entropy of logits (inferred)"),
        "multilabel_logits": (_binary_logits, "binary cross-entropy of logits, a label each (inferred)"),
        "binary_probabilities": (_binary, "binary cross-entropy of probabilities (inferred)"),
        "multilabel_probabilities": (_binary, "binary cross-entropy of probabilities, a label each (inferred)"),
        "regression": (_squared, "mean squared error (inferred)"),
    }
    return losses[kind]


def _mean(rows: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
    if weight is None:
        return rows.mean()
    rows = rows.reshape(len(rows), -1).mean(1) if rows.ndim > 1 else rows
    return (rows * weight).sum() / weight.sum().clamp_min(TINY)


def _classes_last(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return outputs with their classes in the last axis: (rows, classes, height, width) has them in the second."""
    return output.movedim(1, -1) if classes_second(tuple(output.shape), tuple(target.shape)) else output


def _class_rows(log_probabilities: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
    """Return the mean negative log-likelihood for class labels (any leading axes) or one-hot labels."""
    classes = log_probabilities.shape[-1]
    if target.shape == log_probabilities.shape:
        return _mean(-(target * log_probabilities).sum(-1), weight)
    flat_target = target.reshape(-1).long()
    rows = functional.nll_loss(
        log_probabilities.reshape(-1, classes), flat_target, reduction="none", ignore_index=IGNORED
    )
    if weight is None:
        return rows.sum() / (flat_target != IGNORED).sum().clamp_min(1)
    return _mean(rows.reshape(len(target), -1).mean(1), weight)


def _cross_entropy(output: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
    return _class_rows(functional.log_softmax(_classes_last(output, target), -1), target, weight)


def _nll(output: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
    return _class_rows(_classes_last(output, target), target, weight)


def _nll_of_probabilities(output: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
    return _class_rows(_classes_last(output, target).clamp_min(TINY).log(), target, weight)


def _binary_logits(output: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
    target = target.reshape(output.shape).to(output.dtype)
    return _mean(functional.binary_cross_entropy_with_logits(output, target, reduction="none"), weight)


def _binary(output: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
    target = target.reshape(output.shape).to(output.dtype)
    return _mean(functional.binary_cross_entropy(output.clamp(TINY, 1 - TINY), target, reduction="none"), weight)


def _squared(output: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
    rows = (output - target.reshape(output.shape).to(output.dtype)) ** 2
    return _mean(rows, weight)


def _weighted(user: Callable[..., torch.Tensor]) -> Loss:
    """Adapt a user's loss(output, target), so that row weights apply.

    torch's own losses are asked for a value a row; another one must return that by itself.
    """

    def loss(output: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
        output, target = _suited(user, output, target)
        value = (user if weight is None else _by_rows(user))(output, target)
        if value.ndim:
            return _mean(value, weight)
        if weight is not None:
            warnings.warn(
                f"{_name(user)} returns one number a batch, so the row weights of train do not reach it; "
                "let it return a value a row",
                NbOptWarning,
                stacklevel=2,
            )
        return value

    return loss


def _name(user: Any) -> str:
    return str(getattr(user, "__name__", type(user).__name__))


def _by_rows(user: Any) -> Callable[..., torch.Tensor]:
    """Return torch's own loss without its reduction; another one as it is."""
    if getattr(user, "reduction", None) == "mean":
        apart = copy.copy(user)
        apart.reduction = "none"
        return cast("Callable[..., torch.Tensor]", apart)
    own = getattr(user, "__module__", "") == functional.__name__
    return functools.partial(user, reduction="none") if own else user


def _suited(user: Any, output: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Bring outputs and labels to the dtype and shape that torch's own losses insist on."""
    if _name(user) in ("CrossEntropyLoss", "NLLLoss", "cross_entropy", "nll_loss"):
        if target.shape == output.shape:
            return output, target
        if output.ndim == 2 and target.shape == (len(output), 1):
            target = target[:, 0]
        tokens = output.ndim > 2 and target.shape == output.shape[:-1]
        # These losses take (rows, classes, tokens); a model of tokens gives (rows, tokens, classes).
        return output.movedim(-1, 1) if tokens else output, target.long()
    if target.numel() == output.numel():
        return output, target.reshape(output.shape).to(output.dtype)
    return output, target


@contextmanager
def seeded(seed: int, device: str) -> Iterator[None]:
    """Seed torch for a training, and give the user's random state back afterwards."""
    devices = [torch.device(device)] if device.startswith("cuda") else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def fit(model: torch.nn.Module, plan: TrainingPlan, fitting: Fitting) -> TrainingRecord:
    """Train `model` in place; on return, and on interrupt, it has the best state so far and is in evaluation mode.

    Raises:
        DataError: The training data has no labels, or the loss is not finite from the first step.
        TrainingError: The loss became NaN or infinite.
    """
    start = time.perf_counter()
    watch = Watch(plan, fitting, lambda: state_of(model), lambda split: loss_on(model, split, fitting))
    losses: list[float] = []
    stopped = ""
    with seeded(plan.seed, device_of(model)):
        rng = np.random.default_rng(plan.seed)
        optimizer = make_optimizer(plan, model)
        rates = Rates(plan, optimizer, fitting.split.steps(plan.batch_size))
        try:
            model.eval()
            watch.look(model, 0, done=0.0)
            for epoch in range(plan.epochs):
                watch.rates.append(rates.now)
                model.train()
                rates.to_train()
                mean, stopped = _epoch(model, plan, fitting, rates, rng, epoch, start)
                losses.append(mean)
                rates.to_judge(model, plan, fitting)
                why = watch.look(model, epoch + 1, done=1.0 if stopped else (epoch + 1) / plan.epochs)
                stopped = stopped or why
                if stopped:
                    break
                rates.end_epoch(watch.value)
        finally:
            rates.settle(model, fitting)
            if watch.best_state is not None:
                model.load_state_dict(watch.best_state)
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
    )


def _epoch(
    model: torch.nn.Module,
    plan: TrainingPlan,
    fitting: Fitting,
    rates: Rates,
    rng: np.random.Generator,
    epoch: int,
    start: float,
) -> tuple[float, str]:
    """Train one pass; return the mean loss, and why it stopped early or ""."""
    steps = fitting.split.steps(plan.batch_size)
    total = 0.0
    step = 0
    for step, batch in enumerate(fitting.split.training_batches(plan.batch_size, rng), start=1):
        target, weight = _labels(batch, model)
        rates.optimizer.zero_grad(set_to_none=True)
        loss = _loss(fitting, call(model, tensors(model, batch.inputs)), target, weight)
        if not torch.isfinite(loss):
            finite, half = all_finite(batch), loss.dtype == torch.float16
            raise broken_loss(loss.item(), plan, epoch, step, finite=finite, overflows=half)
        loss.backward()
        rate = rates.now
        rates.optimizer.step()
        rates.step()
        with torch.no_grad():
            for hold in fitting.hold:
                hold(model)
        total += loss.item()
        done = epoch + (step / steps if steps else 0.0)
        if fitting.pace:
            fitting.paced(model, min(1.0, done / plan.epochs))
        fitting.progress(Progress("training", done, plan.epochs, f"loss {total / step:.4f}"))
        if fitting.each_step is not None and fitting.each_step(loss.item(), rate):
            return total / step, f"ended in step {step} of epoch {epoch + 1}"
        if plan.max_seconds is not None and time.perf_counter() - start > plan.max_seconds:
            return total / step, f"max_seconds {plan.max_seconds:g} reached in epoch {epoch + 1}"
    return total / max(step, 1), ""


def loss_on(model: torch.nn.Module, split: Split, fitting: Fitting) -> float:
    """Return the mean loss of a model in evaluation mode over the rows of a split."""
    total = count = 0.0
    with torch.no_grad():
        for batch in split:
            target, weight = _labels(batch, model)
            loss = _loss(fitting, call(model, tensors(model, batch.inputs)), target, weight)
            share = batch.rows if weight is None else weight.sum().item()
            total, count = total + share * loss.item(), count + share
    return total / count if count else 0.0


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
