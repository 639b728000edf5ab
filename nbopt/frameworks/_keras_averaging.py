"""Average a Keras model's weights while it trains."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from nbopt.data import Batch
from nbopt.frameworks import Framework
from nbopt.frameworks._averaging import Pace
from nbopt.frameworks._keras_norms import recalibrate
from nbopt.training import TrainingPlan

Batches = Callable[[], Iterator[Batch]]


class Averaging:
    """Keep the average of a model's weights, and of BatchNorm's statistics with them.

    Not by `use_ema` of Keras' optimizers: it has no warm-up, so that a short training is judged by where it began, it
    leaves BatchNorm's statistics out, and it knows no mean over epochs.

    Args:
        framework: Copies states.
        model: What trains.
        plan: Says which average.
    """

    def __init__(self, framework: Framework, model: Any, plan: TrainingPlan) -> None:
        self.framework, self.pace = framework, Pace(plan)
        self.pairs = [(tf.Variable(v.value, trainable=False), v) for v in model.variables if "float" in str(v.dtype)]
        self.add = tf.function(self._add, autograph=False)

    @classmethod
    def of(cls, framework: Framework, model: Any, plan: TrainingPlan) -> Averaging | None:
        """Return what averages by a plan, None where it averages nothing."""
        return None if plan.averaging == "none" else cls(framework, model, plan)

    def after_step(self) -> None:
        """Count the state after a step of the optimizer."""
        weight = self.pace.after_step()
        if weight:
            self.add(tf.constant(weight, tf.float32))

    def after_epoch(self, epoch: int) -> None:
        """Count the state after an epoch, from 1."""
        weight = self.pace.after_epoch(epoch)
        if weight:
            self.add(tf.constant(weight, tf.float32))

    def _add(self, weight: Any) -> None:
        for mean, variable in self.pairs:
            mean.assign_add(tf.cast(weight, mean.dtype) * (variable.value - mean))

    @contextmanager
    def in_place(self, model: Any, batches: Batches) -> Iterator[None]:
        """Put the average in the model's place for a while, where there is one yet."""
        if not self.pace.active:
            yield
            return
        trained = self.framework.state(model)
        self.settle(model, batches)
        try:
            yield
        finally:
            self.framework.load_state(model, trained)

    def settle(self, model: Any, batches: Batches) -> None:
        """Put the average in the model's place, where there is one yet; see `_torch_averaging`."""
        if not self.pace.active:
            return
        for mean, variable in self.pairs:
            variable.assign(mean)
        if self.pace.plan.averaging == "swa":
            recalibrate(model, batches())
