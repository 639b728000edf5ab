"""The one output, of all that a model returns, that quality is judged on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from nbopt.errors import ModelError

PREFERRED_KEYS = ("logits", "output", "outputs", "prediction", "predictions")


def primary_output(result: Any) -> Any:
    """Return `logits` of a mapping or of an output object, the first part of a tuple, or the tensor itself.

    Parts that are None, such as the loss of a model that was given no labels, don't count.

    Raises:
        ModelError: There is no array in the result.
    """
    named = by_name(result)
    for key in PREFERRED_KEYS:
        if named.get(key) is not None:
            return named[key]
    parts = tuple(named.values()) if named else result
    if isinstance(parts, (tuple, list)):
        parts = [part for part in parts if part is not None]
        if parts:
            return primary_output(parts[0])
    if not hasattr(result, "shape"):
        raise ModelError(
            "a model that returns a tensor, a tuple or a mapping of tensors",
            f"a {type(result).__name__}",
            "wrap it in a module whose forward returns the tensor to judge",
        )
    return result


def passed_over(result: Any) -> str:
    """Return in words which of several parts is the primary output where its place alone says so, "" elsewhere."""
    named = by_name(result)
    if any(named.get(key) is not None for key in PREFERRED_KEYS):
        return ""
    items = named.items() if named else enumerate(result) if isinstance(result, (tuple, list)) else ()
    parts = [(name, part) for name, part in items if part is not None]
    if len(parts) < 2:
        return passed_over(parts[0][1]) if parts else ""
    words = [(f"{name} " if isinstance(name, str) else "") + _shape_text(part) for name, part in parts]
    return f"the model returns {', '.join(words[:-1])} and {words[-1]}: the first is judged, and exported"


def _shape_text(part: Any) -> str:
    shape = getattr(part, "shape", None)
    return f"a {type(part).__name__}" if shape is None else f"({', '.join(map(str, shape))})"


def by_name(result: Any) -> dict[str, Any]:
    """Return what a mapping, an output object of transformers, a dataclass or a named tuple holds, by name."""
    if isinstance(result, Mapping):
        return dict(result)
    if hasattr(result, "shape"):
        return {}
    if dataclasses.is_dataclass(result) and not isinstance(result, type):
        return {each.name: getattr(result, each.name) for each in dataclasses.fields(result)}
    if isinstance(result, tuple) and hasattr(result, "_fields"):
        return dict(zip(result._fields, result, strict=True))
    if hasattr(result, "keys"):
        return {key: getattr(result, key) for key in result.keys() if hasattr(result, key)}  # noqa: SIM118 - no mapping
    return {}
