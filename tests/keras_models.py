"""Small Keras models of every shape that users bring, and inputs to go with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from nbopt.batches import Inputs, leaves, take_rows
from nbopt.frameworks import Signature
from nbopt.frozen import Leaf

L = keras.layers
ROWS = 5


def rows(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).normal(size=(ROWS, *shape)).astype(np.float32)


def numbers(*shape: int, below: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, below, size=(ROWS, *shape)).astype(np.int32)


def cnn() -> tuple[Any, Inputs]:
    body = [L.Conv2D(8, 3, padding="same", use_bias=False), L.BatchNormalization(momentum=0.8), L.ReLU()]
    body += [L.MaxPooling2D(), L.DepthwiseConv2D(3, padding="same"), L.Conv2D(12, 3), L.Flatten(), L.Dropout(0.2)]
    return keras.Sequential([keras.Input((8, 8, 1)), *body, L.Dense(10)]), (rows(8, 8, 1),)


def mlp() -> tuple[Any, Inputs]:
    return keras.Sequential([keras.Input((20,)), L.Dense(64, "relu"), L.Dense(1, "sigmoid")]), (rows(20),)


def lstm() -> tuple[Any, Inputs]:
    return keras.Sequential([keras.Input((12, 6)), L.LSTM(16), L.Dense(3, "softmax")]), (rows(12, 6),)


def embedding() -> tuple[Any, Inputs]:
    layers = [L.Embedding(50, 32, mask_zero=True), L.GlobalAveragePooling1D(), L.Dense(16, "relu"), L.Dense(4)]
    return keras.Sequential([keras.Input((9,), dtype="int32"), *layers]), (numbers(9, below=50),)


def _two() -> tuple[Any, Any, Any]:
    number, category = keras.Input((8,), name="number"), keras.Input((3,), name="category", dtype="int32")
    joined = L.Concatenate()([L.Dense(16, "relu")(number), L.Flatten()(L.Embedding(7, 4)(category))])
    return number, category, L.Dense(16, "relu")(joined)


def two_inputs() -> tuple[Any, Inputs]:
    number, category, hidden = _two()
    return keras.Model([number, category], L.Dense(2)(hidden)), (rows(8), numbers(3, below=7))


def by_name() -> tuple[Any, Inputs]:
    number, category, hidden = _two()
    outputs = {"aux": L.Dense(3)(hidden), "logits": L.Dense(2)(hidden)}
    inputs = {"category": numbers(3, below=7), "number": rows(8)}
    return keras.Model({"number": number, "category": category}, outputs), inputs


class Scale(L.Layer):
    """A layer of a user's own, with a function in it."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.units = units
        self.double = lambda x: x * 2

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(shape=(shape[-1], self.units))

    def call(self, x: Any) -> Any:
        return self.double(x @ self.kernel)


class Subclassed(keras.Model):
    """A constructor that takes no keywords, lists and dicts of layers, a nested model."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.first = Scale(width)
        self.norm = L.BatchNormalization()
        self.drop = L.Dropout(0.4)
        self.several = [L.Dense(4, "relu"), L.Dense(6)]
        self.heads = {"out": L.Dense(3)}
        self.inner = keras.Sequential([L.Dense(5), L.Dropout(0.3)])

    def call(self, x: Any, training: bool | None = None) -> Any:
        x = self.inner(self.drop(self.norm(self.first(x), training=training), training=training))
        for layer in self.several:
            x = layer(x)
        return self.heads["out"](x)


def subclassed() -> tuple[Any, Inputs]:
    model, x = Subclassed(), rows(8)
    model.compile("adam", "mse")
    model.fit(x, np.zeros((ROWS, 3)), verbose=0)
    model.several[0].trainable = False
    return model, (x,)


def own_activation(x: Any) -> Any:
    return keras.ops.tanh(x)


def nested() -> tuple[Any, Inputs]:
    inner = keras.Sequential([keras.Input((8,)), L.Dense(8, own_activation), L.Lambda(lambda x: x + 1)])
    entry = keras.Input((8,))
    return keras.Model(entry, L.Dense(3, "softmax")(inner(entry))), (rows(8),)


ALL: dict[str, Callable[[], tuple[Any, Inputs]]] = {
    "cnn": cnn,
    "mlp": mlp,
    "lstm": lstm,
    "embedding": embedding,
    "two_inputs": two_inputs,
    "by_name": by_name,
    "subclassed": subclassed,
    "nested": nested,
}


def signature(inputs: Inputs) -> Signature:
    keyed = isinstance(inputs, dict)
    names = list(inputs) if isinstance(inputs, dict) else [f"input_{i}" for i in range(len(inputs))]
    arrays = leaves(inputs)
    described = tuple(Leaf(n, str(a.dtype), (None, *a.shape[1:])) for n, a in zip(names, arrays, strict=True))
    return Signature(described, keyed, take_rows(inputs, slice(0, 1)))


def digits() -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    from sklearn.datasets import load_digits

    data = load_digits()
    x = (data.images / 16).astype(np.float32)[..., None]
    return (x[:1200], data.target[:1200]), (x[1200:], data.target[1200:])
