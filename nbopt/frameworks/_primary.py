"""The one output, of all that a model returns, that quality is judged on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nbopt.errors import ModelError

PREFERRED_KEYS = ("logits", "output", "outputs", "prediction", "predictions")


def primary_output(result: Any) -> Any:
    """Return `logits` of a mapping or of an output object, the first part of a tuple, or the tensor itself.

    Raises:
        ModelError: There is no array in the result.
    """
    for key in PREFERRED_KEYS:
        if isinstance(result, Mapping):
            if key in result:
                return result[key]
        elif hasattr(result, "keys") and hasattr(result, key):
            return getattr(result, key)
    if isinstance(result, Mapping):
        result = tuple(result.values())
    if isinstance(result, (tuple, list)) and result:
        return primary_output(result[0])
    if not hasattr(result, "shape"):
        raise ModelError(
            "a model that returns a tensor, a tuple or a mapping of tensors",
            f"a {type(result).__name__}",
            "wrap it in a module whose forward returns the tensor to judge",
        )
    return result
