"""The optimizer of a plan in Keras, and how its learning rate goes."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import tensorflow as tf

from nbopt.errors import ModelError, OptionError
from nbopt.frameworks import Fitting
from nbopt.frameworks._keras_dialect import is_legacy, keras_of, layers_of, name_of, policy_of
from nbopt.frameworks._keras_norms import recalibrate
from nbopt.schedules import ONE_CYCLE_END, ONE_CYCLE_START, one_cycle_ends, phases, warmup_start
from nbopt.training import TrainingPlan

SPARED_NAMES = ("bias", "gamma", "beta", "scale", "embedding")

REFRESHED_BATCHES = 50
"""Batches by which BatchNorm's statistics are measured again where other weights are judged than were trained."""


def make_optimizer(plan: TrainingPlan, model: Any, steps: int | None = None) -> Any:
    """Return the plan's optimizer, built over the variables that train.

    Weight decay is decoupled and spares biases, norms and embeddings, which only lose by it.

    Raises:
        ModelError: Nothing in the model trains.
    """
    variables = model.trainable_variables
    if not variables:
        raise ModelError("weights to train", "none that are trainable", "set layer.trainable = True on some layers")
    keras = keras_of(model)
    optimizers = {
        "adamw": keras.optimizers.AdamW,
        "adam": keras.optimizers.Adam,
        "sgd": lambda **k: keras.optimizers.SGD(momentum=0.9, **k),
        "rmsprop": keras.optimizers.RMSprop,
    }
    # AdamW insists on a number, and the others would subtract zero from each weight in each step.
    decay = plan.weight_decay if plan.weight_decay or plan.optimizer == "adamw" else None
    if plan.schedule == "schedule_free":
        optimizer = _schedule_free(plan, keras, steps)
    else:
        curve = curve_of(plan, keras, plan.epochs * steps) if steps is not None and plan.schedule != "plateau" else None
        optimizer = optimizers[plan.optimizer](learning_rate=curve or plan.learning_rate, weight_decay=decay)
    if plan.weight_decay:
        spared = [v for v in variables if len(v.shape) < 2 or name_of(v).startswith(SPARED_NAMES)]
        if spared:
            optimizer.exclude_from_weight_decay(var_list=spared)
    mixed = any(policy_of(layer).name == "mixed_float16" for layer in (model, *layers_of(model)))
    if mixed or plan.precision == "float16":
        if is_legacy(model):
            raise ModelError(
                "a tf_keras model that computes in float32 or bfloat16, to train it",
                "layers under mixed_float16, whose loss must be scaled",
                "set_global_policy('float32') before it is built, and copy the weights",
            )
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(variables)
    return optimizer


def joined(keras: Any, parts: list[tuple[float, Any]]) -> Any:
    """Return a schedule in which others follow each other, as torch's SequentialLR does; Keras has none such.

    Args:
        keras: The module, keras or tf_keras, whose optimizers know it for a schedule.
        parts: The first step of each schedule, and the schedule, which counts from there.
    """

    class Joined(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step: Any) -> Any:
            step = tf.cast(step, tf.float32)
            rate = parts[0][1](step)
            for start, schedule in parts[1:]:
                rate = tf.where(step >= start, schedule(tf.maximum(step - start, 0.0)), rate)
            return rate

    return Joined()


def curve_of(plan: TrainingPlan, keras: Any, total: int) -> Any:
    """Return a schedule of Keras, or of tf_keras, for a plan over so many steps, None where the rate stays."""
    rate, schedules = plan.learning_rate, keras.optimizers.schedules
    if plan.schedule == "one_cycle":
        rise, fall = one_cycle_ends(max(1, total), plan.warmup)
        low = rate / ONE_CYCLE_START
        down = schedules.CosineDecay(rate, fall, alpha=1 / (ONE_CYCLE_START * ONE_CYCLE_END))
        # A cosine that "decays" to 25 times its start rises.
        up = schedules.CosineDecay(low, rise, alpha=ONE_CYCLE_START) if rise > 0 else None
        return joined(keras, [(0.0, up), (rise, down)]) if up is not None else down
    parts = phases(
        plan.schedule, total, warmup=plan.warmup, cooldown=plan.cooldown, drops=plan.drops, cycles=plan.cycles
    )
    if plan.schedule in ("constant", "plateau", "schedule_free") and not parts.warmup:
        return None
    chained: list[tuple[float, Any]] = []
    if parts.warmup:
        chained.append((0.0, schedules.PolynomialDecay(rate * warmup_start(parts.warmup), parts.warmup, rate)))
    if parts.main:
        chained.append((float(parts.warmup), _main(plan, schedules, parts.main, parts.cycle, parts.drops)))
    if parts.cooldown:
        start = float(parts.warmup + parts.main)
        chained.append((start, schedules.PolynomialDecay(rate, parts.cooldown, 0.0)))
    return chained[0][1] if len(chained) == 1 else joined(keras, chained)


def _main(plan: TrainingPlan, schedules: Any, steps: int, cycle: int, drops: tuple[int, ...]) -> Any:
    rate = plan.learning_rate
    if plan.schedule == "cosine" and plan.cycles > 1:
        return schedules.CosineDecayRestarts(rate, cycle, t_mul=1.0)
    if plan.schedule == "cosine":
        return schedules.CosineDecay(rate, steps)
    if plan.schedule == "exponential":
        return schedules.ExponentialDecay(rate, steps, plan.decay)
    if plan.schedule == "step":
        # Keras counts a boundary to the piece before it.
        values = [rate * plan.decay**index for index in range(len(drops) + 1)]
        return schedules.PiecewiseConstantDecay([float(drop) - 0.5 for drop in drops], values)
    return schedules.PolynomialDecay(rate, steps, rate)  # it stays


def _schedule_free(plan: TrainingPlan, keras: Any, steps: int | None) -> Any:
    if plan.optimizer not in ("adamw", "adam"):
        raise OptionError("adamw or adam for schedule_free in Keras", plan.optimizer, "--optimizer adamw")
    kind = getattr(keras.optimizers, "ScheduleFreeAdamW", None)
    if kind is None:
        raise ModelError("Keras 3.15 for schedule_free", f"{keras.__name__} {keras.__version__}", "--schedule cosine")

    class ScheduleFree(kind):  # type: ignore[misc, valid-type]
        """Decay the weights that steps are made on.

        Keras 3.15.1 decays the interpolation alone, from which it then takes the average: steps never see the decay.
        """

        def _apply_weight_decay(self, variables: Any) -> None:
            for variable in variables if self.weight_decay else ():
                if self._use_weight_decay(variable):
                    base = self._momentums[self._get_variable_index(variable)]
                    lost = base * self.learning_rate * self.weight_decay
                    base.assign_sub(lost)
                    variable.assign_sub((1 - self.beta_1) * lost)

    rising = phases("constant", plan.epochs * steps, warmup=plan.warmup).warmup if steps else 0
    return ScheduleFree(learning_rate=plan.learning_rate, warmup_steps=rising, weight_decay=plan.weight_decay or None)


class Rates:
    """Move the learning rate of an optimizer as a plan says, beside what its own schedule does.

    Args:
        plan: The schedule and its parts.
        model: What trains.
        optimizer: What `make_optimizer` returned.
        steps: Steps of an epoch, None where the data does not tell: then the rate moves each epoch.
    """

    def __init__(self, plan: TrainingPlan, model: Any, optimizer: Any, steps: int | None) -> None:
        self.plan, self.model, self.optimizer = plan, model, optimizer
        keras = keras_of(model)
        self._inner = getattr(optimizer, "inner_optimizer", optimizer)
        self._epochs = (
            curve_of(plan, keras, plan.epochs) if steps is None and plan.schedule != "schedule_free" else None
        )
        self._trained: list[Any] | None = None
        self._plateau, self._rising, self._count = None, 0, 0
        if plan.schedule == "plateau":
            self._plateau = keras.callbacks.ReduceLROnPlateau(
                "value", plan.decay, plan.plateau, mode="min", min_delta=plan.min_delta
            )
            self._plateau.set_model(SimpleNamespace(optimizer=self._inner))
            self._plateau.on_train_begin()
            total = plan.epochs * (steps or 1)
            # Its rate is a variable, which a warm-up has to be written into.
            self._rising = phases("plateau", total, warmup=plan.warmup).warmup if steps is not None else 0
            self._warmup = curve_of(plan, keras, total)
            self._warm()

    @property
    def now(self) -> float:
        """Return the learning rate of the next step."""
        return float(tf.convert_to_tensor(self._inner.learning_rate))

    def begin_epoch(self, epoch: int) -> None:
        """Set the rate of an epoch, where it moves by epochs; give the model the weights that train."""
        if self._epochs is not None and (self._plateau is None or epoch == 0 or self._is_rising(epoch)):
            self._inner.learning_rate = float(self._epochs(epoch))
        if self._trained is not None:
            for variable, value in zip(self._inner._trainable_variables, self._trained, strict=True):
                variable.assign(value)
            self._trained = None

    def _is_rising(self, epoch: int) -> bool:
        return epoch <= phases("plateau", self.plan.epochs, warmup=self.plan.warmup).warmup

    def step(self) -> None:
        """Move on after a step of the optimizer."""
        self._count += 1
        self._warm()

    def _warm(self) -> None:
        if self._rising and self._count <= self._rising:
            self._inner.learning_rate = float(self._warmup(self._count))

    def end_epoch(self, epoch: int, value: float | None) -> None:
        """Move on after an epoch; `value` is what "plateau" follows, lower is better."""
        if self._plateau is not None and value is not None:
            self._plateau.on_epoch_end(epoch, {"value": value})

    def to_judge(self, fitting: Fitting) -> None:
        """Give the model the weights that count: of "schedule_free" their average, and its BatchNorm."""
        if self.settle(fitting):
            batches = fitting.split.training_batches(self.plan.batch_size, np.random.default_rng(self.plan.seed))
            recalibrate(self.model, itertools.islice(batches, REFRESHED_BATCHES))

    def settle(self, fitting: Fitting) -> bool:
        """Do the same for a training that ends here, whatever ended it; return whether the weights are others now."""
        if self.plan.schedule != "schedule_free" or self._trained is not None or not self._inner.built:
            return False
        variables, beta = self._inner._trainable_variables, self._inner.beta_1
        self._trained = [tf.identity(variable.value) for variable in variables]
        # Keras 3.15.1 keeps the average only within the weights that train: y = (1 - beta) z + beta x.
        for variable, base in zip(variables, self._inner._momentums, strict=True):
            if base is not None:
                variable.assign((variable.value - (1 - beta) * base.value) / beta)
        for hold in fitting.hold:
            hold(self.model)
        return True
