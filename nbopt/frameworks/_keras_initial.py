"""A Keras model's weights drawn anew, as its layers' own initialisers draw them."""

from __future__ import annotations

from typing import Any

import numpy as np

from nbopt.errors import ModelError
from nbopt.frameworks._keras_dialect import layers_of, name_of, own_variables, path_of


def initialise(model: Any, seed: int) -> Any:
    """Draw all weights anew, in place, and return the model; what Normalization learned of the data stays.

    Raises:
        ModelError: A layer has weights and no initialiser for them.
    """
    kept = []
    for layer in dict.fromkeys((model, *layers_of(model))):
        for variable in own_variables(layer):
            found = _initialiser(layer, name_of(variable))
            if found is None:
                if variable.trainable:
                    kept.append(path_of(variable))
                continue
            seed += 1
            value = np.array(_with_seed(found, seed)(variable.shape, dtype=variable.dtype))
            if name_of(variable) == "bias" and getattr(layer, "unit_forget_bias", False):
                value[layer.units : 2 * layer.units] = 1  # as LSTM cells do within `build`
            variable.assign(value)
    if kept:
        raise ModelError(
            "layers that can draw their weights anew",
            f"no initializer for {', '.join(kept[:4])}{', ...' if len(kept) > 4 else ''}",
            "bind the untrained model, and leave --from-scratch out",
        )
    return model


def _initialiser(layer: Any, name: str) -> Any:
    """Return a layer's initialiser of a variable: layers keep it as `kernel_initializer` and the like."""
    names = [f"{name}_initializer", f"{name.removesuffix('_kernel')}_initializer"]
    if name == "kernel":
        names.append("depthwise_initializer")
    return next((found for each in names if (found := getattr(layer, each, None)) is not None), None)


def _with_seed(initialiser: Any, seed: int) -> Any:
    """Return an initialiser that draws from a seed, where it draws at all."""
    config = initialiser.get_config() if hasattr(initialiser, "get_config") else {}
    return type(initialiser).from_config({**config, "seed": seed}) if "seed" in config else initialiser
