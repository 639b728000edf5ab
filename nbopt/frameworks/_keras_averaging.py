"""Average a Keras model's weights while it trains."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf

from nbopt.frameworks import Fitting, Framework
from nbopt.frameworks._averaging import RECALIBRATED_ROWS, Pace
from nbopt.frameworks._keras_dialect import name_of, raw
from nbopt.frameworks._keras_norms import recalibrate
from nbopt.training import TrainingPlan

MASKS = ("mask", "threshold")
"""Variables of TF-MOT's pruning wrappers, whose mean is no mask."""


class Averaging:
    """Keep the average of a model's weights, and of BatchNorm's statistics with them, where a plan asks for one.

    Not by `use_ema` of Keras' optimizers: it has no warm-up, so that a short training is judged by where it began, it
    leaves BatchNorm's statistics out, and it knows no mean over epochs.

    Args:
        framework: Copies states.
        model: What trains.
        plan: Says which average.
        fitting: Has the masks that must hold, and the rows by which BatchNorm is measured again.
    """

    def __init__(self, framework: Framework, model: Any, plan: TrainingPlan, fitting: Fitting) -> None:
        self.framework, self.model, self.plan, self.fitting = framework, model, plan, fitting
        self.pace = Pace(plan)
        self.pairs: list[tuple[Any, Any]] = []
        if plan.averaging != "none":
            floats = [v for v in model.variables if "float" in str(v.dtype) and name_of(v) not in MASKS]
            self.pairs = [(tf.Variable(raw(v), trainable=False), v) for v in floats]
        self.add = tf.function(self._add, autograph=False)

    def after_step(self) -> None:
        """Count the state after a step of the optimizer."""
        weight = self.pace.after_step()
        if weight:
            self.add(tf.constant(weight, tf.float32))

    def _add(self, weight: Any) -> None:
        for mean, variable in self.pairs:
            mean.assign_add(tf.cast(weight, mean.dtype) * (raw(variable) - mean))

    @contextmanager
    def judged(self, epoch: int) -> Iterator[None]:
        """Count the state after an epoch, from 1, and put the average in place for a while, where there is one yet."""
        weight = self.pace.after_epoch(epoch)
        if weight:
            self.add(tf.constant(weight, tf.float32))
        if not self.pace.active:
            yield
            return
        trained = self.framework.state(self.model)
        self.settle()
        try:
            yield
        finally:
            self.framework.load_state(self.model, trained)

    def settle(self) -> None:
        """Put the average in place for good, where there is one yet; see `_torch_averaging`."""
        if not self.pace.active:
            return
        for mean, variable in self.pairs:
            variable.assign(mean)
        for hold in self.fitting.hold:
            hold(self.model)
        if self.plan.averaging == "swa":
            rng = np.random.default_rng(self.plan.seed)
            recalibrate(self.model, self.fitting.split.some(RECALIBRATED_ROWS, self.plan.batch_size, rng))
