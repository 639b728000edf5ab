"""How an option of a technique is declared, and how a value of it is checked."""

from __future__ import annotations

import dataclasses
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
