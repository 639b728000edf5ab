"""Average a torch module's weights while it trains."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from nbopt.data import Batch
from nbopt.frameworks._averaging import Pace
from nbopt.frameworks._torch_module import state_of
from nbopt.frameworks._torch_norms import recalibrate
from nbopt.training import TrainingPlan

Batches = Callable[[], Iterator[Batch]]


class Averaging:
    """Keep the average of a module's weights, and of BatchNorm's statistics with them.

    Not by torch.optim.swa_utils.AveragedModel: it copies the module by deepcopy, which weight norm and hooks of other
    techniques defeat, and masks that must hold would have to hold in a second module. Here values change places.

    Args:
        model: What trains.
        plan: Says which average.
    """

    def __init__(self, model: torch.nn.Module, plan: TrainingPlan) -> None:
        self.pace = Pace(plan)
        self.state = state_of(model)
        live = {name: value.detach() for name, value in model.state_dict().items()}
        self.pairs = [(self.state[name], value) for name, value in live.items()]

    @classmethod
    def of(cls, model: torch.nn.Module, plan: TrainingPlan) -> Averaging | None:
        """Return what averages by a plan, None where it averages nothing."""
        return None if plan.averaging == "none" else cls(model, plan)

    def after_step(self) -> None:
        """Count the state after a step of the optimizer."""
        self._add(self.pace.after_step())

    def after_epoch(self, epoch: int) -> None:
        """Count the state after an epoch, from 1."""
        self._add(self.pace.after_epoch(epoch))

    def _add(self, weight: float) -> None:
        if not weight:
            return
        with torch.no_grad():
            for mean, value in self.pairs:
                if mean.is_floating_point() or mean.is_complex():
                    mean.lerp_(value, weight)
                else:
                    mean.copy_(value)  # a count of batches

    @contextmanager
    def in_place(self, model: torch.nn.Module, batches: Batches) -> Iterator[None]:
        """Put the average in the module's place for a while, where there is one yet."""
        if not self.pace.active:
            yield
            return
        trained = state_of(model)
        self.settle(model, batches)
        try:
            yield
        finally:
            model.load_state_dict(trained)

    def settle(self, model: torch.nn.Module, batches: Batches) -> None:
        """Put the average in the module's place, where there is one yet.

        BatchNorm's statistics are measured again where states of far apart are averaged; a moving average has them.
        """
        if not self.pace.active:
            return
        model.load_state_dict(self.state)
        if self.pace.plan.averaging == "swa":
            recalibrate(model, batches())
