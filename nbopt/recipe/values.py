"""Values of options: an identifier, a literal or a `{python expression}`, by the option's declaration."""

from __future__ import annotations

import ast
import math
import re
import reprlib
import types
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any, Literal, Union, get_args, get_origin

import numpy as np

from nbopt.errors import OptionError, nearest
from nbopt.options import described
from nbopt.recipe.names import UNDEFINED, Namespace, evaluate, is_name, lookup, variable

_SHARE = {"%": Fraction(1, 100), "pt": Fraction(1, 100)}
_SECONDS = {
    "us": Fraction(1, 10**6),
    "ms": Fraction(1, 1000),
    "s": Fraction(1),
    "m": Fraction(60),
    "min": Fraction(60),
    "h": Fraction(3600),
}
_BYTES = {
    **{f"{letter}b": Fraction(1000**power) for power, letter in enumerate(["", "k", "m", "g", "t"])},
    **{f"{letter}ib": Fraction(1024**power) for power, letter in enumerate(["k", "m", "g", "t"], start=1)},
}
UNITS: dict[str, dict[str, Fraction]] = {
    "": _SHARE,
    "x": {"x": Fraction(1)},
    "s": _SECONDS,
    "ms": {suffix: factor * 1000 for suffix, factor in _SECONDS.items()},
    "bytes": _BYTES,
}
"""Suffixes that a number of a declared unit may carry, each with its worth in that unit."""

_NUMBER = re.compile(r"([+-]?(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(?:e[+-]?\d{1,3})?)\s*([a-z%]*)", re.IGNORECASE)
_BARE = re.compile(r"[\w.~/][\w.~/+:@%*-]*")
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60


def kinds_of(hint: Any) -> tuple[Any, ...]:
    """Return the alternatives of a type: `float | None` gives `(float, NoneType)`."""
    if get_origin(hint) in (Union, types.UnionType):
        return tuple(kind for part in get_args(hint) for kind in kinds_of(part))
    return (hint,)


def is_flag(hint: Any) -> bool:
    """Tell whether an option of this type is switched on by its name alone."""
    return all(kind in (bool, types.NoneType) for kind in kinds_of(hint))


def read_value(
    text: str,
    hint: Any,
    names: Namespace = None,
    *,
    where: str = "the value",
    unit: str = "",
    choices: Sequence[Any] = (),
) -> Any:
    """Return the value that `text` stands for, in the type that the option declares.

    Args:
        text: One word of the line: `0.5`, `1%`, `"a b"`, `valid_dl`, `a,b`, `{x[:10]}`.
        hint: The option's type.
        names: What identifiers and expressions mean.
        where: Whose value it is, for messages: "prune --sparsity".
        unit: The declared unit: "s", "ms", "bytes", or "" where `1%` is a hundredth.
        choices: The declared choices.

    Raises:
        OptionError: The text does not have the declared type, or a name or expression has no value.
    """
    kinds = kinds_of(hint)
    if text[:1] == "{" and text[-1:] == "}":
        if _is_dict(text):
            return _fit(ast.literal_eval(text) if names is None else evaluate(text, names, where), kinds, where)
        return _fit(evaluate(text[1:-1].strip(), names, where), kinds, where)
    if len(text) > 1 and text[0] in "'\"" and text[-1] == text[0]:
        text = unquoted(text)
        if str in kinds or Any in kinds or any(get_origin(kind) is Literal for kind in kinds):
            return _fit(text, kinds, where)
    elif text in ("None", "none") and types.NoneType in kinds and text not in choices:
        return None
    if choices and text not in choices:
        # A variable may hold the choice (a parameter of a notebook), but a choice's own name comes first.
        known = variable(text, names)
        if known is not UNDEFINED and any(known == choice for choice in choices):
            return known
    listed = text[:1] in ("(", "[") or len(split_list(text)) > 1
    for kind in sorted(kinds, key=lambda kind: _order(kind, listed=listed)):
        value = _read_kind(text, kind, names, where, unit)
        if value is not UNDEFINED:
            return value
    value = variable(text, names)
    if value is not UNDEFINED:
        return _fit(value, kinds, where)
    if not any(map(_takes_objects, kinds)):
        raise OptionError(f"{where} as {_words(kinds)}", repr(text), _unit_hint(text, unit))
    words = [str(value) for kind in kinds if get_origin(kind) is Literal for value in get_args(kind)]
    return lookup(text, names, where, also=words)


def _is_dict(text: str) -> bool:
    """Tell whether a text in braces is a dict as Python writes it, and not an expression within braces."""
    try:
        return isinstance(ast.parse(text, mode="eval").body, ast.Dict)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False


def _order(kind: Any, *, listed: bool) -> int:
    """Return when a kind is tried: text takes everything, so it comes after what has a form of its own."""
    if _item(kind):
        return 0 if listed else 8
    return {bool: 1, int: 2, float: 3, str: 7}.get(kind, 4 if get_origin(kind) is Literal else 9)


def _read_kind(text: str, kind: Any, names: Namespace, where: str, unit: str) -> Any:
    """Return `text` as one alternative of the declared type, or UNDEFINED."""
    if kind is bool:
        return {"true": True, "false": False}.get(text.lower(), UNDEFINED)
    if kind in (int, float):
        return _number(text, unit, whole=kind is int)
    if kind is str:
        return text
    if get_origin(kind) is Literal:
        return next((value for value in get_args(kind) if str(value) == text), UNDEFINED)
    items = _item(kind)
    if items:
        parts = split_list(text)
        # A variable may hold the list. One that can't is no rival of a word: where `torch` is imported, `--runtimes
        # torch` names a runtime all the same.
        held = variable(text, names) if len(parts) == 1 and text[:1] not in "([" else UNDEFINED
        if isinstance(held, (str, tuple, list, np.ndarray)) or (held is not UNDEFINED and str not in items):
            return UNDEFINED
        each = [items[min(i, len(items) - 1)] for i in range(len(parts))]
        try:
            return tuple(
                read_value(part, item, names, where=where, unit=unit) for part, item in zip(parts, each, strict=True)
            )
        except OptionError:
            if len(parts) == 1 and text[:1] not in "([":
                return UNDEFINED
            raise
    if kind is types.NoneType:
        return UNDEFINED
    return _literal_or_names(text, names, where)


def _item(kind: Any) -> tuple[Any, ...]:
    """Return the types of the items of a list or tuple type, () for what is neither."""
    if kind in (tuple, list):
        return (Any,)
    origin = get_origin(kind)
    if origin in (tuple, list, Sequence):
        return tuple(part for part in get_args(kind) if part is not Ellipsis) or (Any,)
    return ()


def _number(text: str, unit: str, *, whole: bool) -> Any:
    if text.lower().lstrip("+-") in ("inf", "nan") and not whole:
        return float(text)
    match = _NUMBER.fullmatch(text)
    if not match:
        return UNDEFINED
    digits, suffix = match.groups()
    factor = Fraction(1)
    if suffix:
        suffixes = UNITS.get(unit, {})
        found = suffixes.get(suffix, suffixes.get(suffix.lower()))
        if found is None:
            return UNDEFINED
        factor = found
    try:
        # Fractions, because 7 * 0.01 is not 0.07.
        value = Fraction(digits) * factor
        if whole:
            return int(value) if value.denominator == 1 else UNDEFINED
        return float(value)
    except (ValueError, OverflowError):
        return UNDEFINED  # `1_`, `1e999`: no number that there is


def _literal_or_names(text: str, names: Namespace, where: str) -> Any:
    """Return a Python literal, a variable, or a tuple of them: `xv,yv` and `(xv, yv)`."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        pass
    parts = split_list(text)
    if len(parts) > 1 and names is not None and all(is_name(part) for part in parts):
        return tuple(lookup(part, names, where) for part in parts)
    return UNDEFINED


def split_list(text: str) -> list[str]:
    """Split at the commas outside quotes and brackets, without the list's own brackets."""
    if len(text) > 1 and (text[0], text[-1]) in (("(", ")"), ("[", "]")):
        text = text[1:-1]
    parts, start, depth, quote = [], 0, 0, ""
    skip = False
    for i, char in enumerate(text):
        if skip:
            skip = False
        elif quote:
            skip = char == "\\"
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
        elif char == "," and not depth:
            parts.append(text[start:i].strip())
            start = i + 1
    return [*parts, last] if (last := text[start:].strip()) else parts


def _fit(value: Any, kinds: Sequence[Any], where: str) -> Any:
    """Return a value that Python made, checked against the declared type.

    Raises:
        OptionError: It has another type.
    """
    plain = value.item() if isinstance(value, np.generic) else value
    for kind in kinds:
        items = _item(kind)
        if items and isinstance(plain, str) and str in items:
            return tuple(split_list(plain))  # a variable may hold the text that the line would
        if items and isinstance(plain, (tuple, list, np.ndarray)):
            return tuple(_fit(part, kinds_of(items[min(i, len(items) - 1)]), where) for i, part in enumerate(plain))
        if isinstance(plain, bool):
            if kind is bool:
                return plain
        elif kind is float and isinstance(plain, (int, float)):
            return float(plain) if isinstance(plain, float) else plain
        elif kind is int and isinstance(plain, (int, float)) and math.isfinite(plain) and plain == int(plain):
            return int(plain)
        if (kind is types.NoneType and plain is None) or (kind is str and isinstance(plain, str)):
            return plain
        if get_origin(kind) is Literal and plain in get_args(kind):
            return plain
    if any(map(_takes_objects, kinds)):
        return value
    raise OptionError(f"{where} as {_words(kinds)}", f"{_SHORT.repr(value)}, a {type(value).__name__}")


def _takes_objects(kind: Any) -> bool:
    """Tell whether a type is open: Any, a class, a callable. What it may be is for the technique to check."""
    return not _item(kind) and get_origin(kind) is not Literal and kind not in (bool, int, float, str, types.NoneType)


def _words(kinds: Iterable[Any]) -> str:
    """Return a type as a sentence names it."""
    names = {
        bool: "True or False",
        int: "a whole number",
        float: "a number",
        str: "text",
        types.NoneType: "None",
    }
    found: list[str] = []
    for kind in kinds:
        literal = ", ".join(map(str, get_args(kind))) if get_origin(kind) is Literal else ""
        word = literal or ("a list by commas" if _item(kind) else names.get(kind, "a value"))
        if word not in found:
            found.append(word)
    return " or ".join(found)


def _unit_hint(text: str, unit: str) -> str:
    match = _NUMBER.fullmatch(text)
    if not match or not match[2] or unit not in UNITS:
        return ""
    return f"units: {', '.join(UNITS[unit])} ({nearest(match[2], UNITS[unit])})"


def unquoted(text: str) -> str:
    """Return what stands in quotes; a backslash escapes a quote or a backslash, and is itself elsewhere."""
    return re.sub(r"\\([\\'\"])", r"\1", text[1:-1])


def quoted(text: str) -> str:
    """Return `text` in quotes, so that no blank, comma, bar or bracket in it counts."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def write_value(value: Any, hint: Any, *, unit: str = "", choices: Sequence[Any] = ()) -> str:
    """Return the text that `read_value` turns into `value`; for objects that have none see `described`."""
    for text in _candidates(value):
        try:
            again = read_value(text, hint, unit=unit, choices=choices)
        except OptionError:
            continue
        if _same(again, value):
            return text
    return described(value)


def _candidates(value: Any) -> Iterable[str]:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str):
        if _BARE.fullmatch(value):
            yield value
        yield quoted(value)
    elif isinstance(value, (tuple, list)):
        parts = [next(iter(_candidates(part)), "?") for part in value]
        yield ",".join(parts) or "()"
        yield f"({','.join(parts)},)"
        firm = [list(_candidates(part))[-1:] or ["?"] for part in value]
        yield f"({','.join(part for (part,) in firm)},)"
    elif isinstance(value, (bool, int, float)) or value is None:
        yield repr(value)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, (tuple, list)) and isinstance(other, (tuple, list)):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one) and math.isnan(other):
        return True
    return bool(isinstance(one, str) == isinstance(other, str) and one == other)
