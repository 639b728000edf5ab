"""Average a torch module's weights while it trains."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from nbopt.frameworks import Fitting
from nbopt.frameworks._averaging import RECALIBRATED_ROWS, Pace
from nbopt.frameworks._torch_module import state_of
from nbopt.frameworks._torch_norms import recalibrate
from nbopt.training import TrainingPlan


class Averaging:
    """Keep the average of a module's weights, and of BatchNorm's statistics with them, where a plan asks for one.

    Not by torch.optim.swa_utils.AveragedModel: it copies the module by deepcopy, which weight norm and hooks of other
    techniques defeat, and masks that must hold would have to hold in a second module. Here values change places.

    Args:
        model: What trains.
        plan: Says which average.
        fitting: Has the masks that must hold, and the rows by which BatchNorm is measured again.
    """

    def __init__(self, model: torch.nn.Module, plan: TrainingPlan, fitting: Fitting) -> None:
        self.model, self.plan, self.fitting, self.pace = model, plan, fitting, Pace(plan)
        if plan.averaging != "none":
            extra = "_extra_state"  # the end of its name; it may be anything, and is as the last step left it
            live = {name: v.detach() for name, v in model.state_dict().items() if not name.endswith(extra)}
            self.state = {name: value.clone() for name, value in live.items()}
            self.pairs = [(self.state[name], value) for name, value in live.items()]

    def after_step(self) -> None:
        """Count the state after a step of the optimizer."""
        self._add(self.pace.after_step())

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
    def judged(self, epoch: int) -> Iterator[None]:
        """Count the state after an epoch, from 1, and put the average in place for a while, where there is one yet."""
        self._add(self.pace.after_epoch(epoch))
        if not self.pace.active:
            yield
            return
        trained = state_of(self.model)
        self.settle()
        try:
            yield
        finally:
            self.model.load_state_dict(trained)

    def settle(self) -> None:
        """Put the average in place for good, where there is one yet.

        BatchNorm's statistics are measured again where states far apart are averaged; a moving average has them.
        """
        if not self.pace.active:
            return
        self.model.load_state_dict({**self.model.state_dict(), **self.state})
        with torch.no_grad():
            for hold in self.fitting.hold:
                hold(self.model)
        if self.plan.averaging == "swa":
            rng = np.random.default_rng(self.plan.seed)
            recalibrate(self.model, self.fitting.split.some(RECALIBRATED_ROWS, self.plan.batch_size, rng))
