"""Lower regularization to Keras 3: the graph is made again, with layers added or left out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import keras

from nbopt.batches import Batch, Inputs
from nbopt.errors import ModelError
from nbopt.frameworks._keras_dialect import is_graph
from nbopt.techniques._regularize.places import Place, Site
from nbopt.techniques._regularize_keras import norms
from nbopt.techniques._regularize_keras.places import ATTENTION, DROPOUT, traced
from nbopt.techniques._regularize_keras.rewriting import Changes, Rewriting

L = keras.layers


class KerasLowering:
    """Do for a Keras model what regularization asks of a framework; see `_regularize.lowering.Lowering`."""

    def places(self, model: Any, example: Inputs) -> list[Place]:
        """Return the layers in the order of the graph."""
        return traced(model).places

    def with_dropout(self, model: Any, sites: Sequence[Site]) -> Any:
        """Return the model with Dropout; of a subclassed one only rates can change."""
        found = traced(model)
        if not is_graph(model):
            return _with_rates(model, found.layers, sites)
        changes = Changes()
        for site in sites:
            layer = found.layers[site.name]
            if site.how == "existing":
                changes.config[id(layer)] = {"rate" if isinstance(layer, DROPOUT) else "dropout": site.rate}
            else:
                changes.before[id(layer)] = [_dropout(layer, site)]
        return Rewriting(changes).again(model)

    def with_norms(self, model: Any, kind: str, places: Sequence[Place], batches: Iterable[Batch]) -> Any:
        """Return the model with norms."""
        found = traced(model)
        chosen = norms.insertable(found, places)
        if not chosen:
            raise ModelError("layers of the graph itself to put norms after", "none: they are in nested models")
        return norms.with_norms(model, kind, found, chosen, batches)[0]

    def deployed(self, model: Any, example: Inputs) -> tuple[Any, int, int]:
        """Return the model without Dropout and with BatchNorm folded; a subclassed one stays as it is."""
        if not is_graph(model):
            return model, 0, 0
        found = traced(model)
        pairs = norms.foldable(found)
        going = [layer for layer in found.layers.values() if isinstance(layer, DROPOUT)]
        changes = Changes(dropped={id(layer) for layer in (*going, *(found.layers[name] for name in pairs))})
        changes.config = {id(found.layers[maker]): {"use_bias": True} for maker in pairs.values()}
        if not changes.dropped:
            return model, 0, 0
        rewriting = Rewriting(changes)
        result = rewriting.again(model)
        norms.fold(found, pairs, rewriting)
        return result, len(going), len(pairs)


def _dropout(layer: Any, site: Site) -> Any:
    """Return a Dropout layer to stand before a layer."""
    name = f"{layer.name}_dropout"
    if site.how != "channels":
        return L.Dropout(site.rate, name=name)
    kind = (L.SpatialDropout1D, L.SpatialDropout2D, L.SpatialDropout3D)[layer.rank - 1]
    keywords = {} if kind is L.SpatialDropout1D else {"data_format": layer.data_format}
    return kind(site.rate, name=name, **keywords)


def _with_rates(model: Any, layers: dict[str, Any], sites: Sequence[Site]) -> Any:
    """Change rates in a copy of a subclassed model, in place."""
    if any(site.how != "existing" for site in sites) or not sites:
        raise ModelError(
            "a functional or Sequential model, or one with Dropout layers whose rates can change",
            f"the subclassed model {type(model).__name__} without any",
            "put keras.layers.Dropout into its call, or write it as keras.Model(inputs, outputs)",
        )
    for site in sites:
        layer = layers[site.name]
        inner = layer._dropout_layer if isinstance(layer, ATTENTION) else layer
        if getattr(inner, "seed_generator", None) is None:
            raise ModelError(
                "Dropout layers with a rate above 0", f"{site.name} of rate 0, which has no generator", "give it a rate"
            )
        inner.rate = site.rate
        if isinstance(layer, ATTENTION):
            setattr(layer, "_dropout" if hasattr(layer, "_dropout") else "dropout", site.rate)
    return model


LOWERING = KerasLowering()
