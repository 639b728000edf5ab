"""The optimizer of a plan in torch, and how its learning rate goes."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import lr_scheduler

from nbopt.errors import MissingExtra, ModelError
from nbopt.frameworks import Fitting
from nbopt.frameworks._torch_norms import recalibrate
from nbopt.schedules import ONE_CYCLE_END, ONE_CYCLE_START, one_cycle_share, phases, warmup_start
from nbopt.training import TrainingPlan

SPARED = (nn.Embedding, nn.EmbeddingBag, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.modules.batchnorm._NormBase)
"""Layers none of whose parameters decay."""

REFRESHED_BATCHES = 50
"""Batches by which BatchNorm's statistics are measured again where other weights are judged than were trained."""


def make_optimizer(plan: TrainingPlan, model: nn.Module) -> torch.optim.Optimizer:
    """Return the plan's optimizer over the parameters that train; weight decay spares norms, biases and embeddings.

    Raises:
        ModelError: Nothing in the model trains.
        MissingExtra: The plan is schedule-free, and the package for it is not installed.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ModelError(
            "parameters to train", "none that require gradients", "set requires_grad on some layers, or --epochs 0"
        )
    groups: list[dict[str, Any]] = [{"params": parameters, "weight_decay": 0.0}]
    if plan.weight_decay:
        spared = _spared(model)
        decayed = [p for p in parameters if id(p) not in spared]
        groups = [
            {"params": decayed, "weight_decay": plan.weight_decay},
            {"params": [p for p in parameters if id(p) in spared], "weight_decay": 0.0},
        ]
    groups = [group for group in groups if group["params"]]
    if plan.schedule == "schedule_free":
        return _schedule_free(plan, groups)
    kinds: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "adamw": torch.optim.AdamW,
        # torch's Adam adds the decay to the gradient by default, which is not what a plan says.
        "adam": lambda p, **k: torch.optim.Adam(p, decoupled_weight_decay=True, **k),
        "sgd": lambda p, **k: torch.optim.SGD(p, momentum=0.9, **k),
        "rmsprop": torch.optim.RMSprop,
    }
    return kinds[plan.optimizer](groups, lr=plan.learning_rate)


def _spared(model: nn.Module) -> set[int]:
    """Return the ids of parameters that weight decay only harms: vectors (biases, norms) and tables of embeddings."""
    layers = itertools.chain.from_iterable(
        module.parameters(recurse=False) for module in model.modules() if isinstance(module, SPARED)
    )
    return {id(p) for p in layers} | {id(p) for p in model.parameters() if p.ndim < 2}


def _schedule_free(plan: TrainingPlan, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    try:
        package = importlib.import_module("schedulefree")
    except ImportError as error:
        raise MissingExtra("schedulefree", "schedule", "schedule_free on torch") from error
    if plan.optimizer == "sgd":
        return package.SGDScheduleFree(groups, lr=plan.learning_rate, momentum=0.9)
    return package.AdamWScheduleFree(groups, lr=plan.learning_rate)


class Rates:
    """Move the learning rate of an optimizer as a plan says.

    Args:
        plan: The schedule and its parts.
        optimizer: What `make_optimizer` returned.
        steps: Steps of an epoch, None where the data does not tell: then it moves each epoch.
    """

    def __init__(self, plan: TrainingPlan, optimizer: torch.optim.Optimizer, steps: int | None) -> None:
        self.optimizer = optimizer
        self.total = max(1, plan.epochs * (steps or 1))
        self._each_step, self._count = steps is not None, 0
        self._averages = plan.schedule == "schedule_free"
        if self._averages:
            rising = phases("constant", self.total, warmup=plan.warmup).warmup if steps else 0
            for group in optimizer.param_groups:
                group["warmup_steps"] = rising
        self._curve = None if self._averages else _curve(plan, optimizer, self.total)
        self._plateau = None
        if plan.schedule == "plateau":
            # torch drops after one epoch more than its patience, Keras in it.
            self._plateau = lr_scheduler.ReduceLROnPlateau(
                optimizer, "min", plan.decay, plan.plateau - 1, plan.min_delta, threshold_mode="abs"
            )

    @property
    def now(self) -> float:
        """Return the learning rate of the next step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def step(self) -> None:
        """Move on after a step of the optimizer."""
        if self._each_step:
            self._move()

    def end_epoch(self, value: float | None) -> None:
        """Move on after an epoch; `value` is what "plateau" follows, lower is better."""
        if not self._each_step:
            self._move()
        if self._plateau is not None and value is not None:
            self._plateau.step(value)

    def _move(self) -> None:
        self._count += 1
        # Past the end a cosine rises again, and OneCycleLR raises: a loader may have more batches than it told.
        if self._curve is not None and self._count < self.total:
            self._curve.step()

    def to_train(self) -> None:
        """Give the model the weights that train."""
        if self._averages:
            self.optimizer.train()

    def to_judge(self, model: nn.Module, plan: TrainingPlan, fitting: Fitting) -> None:
        """Give the model the weights that count, and the evaluation mode: of "schedule_free" their average."""
        if self.settle(model, fitting):
            # As the authors of schedule-free advise.
            batches = fitting.split.training_batches(plan.batch_size, np.random.default_rng(plan.seed))
            recalibrate(model, itertools.islice(batches, REFRESHED_BATCHES))

    def settle(self, model: nn.Module, fitting: Fitting) -> bool:
        """Do the same for a training that ends here, whatever ended it; return whether the weights are others now."""
        trained = self._averages and self.optimizer.param_groups[0]["train_mode"]
        if trained:
            self.optimizer.eval()
            with torch.no_grad():
                for hold in fitting.hold:
                    hold(model)
        model.eval()
        return bool(trained)


def _curve(plan: TrainingPlan, optimizer: torch.optim.Optimizer, total: int) -> lr_scheduler.LRScheduler | None:
    """Return torch's scheduler of a plan, None where the rate stays."""
    if plan.schedule == "one_cycle":
        # RMSprop's momentum is 0, and stays so.
        cycled = plan.optimizer != "rmsprop"
        return lr_scheduler.OneCycleLR(
            optimizer,
            plan.learning_rate,
            total_steps=total,
            pct_start=one_cycle_share(total, plan.warmup),
            cycle_momentum=cycled,
            div_factor=ONE_CYCLE_START,
            final_div_factor=ONE_CYCLE_END,
        )
    parts = phases(
        plan.schedule, total, warmup=plan.warmup, cooldown=plan.cooldown, drops=plan.drops, cycles=plan.cycles
    )
    chained: list[tuple[int, Callable[[], lr_scheduler.LRScheduler]]] = []
    if parts.warmup:
        first = warmup_start(parts.warmup)
        rising = parts.warmup
        chained.append((rising, lambda: lr_scheduler.LinearLR(optimizer, first, 1.0, rising)))
    main: dict[str, Callable[[], lr_scheduler.LRScheduler]] = {
        "step": lambda: lr_scheduler.MultiStepLR(optimizer, list(parts.drops), plan.decay),
        "exponential": lambda: lr_scheduler.ExponentialLR(optimizer, plan.decay ** (1 / parts.main)),
        "cosine": lambda: _cosine(plan, optimizer, parts.main, parts.cycle),
    }
    stays = lambda: lr_scheduler.ConstantLR(optimizer, 1.0, total)  # noqa: E731
    if parts.main:
        chained.append((parts.main, main.get(plan.schedule, stays)))
    if parts.cooldown:
        chained.append((parts.cooldown, lambda: lr_scheduler.LinearLR(optimizer, 1.0, 0.0, parts.cooldown)))
    if len(chained) == 1:
        return None if plan.schedule in ("constant", "plateau") and not parts.warmup else chained[0][1]()
    if plan.schedule == "plateau":
        return chained[0][1]()  # after the warm-up the rate is the plateau's to move
    ends = list(itertools.accumulate(length for length, _ in chained))
    return lr_scheduler.SequentialLR(optimizer, [make() for _, make in chained], ends[:-1])


def _cosine(plan: TrainingPlan, optimizer: torch.optim.Optimizer, steps: int, cycle: int) -> lr_scheduler.LRScheduler:
    if plan.cycles > 1:
        return lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=cycle)
    return lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
