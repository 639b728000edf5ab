"""What in a Keras model can be made narrower, and the narrower model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from nbopt.errors import ModelError
from nbopt.frameworks._keras_copy import follow_weights, twin, uncompiled
from nbopt.frameworks._keras_dialect import is_graph, layers_of, objects_by_name
from nbopt.narrowing._keras.naming import names_of
from nbopt.narrowing._keras.trace import Trace

Array = np.ndarray[Any, Any]


class TracedModel:
    """Know what can be made narrower in a functional or Sequential model.

    Args:
        model: It is not changed.

    Raises:
        ModelError: The model is subclassed, or no layer has units to give.
    """

    def __init__(self, model: Any) -> None:
        if not is_graph(model):
            raise ModelError(
                "a functional or Sequential model, whose layers are known",
                f"the subclassed model {type(model).__name__}",
                "prune without --structured, or write it as keras.Model(inputs, outputs)",
            )
        self.model = model
        self.trace = Trace(model)
        self.widths = self.trace.widths(names_of(model))
        self.notes = self.trace.notes()
        if not self.widths:
            raise ModelError(
                "layers whose channels can be taken out",
                "none: every layer makes the output or is tied to one that does"
                + "".join(f"; {note}" for note in self.notes),
                "prune without --structured",
            )

    def remove(self, model: Any, going: Mapping[str, Array]) -> Any:
        """Return a copy of the model, or of one of its form, without some units."""
        # A copy's layers are others, but numbered alike: the walk through the graph is the same.
        trace = self.trace if model is self.model else Trace(model)
        return rebuild(model, trace, trace.keep(self.widths, going))


def rebuild(model: Any, trace: Trace, keep: Array) -> Any:
    """Return a copy of the model with the channels that `keep` names, and the weights that they need.

    Args:
        model: The model that was traced.
        trace: Its channels, and which weights hold them.
        keep: For each channel number whether it stays.
    """

    def narrow(layer: Any) -> Any:
        entries = trace.entries(layer, keep)
        if entries is not None:
            return keras.models.clone_model(layer, input_tensors=entries, clone_function=narrow)
        changes = trace.resized(layer, keep)
        if not changes:
            return twin(layer)
        return type(layer).from_config({**layer.get_config(), **changes})

    with keras.saving.custom_object_scope(objects_by_name(model)):
        smaller = keras.models.clone_model(uncompiled(model), clone_function=narrow)
    for variable, target in zip(model.variables, smaller.variables, strict=True):
        value = variable.numpy()
        for cut in trace.slices.get(id(variable), ()):
            value = np.take(value, np.flatnonzero(keep[cut.ids]), axis=cut.axis)
        if tuple(target.shape) != value.shape:
            raise ModelError(
                "a model whose layers can be made narrower",
                f"{variable.path}: {value.shape} weights for a shape of {tuple(target.shape)}",
                "prune without --structured",
            )
        target.assign(value)
    follow_weights(smaller)
    for layer, other in zip(layers_of(model), layers_of(smaller), strict=True):
        other.trainable = layer.trainable
    return smaller


def silenced(model: Any, trace: Trace, keep: Array) -> None:
    """Zero, in place, every weight through which a removed channel is heard; outputs equal the rebuilt model's."""
    for variable in model.variables:
        for cut in trace.slices.get(id(variable), ()):
            if cut.takes_in:
                value = np.moveaxis(variable.numpy(), cut.axis, 0).copy()
                value[~keep[cut.ids]] = 0
                variable.assign(np.moveaxis(value, 0, cut.axis))
