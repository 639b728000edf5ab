"""Lower pruning to Keras 3: zeros in place, and units taken out by rebuilding the graph."""

from __future__ import annotations

from typing import Any

from nbopt.batches import Inputs
from nbopt.frameworks._keras_copy import copy_model
from nbopt.frameworks._keras_dialect import layers_of
from nbopt.frameworks._keras_norms import recalibrate
from nbopt.narrowing._keras import vocabulary, weights
from nbopt.narrowing._keras.rebuild import TracedModel


class KerasLowering:
    """Do for a Keras model what pruning asks of a framework; see `nbopt.narrowing.lowering.Lowering`."""

    prunable_weights = staticmethod(weights.prunable_weights)
    tables = staticmethod(weights.tables)
    input_axes = staticmethod(weights.input_axes)
    put_zeros = staticmethod(weights.put_zeros)
    magnitudes = staticmethod(weights.magnitudes)
    scales = staticmethod(weights.scales)
    taylor = staticmethod(weights.taylor)
    recalibrate = staticmethod(recalibrate)
    lookups = staticmethod(vocabulary.lookups)
    with_shared_rows = staticmethod(vocabulary.with_shared_rows)

    def sparse_word(self, model: Any) -> str:
        """Return "": no layer of Keras takes sparse weights, so there is nothing to measure."""
        return ""

    def shapes(self, model: Any) -> dict[str, tuple[int, ...]]:
        """Return the shapes of all weights, by name; BatchNorm's statistics are none."""
        return {name: value.shape for name, value in weights.magnitudes(model).items()}

    def layers(self, model: Any) -> list[str]:
        """Return the names of all layers."""
        return [layer.name for layer in layers_of(model)]

    def trace(self, model: Any, example: Inputs) -> TracedModel:
        """Find what can be made narrower; the graph itself tells the shapes."""
        return TracedModel(copy_model(model))


LOWERING = KerasLowering()
