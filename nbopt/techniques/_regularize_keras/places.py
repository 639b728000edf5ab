"""Find in a Keras graph the layers that Dropout and norms could go to, in the order of the graph."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import keras

from nbopt.frameworks._keras_dialect import is_graph, layers_of, symbolic
from nbopt.techniques._regularize.places import Place

L = keras.layers
CONV = (
    L.Conv1D, L.Conv2D, L.Conv3D, L.Conv1DTranspose, L.Conv2DTranspose, L.Conv3DTranspose,
    L.SeparableConv1D, L.SeparableConv2D,
)  # fmt: skip
DEPTHWISE = (L.DepthwiseConv1D, L.DepthwiseConv2D)
RECURRENT = (L.RNN, L.Bidirectional)
DROPOUT = (
    L.Dropout, L.SpatialDropout1D, L.SpatialDropout2D, L.SpatialDropout3D, L.AlphaDropout, L.GaussianDropout,
)  # fmt: skip
ATTENTION = (L.MultiHeadAttention, L.GroupQueryAttention)
NORMS = (L.BatchNormalization, L.LayerNormalization, L.GroupNormalization, L.UnitNormalization, L.RMSNormalization)
PASSING = (L.Flatten, L.Reshape, L.Permute)  # layers that give what they hear, in another shape


@dataclass(frozen=True)
class Heard:
    """Describe a tensor: whether it depends on weights, a number, whether Dropout made it, and which layer did."""

    hidden: bool = False
    source: int = -1
    dropped: bool = False
    maker: str = ""


@dataclass
class Traced:
    """Know the layers of a graph, and which hear which.

    Args:
        places: In the order of the graph.
        layers: Each layer by the name that places have: its path through nested models.
        makers: For each BatchNorm, by name, the layer whose outputs it hears.
        listeners: For each layer, by name, how many others hear its outputs.
    """

    places: list[Place] = field(default_factory=list)
    layers: dict[str, Any] = field(default_factory=dict)
    makers: dict[str, str] = field(default_factory=dict)
    listeners: dict[str, int] = field(default_factory=dict)


def traced(model: Any) -> Traced:
    """Return what a functional or Sequential model is made of; of a subclassed one, what drops out already."""
    found = Traced()
    if not is_graph(model) or symbolic(model, "_outputs_struct") is None:
        for layer in layers_of(model):
            found.layers.setdefault(layer.path or layer.name, layer)
        for name, layer in found.layers.items():
            if isinstance(layer, (*DROPOUT, *ATTENTION)):
                kind: Any = "dropout" if isinstance(layer, DROPOUT) else "attention"
                found.places.append(Place(name, kind, rate=rate_of(layer)))
        return found
    _walk(model, found, "", {})
    normed = {found.makers[name] for name in found.makers}
    found.places = [replace(place, normed=place.name in normed) for place in found.places]
    return found


def rate_of(layer: Any) -> float:
    """Return the rate at which a layer drops out, 0.0 where it does not."""
    return float(getattr(layer, "rate", getattr(layer, "dropout", 0.0)) or 0.0)


def nodes_of(model: Any) -> Iterator[Any]:
    """Yield the nodes of a graph in the order in which they run, inputs left out."""
    graph = getattr(model, "_functional", None) or model
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        for node in graph._nodes_by_depth[depth]:
            if not node.is_input:
                yield node


def _walk(model: Any, found: Traced, prefix: str, known: dict[int, Heard]) -> list[Heard]:
    """Add a graph's layers; return what its outputs are."""
    for node in nodes_of(model):
        layer = node.operation
        inputs = [known.get(id(x), Heard(source=id(x))) for x in node.arguments.keras_tensors]
        name = f"{prefix}{layer.name}"
        found.layers[name] = layer
        for heard in inputs:
            if heard.maker:
                found.listeners[heard.maker] = found.listeners.get(heard.maker, 0) + 1
        if isinstance(layer, keras.Model) and is_graph(layer):
            entries = keras.tree.flatten(symbolic(layer, "_inputs_struct"))
            inner = {id(x): heard for x, heard in zip(entries, inputs, strict=True)}
            outputs = _walk(layer, found, f"{name}/", inner)
        else:
            outputs = [_made(layer, name, inputs, found, node, x) for x in node.outputs]
        for tensor, heard in zip(node.outputs, outputs, strict=True):
            known[id(tensor)] = heard
    return [known.get(id(x), Heard(source=id(x))) for x in keras.tree.flatten(symbolic(model, "_outputs_struct"))]


def _made(layer: Any, name: str, inputs: list[Heard], found: Traced, node: Any, tensor: Any) -> Heard:
    """Add one layer, and return what it gives."""
    first = inputs[0] if inputs else Heard()
    hidden = any(heard.hidden for heard in inputs)
    place = Place(name, "linear", hidden=first.hidden, source=first.source, dropped=first.dropped)
    if isinstance(layer, DROPOUT):
        found.places.append(replace(place, kind="dropout", rate=rate_of(layer)))
        return replace(first, dropped=True, source=id(tensor), maker="")
    if isinstance(layer, PASSING):
        return replace(first, source=id(tensor), maker="")
    if isinstance(layer, NORMS):
        if first.maker:
            found.makers.setdefault(name, first.maker)
        return Heard(hidden, id(tensor), maker=name)
    if isinstance(layer, ATTENTION):
        found.places.append(replace(place, kind="attention", rate=rate_of(layer)))
    elif isinstance(layer, RECURRENT):
        inner = layer.forward_layer if isinstance(layer, L.Bidirectional) else layer
        found.places.append(replace(place, kind="recurrent", rate=rate_of(getattr(inner, "cell", inner))))
    elif isinstance(layer, (*CONV, *DEPTHWISE)):
        shape = node.arguments.keras_tensors[0].shape
        size = shape[1:-1] if layer.data_format == "channels_last" else shape[2:]
        depthwise = isinstance(layer, DEPTHWISE) or getattr(layer, "groups", 1) > 1
        found.places.append(replace(place, kind="conv", size=tuple(size), depthwise=depthwise))
    elif isinstance(layer, L.Dense):
        found.places.append(replace(place, channels=layer.units))
    else:
        weighted = bool(getattr(layer, "weights", ())) and not isinstance(layer, L.Embedding)
        return Heard(hidden or weighted, id(tensor), maker=name)
    return Heard(hidden=True, source=id(tensor), maker=name)
