"""Simple students in Keras."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from nbopt.techniques._distill.simple import CHANNELS, DROPOUT, EMBEDDED, GAIN, HIDDEN, STARTED, Column, Design


def build(design: Design, seed: int) -> Any:
    """Return an untrained functional model of a design; Keras' own random state stays as it is."""
    inputs = [keras.Input(column.shape, dtype=column.dtype, name=column.name) for column in design.columns]
    maker = _Maker(design, inputs, seed)
    units = int(np.prod(design.outputs)) if not design.places else int(design.outputs[-1])
    out = layers.Dense(units, kernel_initializer=maker.glorot(), name="head")(maker.hidden(units))
    if not design.places and design.outputs != (units,):
        out = layers.Reshape(design.outputs)(out)
    if design.kind == "regression":
        out = layers.Rescaling(_plain(design.scale), _plain(design.shift))(out)
    activation = {"probabilities": "softmax", "log_probabilities": "log_softmax"}.get(design.kind)
    if activation is None and design.kind.endswith("_probabilities"):
        activation = "sigmoid"
    if activation is not None:
        out = layers.Activation(activation)(out)
    if design.keyed:
        given: Any = {column.name: tensor for column, tensor in zip(design.columns, inputs, strict=True)}
    else:
        given = inputs[0] if len(inputs) == 1 else inputs
    return keras.Model(given, out, name=f"simple_{design.word}")


def _plain(value: Any) -> Any:
    """Return a number or a list, which a model's configuration can hold."""
    return np.asarray(value, np.float32).tolist()


class _Maker:
    """Make the hidden part of a student.

    Args:
        design: What it is.
        inputs: Its symbolic inputs.
        seed: Of every weight and of Dropout.
    """

    def __init__(self, design: Design, inputs: list[Any], seed: int) -> None:
        self.design, self.inputs, self.seed = design, inputs, seed

    def glorot(self) -> Any:
        """Return an initializer with a seed of its own."""
        self.seed += 1
        return keras.initializers.GlorotUniform(self.seed)

    def hidden(self, units: int) -> Any:
        """Return what the last layer looks at."""
        design = self.design
        if design.word.startswith("conv") or design.places:
            return self._along()
        found = [part for place in range(len(self.inputs)) for part in self._features(place, units)]
        joined = found[0] if len(found) == 1 else layers.Concatenate()(found)
        if design.word != "mlp":
            return joined
        hidden = layers.Dense(HIDDEN, activation="relu", kernel_initializer=self.glorot())(joined)
        return layers.Dropout(DROPOUT, seed=self.seed)(hidden)

    def _scaled(self, column: Column, tensor: Any) -> Any:
        if not column.dtype.startswith("float"):
            tensor = ops.cast(tensor, "float32")
        mean, spread = np.asarray(column.mean, np.float32), np.asarray(column.spread, np.float32)
        return layers.Rescaling(_plain(1 / spread), _plain(-mean / spread))(tensor)

    def _looked_up(self, column: Column, tensor: Any, width: int) -> tuple[Any, Any]:
        """Return the embeddings of tokens, and which of them are no padding."""
        self.seed += 1
        start = keras.initializers.RandomNormal(stddev=STARTED, seed=self.seed)
        table = layers.Embedding(column.size, width, embeddings_initializer=start)
        masks = [t for c, t in zip(self.design.columns, self.inputs, strict=True) if c.use == "mask"]
        marks = masks[0] if masks and len(masks[0].shape) == len(tensor.shape) else tensor
        real = ops.cast(ops.not_equal(marks, 0), "float32")
        return GAIN * table(ops.minimum(tensor, column.size - 1)), real

    def _features(self, place: int, units: int) -> list[Any]:
        column, tensor = self.design.columns[place], self.inputs[place]
        if column.use == "numbers":
            scaled = self._scaled(column, tensor)
            if column.size:
                return [layers.Flatten()(scaled) if len(column.shape) != 1 else scaled]
            single = len(column.shape) == 1
            return [ops.mean(scaled, 1, keepdims=single), ops.max(scaled, 1, keepdims=single)]
        if column.use != "tokens":
            return []
        width = units if self.design.word == "linear" and not column.in_places else EMBEDDED
        embedded, real = self._looked_up(column, tensor, width)
        if column.in_places:
            return [layers.Flatten()(embedded)]
        real = ops.expand_dims(real, -1)
        return [ops.sum(embedded * real, 1) / ops.sqrt(ops.maximum(ops.sum(real, 1), 1.0))]

    def _along(self) -> Any:
        """Return what a CNN, or a layer at each place, makes of the one input that is used."""
        pairs = zip(self.design.columns, self.inputs, strict=True)
        column, tensor = next(pair for pair in pairs if pair[0].use in ("numbers", "tokens"))
        real: Any = None
        if column.use == "tokens":
            tensor, real = self._looked_up(column, tensor, EMBEDDED)
            tensor = tensor * ops.expand_dims(real, -1)
        else:
            tensor = self._scaled(column, tensor)
            tensor = ops.expand_dims(tensor, -1) if len(column.shape) == 1 else tensor
        word = self.design.word
        if word == "linear":
            return tensor
        sizes = (CHANNELS, CHANNELS) if word == "conv1d" else (CHANNELS, 2 * CHANNELS)
        for size in sizes:
            kind, kernel = (layers.Conv1D, 5) if word == "conv1d" else (layers.Conv2D, 3)
            tensor = kind(size, kernel, padding="same", use_bias=False, kernel_initializer=self.glorot())(tensor)
            # The default of 0.99 forgets where it began only after hundreds of steps, which small data does not have.
            tensor = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(tensor))
            if word == "conv2d":
                tensor = layers.MaxPooling2D(padding="same")(tensor)
        if self.design.places:
            return tensor
        axes = tuple(range(1, len(tensor.shape) - 1))
        if real is None:
            return layers.Concatenate()([ops.mean(tensor, axes), ops.max(tensor, axes)])
        real = ops.expand_dims(real, -1)
        mean = ops.sum(tensor * real, 1) / ops.maximum(ops.sum(real, 1), 1.0)
        return layers.Concatenate()([mean, ops.max(tensor * real, 1)])
