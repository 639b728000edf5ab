"""Let the candidates of a Keras model learn from the whole of it, in the one training loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from nbopt.architectures.factors import Factors
from nbopt.architectures.sandwich import Pace, Sandwich
from nbopt.arrays import to_numpy
from nbopt.batches import Batch
from nbopt.frameworks._keras_call import model_arguments
from nbopt.frameworks._keras_teaching import normal_output, soft_loss
from nbopt.frameworks._primary import primary_output
from nbopt.narrowing._keras.naming import names_of
from nbopt.teaching import Teacher

Array = np.ndarray[Any, Any]


class Shared:
    """Compute candidates of a model with its own weights, by Keras's stateless call: statistics stay as they were.

    Args:
        model: The whole model; its blocks all go by weights (`Block.ends`).
        factors: Its candidates.
    """

    def __init__(self, model: Any, factors: Factors) -> None:
        self.model, self.factors = model, factors
        self._names = names_of(model)
        self.keys = list(factors.of)

    def lines(self, shares: Sequence[Array]) -> list[list[Any]]:
        """Return, for each weight in the order of `keys`, the numbers along an axis that it is multiplied with."""
        return [
            [tf.constant(shares[factor.choice] @ factor.lines, tf.float32) for factor in self.factors.of[key]]
            for key in self.keys
        ]

    def call(self, inputs: Any, lines: Sequence[Sequence[Any]]) -> Any:
        """Return the primary output in training mode with weights times lines, with gradients to both."""
        placed = dict(zip(self.keys, lines, strict=True))

        def value(variable: Any) -> Any:
            name = self._names.get(id(variable), "")
            found = variable.value
            for factor, line in zip(self.factors.of.get(name, ()), placed.get(name, ()), strict=True):
                shape = [1] * factor.rank
                if factor.axis is not None:
                    shape[factor.axis] = -1
                found = found * tf.cast(tf.reshape(line, shape), found.dtype)
            return found

        trained = [value(variable) for variable in self.model.trainable_variables]
        others = [value(variable) for variable in self.model.non_trainable_variables]
        result, _ = self.model.stateless_call(trained, others, inputs, training=True)
        return primary_output(result)


class Lessons:
    """Be `Fitting.teach` of a Keras training: candidates of each step learn what the whole model says.

    Each step computes as many candidates, so that it is traced once: what is not open yet is the whole model.

    Args:
        shared: The model and its candidates.
        sandwich: Which candidates each step computes.
        teacher: Kind and axis of the output.
        pace: How much of the training is done.
    """

    def __init__(self, shared: Shared, sandwich: Sandwich, teacher: Teacher, pace: Pace) -> None:
        self.shared, self.sandwich, self.teacher, self.pace = shared, sandwich, teacher, pace

    def lesson(self, inputs: Any) -> dict[str, Any]:
        """Return the candidates of this step, as tensors for the compiled step."""
        drawn = self.sandwich.draw(self.pace.next()).tolist()
        whole = [size - 1 for size in self.sandwich.grid.sizes]
        drawn += [whole] * (self.sandwich.between + 1 - len(drawn))
        factors = self.shared.factors
        return {"inputs": inputs, "lines": [self.shared.lines(factors.one_hot(setting)) for setting in drawn]}

    def call(self, inputs: Any) -> Any:
        """Return the whole model's result in training mode."""
        return self.shared.model(inputs, training=True)

    def blended(self, loss: Any, output: Any, target: Any, weight: Any, lesson: dict[str, Any]) -> Any:
        """Return the loss of the whole model and of the candidates; part of the compiled step."""
        own = weight[0] if isinstance(weight, tuple) else weight
        taught = tf.stop_gradient(normal_output(tf.cast(output, tf.float32), self.teacher))
        for lines in lesson["lines"]:
            candidate = self.shared.call(lesson["inputs"], lines)
            loss = loss + soft_loss(self.teacher, candidate, taught, None, own)
        return loss


def mixture(
    model: Any, factors: Factors, loss: Any, batch: Batch, weights: Sequence[Array]
) -> tuple[float, list[Array]]:
    """Return the loss of a mixture of all options on a batch, and its gradients with respect to the shares."""
    shared = Shared(model, factors)
    shares = [tf.constant(row, tf.float32) for row in weights]
    targets = to_numpy(batch.targets)
    dtype = "float32" if targets.dtype.kind == "f" else "int32" if targets.dtype.kind == "b" else targets.dtype
    heavy = None if batch.weight is None else tf.convert_to_tensor(to_numpy(batch.weight), tf.float32)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(shares)
        lines = [
            [
                tf.linalg.matvec(tf.constant(factor.lines.T, tf.float32), shares[factor.choice])
                for factor in factors.of[key]
            ]
            for key in shared.keys
        ]
        output = shared.call(model_arguments(model, batch.inputs), lines)
        value = tf.cast(loss(output, tf.convert_to_tensor(targets.astype(dtype)), heavy), tf.float32)
    found = tape.gradient(value, shares)
    return float(value), [
        np.zeros(len(row)) if slope is None else np.asarray(keras.ops.convert_to_numpy(slope), np.float64)
        for row, slope in zip(weights, found, strict=True)
    ]
