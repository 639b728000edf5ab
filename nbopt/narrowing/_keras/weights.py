"""Single weights of a Keras model: which there are, how much they matter, and zeros in place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from nbopt.arrays import to_numpy
from nbopt.batches import Batch
from nbopt.frameworks._keras_call import model_arguments
from nbopt.frameworks._keras_dialect import kinds, layers_of, name_of, own_variables, raw
from nbopt.frameworks._primary import primary_output
from nbopt.narrowing._keras.naming import names_of
from nbopt.narrowing.lowering import is_added

Array = np.ndarray[Any, Any]
LEAST_DIMENSIONS = 2
_NOT_PRODUCTS = ("embeddings", "alpha")  # names of matrices that nothing is multiplied with


def prunable(model: Any) -> dict[str, Any]:
    """Return the variable of every weight matrix by name, shared ones once."""
    found: dict[str, Any] = {}
    names = names_of(model)
    for layer in (model, *layers_of(model)):
        if isinstance(layer, kinds("layers.Embedding")):
            continue
        for variable in own_variables(layer):
            name = name_of(variable)
            product = len(variable.shape) >= LEAST_DIMENSIONS and not (is_added(name) or name.startswith(_NOT_PRODUCTS))
            if product and "float" in str(variable.dtype) and id(variable) in names:
                found[names[id(variable)]] = variable
    return found


def prunable_weights(model: Any) -> dict[str, Array]:
    """Return the weights of dense, convolution, recurrent and attention layers by name, as float32."""
    return {name: variable.numpy().astype(np.float32) for name, variable in prunable(model).items()}


def tables(model: Any) -> list[str]:
    """Return the names of the weights of embedding tables, shared ones once."""
    names = names_of(model)
    layers = [layer for layer in (model, *layers_of(model)) if isinstance(layer, kinds("layers.Embedding"))]
    own = [variable for layer in layers for variable in own_variables(layer)]
    return list(dict.fromkeys(names[id(v)] for v in own if _is_weight(v) and id(v) in names))


def input_axes(model: Any) -> dict[str, int]:
    """Return, for each prunable weight, the axis along which the layer's inputs lie: the last but one.

    A Conv2DTranspose kernel has its inputs last, and the output projection of attention, (heads, width, outputs), in
    the axis before the last too.
    """
    found = {}
    owners = {id(variable): layer for layer in layers_of(model) for variable in own_variables(layer)}
    for name, variable in prunable(model).items():
        kind = type(owners.get(id(variable))).__name__
        projection = kind == "EinsumDense" and len(variable.shape) == 3 and name.split("/")[-2] != "attention_output"
        found[name] = (
            len(variable.shape) - 1 if kind.endswith("Transpose") else 0 if projection else len(variable.shape) - 2
        )
    return found


def put_zeros(model: Any, masks: Mapping[str, Array], kept: dict[str, Any]) -> None:
    """Zero, in place, the weights that masks leave out."""
    if not masks.keys() <= kept.keys():
        names = names_of(model)
        named = {names[id(variable)]: variable for variable in model.variables}
        kept.update({name: (named[name], tf.constant(np.asarray(mask, dtype=bool))) for name, mask in masks.items()})
    for name in masks:
        variable, mask = kept[name]
        # Chosen, not multiplied: a negative number times 0 is -0.0, and two kinds of zeros deflate worse.
        value = tf.convert_to_tensor(variable)
        variable.assign(tf.where(mask, value, tf.zeros_like(value)))


def magnitudes(model: Any) -> dict[str, Array]:
    """Return the square of each weight, by name; BatchNorm's statistics are none."""
    names = names_of(model)
    return {names[id(v)]: v.numpy().astype(np.float32) ** 2 for v in model.weights if _is_weight(v)}


def scales(model: Any) -> dict[str, Array]:
    """Return the square of each BatchNorm's scale, by name."""
    names = names_of(model)
    norms = [layer for layer in layers_of(model) if isinstance(layer, kinds("layers.BatchNormalization"))]
    return {names[id(n.gamma)]: n.gamma.numpy().astype(np.float32) ** 2 for n in norms if n.gamma is not None}


def taylor(model: Any, loss: Any, batches: Iterator[Batch]) -> dict[str, Array]:
    """Return the mean over batches of (gradient times weight) squared, by name.

    The additive estimate of Molchanov et al. 2019 (https://arxiv.org/abs/1906.10771, equation 8).
    """
    names = names_of(model)
    variables = [v for v in model.weights if _is_weight(v)]
    sums = {names[id(v)]: np.zeros(v.shape, np.float32) for v in variables}
    count = 0
    for batch in batches:
        targets = to_numpy(batch.targets)
        dtype = "float32" if targets.dtype.kind == "f" else "int32" if targets.dtype.kind == "b" else targets.dtype
        target = tf.convert_to_tensor(targets.astype(dtype))
        weight = None if batch.weight is None else tf.convert_to_tensor(to_numpy(batch.weight), tf.float32)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([raw(v) for v in variables])  # frozen ones too: that they don't train makes them no less needed
            output = primary_output(model(model_arguments(model, batch.inputs), training=False))
            value = tf.cast(loss(output, target, weight), tf.float32)
        gradients = tape.gradient(value, [raw(v) for v in variables])
        count += 1
        for variable, gradient in zip(variables, gradients, strict=True):
            if gradient is not None:
                product = np.asarray(tf.convert_to_tensor(gradient), np.float32) * variable.numpy()
                sums[names[id(variable)]] += product.astype(np.float32, copy=False) ** 2
    for name in sums:
        sums[name] /= max(1, count)
    return sums


def _is_weight(variable: Any) -> bool:
    return "float" in str(variable.dtype) and not name_of(variable).startswith(("moving_mean", "moving_variance"))
