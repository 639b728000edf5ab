"""Norms that leave a Keras model's function as it was, and BatchNorm folded into the weights before it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from nbopt.batches import Batch
from nbopt.frameworks._keras_call import model_arguments
from nbopt.frameworks._keras_dialect import symbolic
from nbopt.techniques._regularize.calibrating import Moments
from nbopt.techniques._regularize.places import Place
from nbopt.techniques._regularize_keras.places import Traced, nodes_of
from nbopt.techniques._regularize_keras.rewriting import Changes, Rewriting

L = keras.layers
TRANSPOSED = (L.Conv1DTranspose, L.Conv2DTranspose, L.Conv3DTranspose)
FOLDING = (L.Dense, L.Conv1D, L.Conv2D, L.Conv3D, L.DepthwiseConv1D, L.DepthwiseConv2D, *TRANSPOSED)


def insertable(found: Traced, places: Sequence[Place]) -> list[Place]:
    """Return the layers after which a norm can go: those of the graph itself, not of models nested in it."""
    return [place for place in places if "/" not in place.name and isinstance(found.layers[place.name], FOLDING)]


def with_norms(
    model: Any, kind: str, found: Traced, places: Sequence[Place], batches: Iterable[Batch]
) -> tuple[Any, dict[str, Any]]:
    """Return the model with a norm after each layer, before its activation, and the norms by layer."""
    layers = [found.layers[place.name] for place in places]
    changes, norms = Changes(), {}
    for place, layer in zip(places, layers, strict=True):
        name = f"{layer.name}_norm"
        norm = L.BatchNormalization(name=name) if kind == "batchnorm" else L.LayerNormalization(name=name)
        norms[place.name] = norm
        changes.after[id(layer)] = [norm]
        if keras.activations.serialize(layer.activation) != "linear":
            changes.config[id(layer)] = {"activation": "linear"}
            changes.after[id(layer)].append(L.Activation(layer.activation, name=f"{layer.name}_activation"))
    rewriting = Rewriting(changes)
    result = rewriting.again(model)
    moments = _measured(result, [rewriting.twins[id(layer)] for layer in layers], batches)
    for norm, moment in zip(norms.values(), moments, strict=True):
        channels = len(moment.mean)
        if kind == "batchnorm":
            norm.moving_mean.assign(moment.mean)
            norm.moving_variance.assign(moment.variance)
            norm.gamma.assign(np.sqrt(moment.variance + norm.epsilon))
            norm.beta.assign(moment.mean)
        else:
            norm.gamma.assign(np.full(channels, moment.row_deviation))
            norm.beta.assign(np.full(channels, moment.row_mean))
    return result, norms


def _measured(model: Any, layers: Sequence[Any], batches: Iterable[Batch]) -> list[Moments]:
    """Return the moments of what layers give."""
    made = {id(node.operation): node.outputs[0] for node in nodes_of(model)}
    probe = keras.Model(symbolic(model, "_inputs_struct"), [made[id(layer)] for layer in layers])
    moments = [Moments() for _ in layers]
    for batch in batches:
        outputs = probe(model_arguments(model, batch.inputs), training=False)
        for moment, output in zip(moments, outputs if isinstance(outputs, list) else [outputs], strict=True):
            moment.add(np.asarray(output, np.float64))
    return moments


def foldable(found: Traced) -> dict[str, str]:
    """Return, for each BatchNorm that can be folded, the layer that it goes into."""
    result = {}
    for name, maker in found.makers.items():
        norm, layer = found.layers[name], found.layers[maker]
        plain = isinstance(norm, L.BatchNormalization) and isinstance(layer, FOLDING)
        if not plain or found.listeners.get(maker, 0) != 1 or getattr(layer, "data_format", "") == "channels_first":
            continue
        last = norm.axis in (-1, len(norm._inbound_nodes[0].arguments.keras_tensors[0].shape) - 1)
        once = len(norm._inbound_nodes) == 1 and len(layer._inbound_nodes) == 1
        if last and once and keras.activations.serialize(layer.activation) == "linear":
            result[name] = maker
    return result


def fold(found: Traced, pairs: Mapping[str, str], rewriting: Rewriting) -> None:
    """Set the weights of the new layers to those of the old ones times the norms after them."""
    for name, maker in pairs.items():
        norm, layer = found.layers[name], found.layers[maker]
        new = rewriting.twins[id(layer)]
        mean, variance = (np.asarray(v.numpy(), np.float64) for v in (norm.moving_mean, norm.moving_variance))
        scale = 1 / np.sqrt(variance + norm.epsilon)
        if norm.gamma is not None:
            scale = scale * norm.gamma.numpy()
        beta = 0.0 if norm.beta is None else norm.beta.numpy()
        bias = layer.bias.numpy() if layer.use_bias else 0.0
        kernel = layer.kernel.numpy().astype(np.float64)
        if isinstance(layer, TRANSPOSED):
            kernel = kernel * scale[:, None]
        elif isinstance(layer, (L.DepthwiseConv1D, L.DepthwiseConv2D)):
            kernel = kernel * scale.reshape(kernel.shape[-2:])
        else:
            kernel = kernel * scale
        new.kernel.assign(kernel.astype(new.kernel.dtype))
        new.bias.assign((beta + (bias - mean) * scale).astype(new.bias.dtype))
