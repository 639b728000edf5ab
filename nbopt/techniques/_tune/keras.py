"""Dropout that a Keras model has: its rates read and scaled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nbopt.frameworks._keras_dialect import kinds, layers_of

DROPPING = ("layers.Dropout", "layers.GaussianDropout", "layers.AlphaDropout")


def _places(model: Any) -> Iterator[tuple[Any, str]]:
    for layer in layers_of(model):
        if isinstance(layer, kinds(*DROPPING)):
            yield layer, "rate"
        else:
            # Recurrent cells have two; a MultiHeadAttention's own is in the Dropout layer that it holds.
            for name in ("dropout", "recurrent_dropout"):
                if isinstance(vars(layer).get(name), (int, float)) and hasattr(layer, "recurrent_kernel"):
                    yield layer, name


def rates(model: Any) -> list[float]:
    """Return the rate of each place that drops out."""
    return [float(getattr(layer, name)) for layer, name in _places(model)]


def scale(model: Any, factor: float) -> None:
    """Multiply all rates, in place; none goes above 0.95. A rate of 0 stays: such a layer has no generator."""
    for layer, name in _places(model):
        setattr(layer, name, min(0.95, float(getattr(layer, name)) * factor))
