"""Weights of any framework's model, as a content hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from nbopt.frameworks import Framework


def add_weights(digest: hashlib._Hash, framework: Framework, model: Any) -> None:
    """Feed a digest with a model's weights, by name, shape and content."""
    for name, value in framework.weights(model):
        digest.update(f"{name}{value.shape}{value.dtype}".encode())
        digest.update(np.ascontiguousarray(value).tobytes())


def digest_of(framework: Framework, models: Iterable[Any]) -> str:
    """Return a content hash of models' weights, in their order; "" where there are none."""
    digest, found = hashlib.sha256(), False
    for model in models:
        add_weights(digest, framework, model)
        found = True
    return digest.hexdigest() if found else ""
