"""Train a Keras model by a plan: one loop for every technique."""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np
import tensorflow as tf

from nbopt.arrays import to_numpy
from nbopt.batches import Batch, all_finite
from nbopt.data import Split
from nbopt.errors import DataError, ModelError, NbOptError, NbOptWarning
from nbopt.frameworks import Fitting, Framework, trained_on
from nbopt.frameworks._keras_averaging import Averaging
from nbopt.frameworks._keras_call import model_arguments
from nbopt.frameworks._keras_dialect import generators_of, keras_of, layers_of, symbolic
from nbopt.frameworks._keras_fused import fused_norms
from nbopt.frameworks._keras_mixing import mixed, mixed_loss
from nbopt.frameworks._keras_precision import Precision
from nbopt.frameworks._keras_schedules import Rates, make_optimizer
from nbopt.frameworks._keras_teaching import Lessons
from nbopt.frameworks._mixing import Mixing
from nbopt.frameworks._primary import primary_output
from nbopt.frameworks._watching import Watch
from nbopt.misfits import misfit
from nbopt.progress import Epoch
from nbopt.training import TrainingPlan, TrainingRecord, broken_loss


def seed_layers(model: Any, seed: int) -> None:
    """Set every random layer's own generator from `seed`, so that a training repeats.

    Keras' and TensorFlow's global seeds stay as they are; a layer that draws from those (a `tf.random` call in
    a user's `call`) is not seeded.
    """
    seen: set[int] = set()
    for layer in (model, *layers_of(model)):
        for state in generators_of(layer):
            if id(state) not in seen:
                # Of Keras 3 two numbers; of tf_keras those of a tf.random.Generator, by algorithm two or more.
                state.assign([seed & 0x7FFFFFFF, len(seen)] + [0] * (state.shape[0] - 2))
                seen.add(id(state))


def fit(framework: Framework, model: Any, plan: TrainingPlan, fitting: Fitting) -> TrainingRecord:
    """Train `model` in place; on return, and on interrupt, it has the best state so far.

    Raises:
        DataError: The training data has no labels, labels out of range, or the loss is not finite from the first step.
        TrainingError: The loss became NaN or infinite.
        ModelError: Nothing in the model trains.
    """
    start = time.perf_counter()
    losses: list[float] = []
    base = keras_of(model).Model
    own = [name for name in ("train_step", "compute_loss") if getattr(type(model), name) is not getattr(base, name)]
    if own:
        warnings.warn(
            f"{type(model).__name__} has a {' and a '.join(own)} of its own, which nbopt does not call: it trains on "
            "the loss",
            NbOptWarning,
            stacklevel=2,
        )
    stopped = ""
    rng = np.random.default_rng(plan.seed)
    seed_layers(model, plan.seed)
    averaging = Averaging(framework, model, plan, fitting)
    loop = Loop(model, plan, fitting, start, averaging)
    watch = Watch(plan, fitting, lambda: framework.state(model), loop.loss_on)
    try:
        watch.look(model, 0, done=0.0)
        for epoch in range(plan.epochs):
            loop.rates.begin_epoch(epoch)
            watch.rates.append(loop.rates.now)
            mean, stopped = loop.epoch(epoch, rng)
            losses.append(mean)
            loop.rates.to_judge(fitting)
            with averaging.judged(epoch + 1):
                why = watch.look(model, epoch + 1, done=1.0 if stopped else (epoch + 1) / plan.epochs)
            stopped = stopped or why
            if stopped:
                break
            loop.rates.end_epoch(epoch, watch.value)
    finally:
        loop.rates.settle(fitting)
        if watch.best_state is not None:
            framework.load_state(model, watch.best_state)
        else:
            averaging.settle()
    return TrainingRecord(
        epochs=len(losses),
        seconds=time.perf_counter() - start,
        kept_epoch=watch.kept_epoch(len(losses)),
        losses=tuple(losses),
        scores=tuple(watch.scores),
        stopped=stopped,
        rates=tuple(watch.rates),
        valid_losses=tuple(watch.valid_losses),
        mixed=loop.precision.counts(),
    )


class Loop:
    """Hold the compiled training step of one training."""

    def __init__(
        self, model: Any, plan: TrainingPlan, fitting: Fitting, start: float, averaging: Averaging | None = None
    ) -> None:
        self.model, self.plan, self.fitting, self.start = model, plan, fitting, start
        self.averaging, self.mixing = averaging, Mixing.of(plan)
        self.loss = trained_on(fitting, plan).loss
        if self.mixing is not None:
            self.loss = mixed_loss(self.loss)
        self.steps = fitting.split.steps(plan.batch_size)
        self.optimizer = make_optimizer(plan, model, self.steps)
        self.rates = Rates(plan, model, self.optimizer, self.steps)
        self.variables = model.trainable_variables
        self.precision = Precision(plan)
        self.lessons: Any = Lessons.of(plan, model) if fitting.teach is None else fitting.teach
        # One trace serves full batches and the last, shorter one.
        self.step = tf.function(self._step, autograph=False, reduce_retracing=True)
        self.traced = False
        # The loss is traced with the model: what an output masks is known in there alone.
        self._judged = tf.function(
            lambda inputs, target, weight: fitting.loss(primary_output(model(inputs, training=False)), target, weight),
            autograph=False,
            reduce_retracing=True,
        )

    def _step(self, inputs: Any, target: Any, weight: Any, lesson: Any = None) -> Any:
        with fused_norms(self.model), self.precision.traced(self.model), tf.GradientTape() as tape:
            given = self.model(inputs, training=True) if self.lessons is None else self.lessons.call(inputs)
            output = self.precision.output(primary_output(given))
            loss = tf.cast(self.loss(output, target, weight), tf.float32)
            if self.lessons is not None:
                loss = self.lessons.blended(loss, output, target, weight, lesson)
            # Weight penalties and activity regularizers of the user's layers.
            total = loss + tf.add_n([tf.cast(extra, tf.float32) for extra in self.model.losses] or [0.0])
            scaled = self.precision.scaled(self.optimizer, total)
        gradients = tape.gradient(scaled, self.variables)
        pairs = [(g, v) for g, v in zip(gradients, self.variables, strict=True) if g is not None]
        if not pairs:
            raise ModelError("a loss that depends on the weights", "no gradient for any weight")
        self.precision.apply(self.optimizer, pairs)
        return total

    def epoch(self, epoch: int, rng: np.random.Generator) -> tuple[float, str]:
        """Train one pass; return the mean loss, and why it stopped early or ""."""
        fitting, plan = self.fitting, self.plan
        reports = Epoch(fitting.progress, plan.epochs, epoch, self.steps)
        self.mixing = Mixing.of(plan, epoch)
        total = 0.0
        step = 0
        for step, batch in enumerate(fitting.split.training_batches(plan.batch_size, rng), start=1):
            rate = self.rates.now if fitting.each_step is not None else 0.0
            try:
                loss = self.one(batch)
            except (NbOptError, NbOptWarning):
                raise
            except Exception as error:
                # Whatever a user's call, or loss, raises in training.
                raise misfit("train", batch, batch.inputs, error, "the model or its loss") from error
            if not np.isfinite(loss):
                raise broken_loss(loss, plan, epoch, step, finite=all_finite(batch))
            self.rates.step()
            for hold in fitting.hold:
                hold(self.model)
            if self.averaging is not None:
                self.averaging.after_step()
            total += loss
            if fitting.pace:
                fitting.paced(self.model, min(1.0, reports.done(step) / plan.epochs))
            reports.tell(step, total / step)
            if fitting.each_step is not None and fitting.each_step(loss, rate):
                return total / step, f"ended in step {step} of epoch {epoch + 1}"
            if plan.max_seconds is not None and time.perf_counter() - self.start > plan.max_seconds:
                return total / step, f"max_seconds {plan.max_seconds:g} reached in epoch {epoch + 1}"
        return total / max(step, 1), ""

    def one(self, batch: Batch) -> float:
        """Make one step; return its loss.

        Raises:
            DataError: Labels or class numbers that the model has no place for, or inputs that can't be mixed.
            TrainingError: In half precision, the gradients of too many steps in a row were not finite.
        """
        arguments: tuple[Any, ...] = self._arguments(batch)
        if self.mixing is not None:
            arguments = mixed(self.mixing, *arguments)
        if self.lessons is not None:
            arguments = (*arguments, self.lessons.lesson(arguments[0]))
        if not self.traced:
            self.step.get_concrete_function(*tf.nest.map_structure(_any_rows, arguments))
            self.traced = True
        try:
            loss = float(self.step(*arguments))
        except tf.errors.InvalidArgumentError as error:
            # TensorFlow looked up a row by number, of an Embedding or of the output, that is not there.
            reason = next((x for x in str(error).splitlines() if "indices" in x or "label" in x), "")
            if not reason:
                raise
            raise DataError(
                "labels and class numbers that the model has a place for", reason.strip()[:200], "check train"
            ) from error
        self.precision.stepped()
        return loss

    def loss_on(self, split: Split) -> float:
        """Return the mean loss over the rows of a split, in evaluation mode and without penalties."""
        total = count = 0.0
        for batch in split:
            inputs, target, weight = self._arguments(batch)
            loss = float(self._judged(inputs, target, weight))
            share = batch.rows if weight is None else float(tf.reduce_sum(weight))
            total, count = total + share * loss, count + share
        return total / count if count else 0.0

    def _arguments(self, batch: Batch) -> tuple[Any, Any, Any]:
        if batch.targets is None:
            raise DataError("labels in train", "batches without", "give (x, y), or a dict with 'labels'")
        targets = to_numpy(batch.targets)
        self._check_labels(targets)
        dtype = "float32" if targets.dtype.kind == "f" else "int32" if targets.dtype.kind == "b" else targets.dtype
        weight = None if batch.weight is None else tf.convert_to_tensor(to_numpy(batch.weight), tf.float32)
        return model_arguments(self.model, batch.inputs), tf.convert_to_tensor(targets.astype(dtype)), weight

    def _check_labels(self, targets: np.ndarray[Any, Any]) -> None:
        """Name a class number that the output has no column for; TensorFlow would train on zeros or NaN."""
        structure = symbolic(self.model, "_outputs_struct")
        shape = () if structure is None else tuple(primary_output(structure).shape)
        if len(shape) != targets.ndim + 1 or targets.dtype.kind not in "iu":
            return
        classes = shape[-1]
        bad = targets[(targets >= classes) | ((targets < 0) & (targets != -100))] if classes and classes > 1 else []
        if len(bad):
            raise DataError(
                f"labels from 0 to {classes - 1}, one for each of the {classes} outputs",
                f"{bad[0]} in train",
                "number the classes from 0, or give the model an output for each",
            )


def _any_rows(tensor: Any) -> Any:
    return None if tensor is None else tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype)
