"""BatchNorm's statistics in a Keras model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nbopt.batches import Batch
from nbopt.frameworks._keras_call import model_arguments
from nbopt.frameworks._keras_dialect import kinds, layers_of


def recalibrate(model: Any, batches: Iterator[Batch]) -> int:
    """Measure BatchNorm's statistics again, in place; return how many layers that touched.

    Dropout is off meanwhile: with it, the statistics would be those of another network.
    """
    layers = layers_of(model)
    norms = [x for x in layers if isinstance(x, kinds("layers.BatchNormalization")) and x.trainable]
    if not norms:
        return 0
    quiet = [(layer, "rate", layer.rate) for layer in layers if isinstance(getattr(layer, "rate", None), float)]
    quiet += [(layer, "stddev", layer.stddev) for layer in layers if isinstance(getattr(layer, "stddev", None), float)]
    momenta = [norm.momentum for norm in norms]
    alone = all(norm.input_spec.ndim > 2 for norm in norms)
    count = 0
    try:
        for layer, name, _ in quiet:
            setattr(layer, name, 0.0)
        for batch in batches:
            if batch.rows < 2 and not alone:  # one row has no variance, unless it is a picture
                continue
            for norm in norms:
                norm.momentum = count / (count + 1)  # the plain mean over batches
            model(model_arguments(model, batch.inputs), training=True)
            count += 1
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for layer, name, value in quiet:
            setattr(layer, name, value)
    return len(norms) if count else 0
