"""Lower pruning to Keras 3: masks that hold while training, and channels taken out by rebuilding the graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from nbopt.data import Inputs
from nbopt.errors import ModelError
from nbopt.frameworks._keras_copy import follow_weights, is_graph, layers_of, objects_by_name, twin, uncompiled
from nbopt.techniques._prune_keras.trace import Trace

Array = np.ndarray[Any, Any]
LEAST_DIMENSIONS = 2
_NOT_PRODUCTS = ("bias", "embeddings", "alpha")  # names of matrices that nothing is multiplied with


def _prunable(model: Any) -> dict[str, Any]:
    """Return the variable of every weight matrix by name, shared ones once."""
    found: dict[str, Any] = {}
    seen: set[int] = set()
    for layer in (model, *layers_of(model)):
        if isinstance(layer, keras.layers.Embedding):
            continue
        for variable in (*layer._trainable_variables, *layer._non_trainable_variables):
            product = len(variable.shape) >= LEAST_DIMENSIONS and not variable.name.startswith(_NOT_PRODUCTS)
            if product and "float" in str(variable.dtype) and id(variable) not in seen:
                seen.add(id(variable))
                found[variable.path if variable.path not in found else f"{variable.path}#{len(found)}"] = variable
    return found


def prunable_weights(model: Any) -> dict[str, Array]:
    """Return the weights of dense, convolution, recurrent and attention layers by name, as float32."""
    return {name: variable.numpy().astype(np.float32) for name, variable in _prunable(model).items()}


def with_masks(model: Any, masks: Mapping[str, Array]) -> tuple[Callable[[Any], None], Callable[[Any], Any]]:
    """Apply masks to a model in place.

    Returns:
        What to call after each training step, and what makes the zeros permanent; there are no wrappers to
        remove, since the weights themselves are zeroed.
    """

    def hold(trained: Any) -> None:
        # By position: a copy of the model may give its variables other paths.
        for variable, mask in zip(_prunable(trained).values(), masks.values(), strict=True):
            variable.assign(variable.value * keras.ops.cast(mask, variable.dtype))

    def finish(trained: Any) -> Any:
        hold(trained)
        return trained

    hold(model)
    return hold, finish


def remove_channels(model: Any, fraction: float, example: Inputs) -> tuple[Any, list[str]]:
    """Take a share of the channels out of every layer but those that make an output.

    Args:
        model: A functional or Sequential model; it is not changed.
        fraction: Share of each layer's channels, 0 to 1, both excluded; at least one channel stays.
        example: One row of inputs, unused: the graph itself tells the shapes.

    Returns:
        The smaller model, and what must be said: which layers keep their width and why.

    Raises:
        ModelError: The model is subclassed, or no layer has channels to give.
    """
    if not is_graph(model):
        raise ModelError(
            "a functional or Sequential model, whose layers are known",
            f"the subclassed model {type(model).__name__}",
            "prune without --structured, or write it as keras.Model(inputs, outputs)",
        )
    trace = Trace(model)
    keep = trace.channels.keep(fraction)
    if keep.all():
        raise ModelError(
            "layers whose channels can be taken out",
            "none: every layer makes the output or is tied to one that does" + _because(trace),
            "prune without --structured",
        )
    return rebuild(model, trace, keep), trace.notes()


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


def _because(trace: Trace) -> str:
    return "".join(f"; {note}" for note in trace.notes())
