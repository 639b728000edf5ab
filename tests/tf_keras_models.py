"""Small models of tf_keras, and data that they can learn in a second."""

from __future__ import annotations

from typing import Any

import numpy as np
import tf_keras

L = tf_keras.layers
ROWS = 600


def cnn(seed: int = 0) -> Any:
    tf_keras.utils.set_random_seed(seed)
    body = [L.Conv2D(8, 3, padding="same", use_bias=False), L.BatchNormalization(momentum=0.8), L.ReLU()]
    body += [L.MaxPooling2D(), L.DepthwiseConv2D(3, padding="same"), L.Conv2D(12, 1, activation="relu"), L.Flatten()]
    return tf_keras.Sequential(
        [L.Input((8, 8, 1)), *body, L.Dropout(0.2), L.Dense(64, "relu"), L.Dense(2, activation="softmax")]
    )


def two_inputs() -> Any:
    number, category = L.Input((8,), name="number"), L.Input((3,), name="category", dtype="int32")
    joined = L.Concatenate()([L.Dense(16, "relu")(number), L.Flatten()(L.Embedding(7, 4)(category))])
    return tf_keras.Model([number, category], L.Dense(2)(L.Dense(16, "relu")(joined)))


def lstm() -> Any:
    return tf_keras.Sequential([L.Input((12, 6)), L.LSTM(16), L.Dense(3, "softmax")])


def embedding() -> Any:
    return tf_keras.Sequential([L.Input((6,), dtype="int32"), L.Embedding(50, 8), L.Flatten(), L.Dense(2, "softmax")])


def nested() -> Any:
    inner = tf_keras.Sequential([L.Input((20,)), L.Dense(64, "relu"), L.Dense(32, "relu")])
    entry = L.Input((20,))
    return tf_keras.Model(entry, L.Dense(1, "sigmoid")(inner(entry)))


class Own(tf_keras.Model):
    """A constructor that takes an argument, and a layer's own activation."""

    def __init__(self, units: int = 16, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.first, self.second = L.Dense(units, "relu"), L.Dense(2)

    def call(self, inputs: Any, training: bool = False) -> Any:
        return self.second(self.first(inputs))

    def get_config(self) -> dict[str, Any]:
        return {"units": self.units}


def subclassed() -> Any:
    model = Own()
    model(np.zeros((1, 20), np.float32))
    return model


def halves() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return images whose upper half is brighter, or not."""
    x = np.random.default_rng(0).normal(size=(ROWS, 8, 8, 1)).astype(np.float32)
    return x, (x[:, :4].mean((1, 2, 3)) > x[:, 4:].mean((1, 2, 3))).astype(np.int64)
