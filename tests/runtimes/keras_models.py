"""The models of the runtimes' contract, in Keras. TensorFlow is imported when the first one is made."""

from __future__ import annotations

from typing import Any

import numpy as np

from nbopt.batches import Inputs


def model(kind: str) -> Any:
    """Return a Keras model that does what the torch model of the same kind does."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)

    def text() -> Any:
        ids = keras.Input((None,), dtype="int64", name="input_ids")
        mask = keras.Input((None,), dtype="int64", name="attention_mask")
        hidden = layers.Embedding(50, 16)(ids)
        hidden = layers.Multiply()([hidden, layers.Reshape((-1, 1))(keras.ops.cast(mask, "float32"))])
        output = layers.Dense(3)(layers.GlobalAveragePooling1D()(layers.Dense(32, "relu")(hidden)))
        return keras.Model({"input_ids": ids, "attention_mask": mask}, output)

    def two() -> Any:
        numbers, category = keras.Input((6,)), keras.Input((), dtype="int64")
        joined = layers.Concatenate()([numbers, layers.Embedding(5, 4)(category)])
        return keras.Model([numbers, category], layers.Dense(2)(layers.Dense(16, "relu")(joined)))

    made = {
        "mlp": lambda: keras.Sequential([keras.Input((64,)), layers.Dense(64, "relu"), layers.Dense(10)]),
        "cnn": lambda: keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                layers.Conv2D(16, 3, padding="same"),
                layers.BatchNormalization(),
                layers.ReLU(),
                layers.MaxPooling2D(2),
                layers.Conv2D(32, 3, padding="same", activation="relu"),
                layers.Flatten(),
                layers.Dense(10),
            ]
        ),
        "lstm": lambda: keras.Sequential([keras.Input((5, 8)), layers.LSTM(16), layers.Dense(10)]),
        "text": text,
        "two": two,
    }
    return made[kind]()


def inputs(kind: str, given: Inputs) -> Inputs:
    """Return the inputs of a kind as Keras models take them: channels last."""
    if kind == "cnn" and not isinstance(given, dict):
        return (np.ascontiguousarray(np.moveaxis(given[0], 1, -1)),)
    return given
