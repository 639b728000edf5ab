"""Let a Keras model learn from a teacher, in the one training loop.

Not by `keras.distillation`: its `Distiller` is a model with a training loop of its own (`fit`), so that schedules,
masks, penalties, precision and validation of the one plan would not reach it; its default loss takes probabilities
for logits and leaves the temperature's square out (Keras 3.15); and it knows neither row weights nor padding.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from nbopt.batches import Inputs
from nbopt.errors import ModelError
from nbopt.frameworks._keras_call import model_arguments
from nbopt.frameworks._keras_dialect import is_graph, symbolic
from nbopt.frameworks._keras_losses import IGNORED, TINY
from nbopt.frameworks._primary import primary_output
from nbopt.teaching import NEVER, Teacher
from nbopt.training import TrainingPlan

FAR = 1e4  # what a logit is lowered by to leave its class out


def layer_names(model: Any) -> list[str]:
    """Return the layers whose outputs can be hints: those of a functional or Sequential model, not of one in it.

    Raises:
        ModelError: The model's layers are called by Python code, so that their outputs can't be had.
    """
    if not is_graph(model):
        raise ModelError(
            "a functional or Sequential model, for --hints",
            f"{type(model).__name__}, whose call is Python code",
            "leave --hints out",
        )
    return list(_layer_outputs(model))


class Lessons:
    """Blend the loss of labels with what the teacher says of the same inputs, and of inputs without labels.

    Args:
        plan: Its teacher, and the batch size and seed that unlabelled rows are drawn with.
        model: The student.
    """

    def __init__(self, plan: TrainingPlan, model: Any) -> None:
        assert plan.teacher is not None
        self.teacher, self.model = plan.teacher, model
        self.own = self.theirs = None
        if self.teacher.hints:
            self.own = _with_layers(model, [own for _, own in self.teacher.hints])
            theirs = _with_layers(self.teacher.model, [name for name, _ in self.teacher.hints])
            self.theirs = tf.function(lambda inputs: theirs(inputs, training=False)[1], autograph=False)
        self.features: list[Any] = []
        self.extra = None if self.teacher.extra is None else _without_end(self.teacher, plan)

    @classmethod
    def of(cls, plan: TrainingPlan, model: Any) -> Lessons | None:
        """Return the plan's lessons, None where it has no teacher."""
        return None if plan.teacher is None else cls(plan, model)

    def lesson(self, inputs: Any) -> dict[str, Any]:
        """Return what the teacher says of what the student is about to see, as tensors for the compiled step."""
        found = {"soft": self._outputs(_as_inputs(inputs))}
        if self.theirs is not None:
            for index, feature in enumerate(self.theirs(inputs)):
                found[f"hint{index}"] = feature
        if self.extra is not None:
            rows = next(self.extra)
            found["extra"], found["extra_soft"] = model_arguments(self.model, rows), self._outputs(rows)
        return found

    def _outputs(self, inputs: Inputs) -> Any:
        return tf.convert_to_tensor(np.ascontiguousarray(self.teacher.outputs(inputs)), tf.float32)

    def call(self, inputs: Any) -> Any:
        """Return the student's result in training mode, and keep the outputs of its hint layers."""
        if self.own is None:
            return self.model(inputs, training=True)
        result, self.features = self.own(inputs, training=True)
        return result

    def blended(self, loss: Any, output: Any, target: Any, weight: Any, lesson: dict[str, Any]) -> Any:
        """Return the loss with the teacher's part in it; part of the compiled step."""
        teacher = self.teacher
        # Of mixed rows come the labels of both; the teacher judges the mixed inputs themselves (Beyer et al. 2022,
        # https://arxiv.org/abs/2106.05237).
        own, own_weight = (part[0] if isinstance(part, tuple) else part for part in (target, weight))
        soft = soft_loss(teacher, output, lesson["soft"], own, own_weight)
        if "extra" in lesson:
            there = primary_output(self.model(lesson["extra"], training=True))
            more = soft_loss(teacher, there, lesson["extra_soft"], None, None)
            rows, others = (tf.cast(tf.shape(each)[0], tf.float32) for each in (output, there))
            soft = (rows * soft + others * more) / (rows + others)
        total = (1 - teacher.alpha) * loss + teacher.alpha * soft
        if not teacher.hints:
            return total
        hints = [hint_loss(self.features[i], lesson[f"hint{i}"]) for i in range(len(teacher.hints))]
        return total + teacher.hint_weight * tf.add_n(hints) / len(hints)


def soft_loss(teacher: Teacher, output: Any, taught_now: Any, target: Any, weight: Any) -> Any:
    """Return how far the student's outputs are from the teacher's, with the square of the temperature.

    Args:
        teacher: How it is taught.
        output: The student's output, of `teacher.kind`.
        taught_now: The teacher's, in normal form.
        target: Labels: those of padding are left out, and "decoupled" needs them; None for unlabelled rows.
        weight: Row weights, or None.
    """
    student, t = normal_output(tf.cast(output, tf.float32), teacher), teacher.temperature
    taught_now = tf.reshape(taught_now, tf.shape(student))
    if teacher.family == "values":
        return _mean((student - taught_now) ** 2, weight, None)
    if teacher.family == "labels":
        sure = tf.sigmoid(taught_now / t)
        rows = tf.nn.sigmoid_cross_entropy_with_logits(labels=sure, logits=student / t)
        rows -= tf.nn.sigmoid_cross_entropy_with_logits(labels=sure, logits=taught_now / t)
        return t * t * _mean(rows, weight, None)
    numbers = None
    if target is not None and not target.dtype.is_floating and not _has_classes(target, student):
        numbers = tf.reshape(target, tf.shape(student)[:-1])
    counted = None if numbers is None else numbers != tf.cast(IGNORED, numbers.dtype)
    if teacher.method == "decoupled" and target is not None:
        if numbers is None:
            one_hot = _has_classes(target, student)
            classes = tf.argmax(target, -1) if one_hot else tf.reshape(target, tf.shape(student)[:-1])
        else:
            classes = tf.maximum(numbers, 0)
        rows = _decoupled(student / t, taught_now / t, tf.cast(classes, tf.int32), teacher.beta)
    else:
        rows = _divergence(student / t, taught_now / t)
    return t * t * _mean(rows, weight, counted)


def _has_classes(target: Any, student: Any) -> bool:
    """Tell labels of a column for each class from class numbers."""
    return len(target.shape) == len(student.shape) and target.shape[-1] == student.shape[-1]


def normal_output(output: Any, teacher: Teacher) -> Any:
    """Return the student's output in normal form, with gradients; logits stay logits."""
    if teacher.kind == "probabilities":
        return tf.math.log(tf.maximum(output, TINY))
    if teacher.kind.endswith("_probabilities") and teacher.family == "labels":
        clipped = tf.clip_by_value(output, TINY, 1 - TINY)
        return tf.math.log(clipped) - tf.math.log(1 - clipped)
    return output if teacher.family == "values" else tf.maximum(output, NEVER)


def _divergence(student: Any, taught_now: Any) -> Any:
    """Return KL(teacher || student) over the last axis, from logits."""
    ours, theirs = tf.nn.log_softmax(student), tf.nn.log_softmax(taught_now)
    return tf.reduce_sum(tf.exp(theirs) * (theirs - ours), -1)


def _decoupled(student: Any, taught_now: Any, classes: Any, beta: float) -> Any:
    """Return the divergence on whether it is the label's class, plus `beta` times that among the other classes."""
    own = tf.one_hot(classes, student.shape[-1])

    def whether(logits: Any) -> Any:
        logs = tf.nn.log_softmax(logits)
        return tf.stack([tf.reduce_sum(own * logs, -1), tf.reduce_logsumexp(logs - FAR * own, -1)], -1)

    def others(logits: Any) -> Any:
        return logits - FAR * own

    return _divergence(whether(student), whether(taught_now)) + beta * _divergence(others(student), others(taught_now))


def _mean(rows: Any, weight: Any, counted: Any) -> Any:
    """Return the mean over rows and places, of the places that count, by the rows' weights."""
    counts = tf.ones_like(rows) if counted is None else tf.cast(counted, rows.dtype)
    if weight is not None:
        # A row's weight is shared by its places, as in the loss of labels.
        flat = tf.reshape(counts, [tf.shape(counts)[0], -1])
        shares = flat / tf.maximum(tf.reduce_sum(flat, 1, keepdims=True), 1.0)
        counts = tf.reshape(shares * tf.cast(tf.reshape(weight, [-1, 1]), rows.dtype), tf.shape(rows))
    return tf.reduce_sum(rows * counts) / tf.maximum(tf.reduce_sum(counts), TINY)


def hint_loss(own: Any, theirs: Any) -> Any:
    """Return how far the outputs of two layers are apart.

    Of one shape: the mean square of the difference over that of the teacher's (Romero et al. 2015,
    https://arxiv.org/abs/1412.6550). Of two: how alike the rows of a batch are to each other in the one and in the
    other (Tung & Mori 2019, https://arxiv.org/abs/1907.09682), which needs no extra layer that maps widths.
    """
    same = own.shape[1:] == theirs.shape[1:]
    own, theirs = (tf.reshape(tf.cast(x, tf.float32), [tf.shape(x)[0], -1]) for x in (own, theirs))
    if same:
        return tf.reduce_mean((own - theirs) ** 2) / tf.maximum(tf.reduce_mean(theirs**2), TINY)
    gram_own, gram_theirs = (tf.math.l2_normalize(tf.matmul(x, x, transpose_b=True), 1) for x in (own, theirs))
    return tf.reduce_mean(tf.reduce_sum((gram_own - gram_theirs) ** 2, 1))


def _with_layers(model: Any, names: list[str]) -> Any:
    """Return the model over the same layers, which gives the outputs of some of them beside its own."""
    known = _layer_outputs(model)
    outputs = [known[name] for name in names]
    # Not `model.input`, which a Sequential model has once it was called; and with the structure it is called with.
    inputs, given = symbolic(model, "_inputs_struct"), symbolic(model, "_outputs_struct")
    return keras.Model(inputs, [primary_output(given), outputs])


def _layer_outputs(model: Any) -> dict[str, Any]:
    """Return what each layer gives where the model first calls it.

    Not `layer.output`: that is of the first call of all, which is in another model where layers are shared.
    """
    functional = getattr(model, "_functional", None) or model
    found: dict[str, Any] = {}
    by_depth = getattr(functional, "_nodes_by_depth", {})
    for depth in sorted(by_depth, reverse=True):
        for node in by_depth[depth]:
            if not node.is_input and isinstance(node.operation, keras.Layer):
                found.setdefault(node.operation.name, primary_output(node.outputs))
    return found


def _as_inputs(inputs: Any) -> Inputs:
    """Return what the model is called with, as batches have it."""
    if isinstance(inputs, dict):
        return inputs
    return tuple(inputs) if isinstance(inputs, (list, tuple)) else (inputs,)


def _without_end(teacher: Teacher, plan: TrainingPlan) -> Iterator[Inputs]:
    assert teacher.extra is not None
    rng = np.random.default_rng(plan.seed + 1)
    while True:
        for batch in teacher.extra.training_batches(plan.batch_size, rng):
            yield batch.inputs
