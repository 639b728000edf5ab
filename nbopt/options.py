"""How an option of a technique is declared, and how a value of it is checked."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import math
from dataclasses import field
from typing import Any

import numpy as np

from nbopt.errors import OptionError, nearest


def option(
    default: Any,
    help: str,  # noqa: A002 - the word that argparse and click use
    *,
    low: float | None = None,
    high: float | None = None,
    open_ends: bool = False,
    choices: tuple[Any, ...] = (),
    words: tuple[str, ...] = (),
    unit: str = "",
) -> Any:
    """Declare an option of a technique: the one place that magic, completion, panel, CLI and docs read.

    Args:
        default: Value where the user says nothing.
        help: Its effect, one sentence.
        low: Smallest value.
        high: Largest value.
        open_ends: `low` and `high` themselves are not allowed.
        choices: The only values allowed.
        words: Words that may stand in place of a number ("auto"); the field's type names them as a Literal too.
        unit: Unit of a number: "", "rows", "s".
    """
    metadata = {"help": help, "low": low, "high": high, "open": open_ends, "choices": choices}
    metadata |= {"words": words, "unit": unit}
    return field(default=default, metadata=metadata)


def check_value(name: str, spec: dataclasses.Field[Any], value: Any) -> None:
    """Check an option's value against its declaration.

    Raises:
        OptionError: It is of the wrong type, out of range, or not among the choices.
    """
    meta = spec.metadata
    if not meta or (value is None and spec.default is None):
        return
    if isinstance(value, str) and value in meta["words"]:
        return
    choices = meta["choices"]
    if choices and value not in choices:
        hint = nearest(value, map(str, choices)) if isinstance(value, str) else f"{name} {spec.default}"
        raise OptionError(f"{name} among {', '.join(map(str, choices))}", repr(value), hint)
    low, high = meta["low"], meta["high"]
    example = f"{name} {spec.default}" if spec.default is not None else meta["help"]
    if low is None and high is None:
        if isinstance(spec.default, bool) and not isinstance(value, bool):
            raise OptionError(f"{name} as True or False", repr(value), f"{name}, or leave it out")
        return
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        raise OptionError(f"{name} as a number", f"{value!r}, a {type(value).__name__}", example)
    if isinstance(spec.default, int) and np.isfinite(value) and value != int(value):
        raise OptionError(f"{name} as a whole number", repr(value), example)
    outside = not np.isfinite(value) or (low is not None and value < low) or (high is not None and value > high)
    if outside or (meta["open"] and value in (low, high)):
        words = "between" if low is not None and high is not None else "of at least" if low is not None else "up to"
        span = f"{low:g} and {high:g}" if words == "between" else f"{low if low is not None else high:g}"
        raise OptionError(f"{name} {words} {span}{', both excluded' if meta['open'] else ''}", f"{value}", example)


def described(value: Any) -> str:
    """Return what a recipe's text has for an object without a text of its own: "{Student of 12,345 weights}".

    Recipes with the same text are the same to a table, so that one of two students of a class, or of two cells' bodies,
    would take the other's place if nothing but their type were told.
    """
    try:
        telling = _telling(value)
    except (AttributeError, RuntimeError, TypeError, ValueError):  # a model that has no weights before its first call
        telling = ""
    return f"{{{type(value).__name__}{telling}}}"


def _telling(value: Any) -> str:
    source = getattr(value, "source", None)  # of a cell's body
    if isinstance(source, str):
        return f" {hashlib.blake2b(source.encode(), digest_size=3).hexdigest()}"
    if inspect.isroutine(value):
        return f" {value.__qualname__}"
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and shape:
        return f" of {' x '.join(map(str, shape))}"
    parameters = getattr(value, "parameters", None)  # torch's, by a call
    parts = list(parameters()) if callable(parameters) else getattr(value, "weights", None)  # Keras'
    if not isinstance(parts, list) or not parts:
        return ""
    return f" of {sum(math.prod(part.shape) for part in parts):,} weights"
