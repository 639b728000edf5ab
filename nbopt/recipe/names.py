"""Names and expressions: what they mean in the notebook's variables."""

from __future__ import annotations

import builtins
import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from nbopt.errors import OptionError

Namespace = Mapping[str, Any] | Callable[[str], Any] | None
"""Where names and expressions get their meaning: variables, or a function that evaluates; None: nowhere."""

UNDEFINED = object()
"""Stands for a name that has no value, or a text that is not of a type."""

_DOTTED = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*")


class UndefinedName(OptionError):
    """A variable that the line names is not defined."""

    @property
    def name(self) -> str:
        """Return the variable's name."""
        return self.came.split("'")[1] if "'" in self.came else ""


def is_name(text: str) -> bool:
    """Tell whether the text is a variable's name, or one with attributes: `data.valid`."""
    return _DOTTED.fullmatch(text) is not None


def variable(text: str, names: Namespace) -> Any:
    """Return the variable or attribute that a dotted name stands for, or UNDEFINED."""
    if names is None or not is_name(text):
        return UNDEFINED
    if not isinstance(names, Mapping):
        try:
            return names(text)
        except (NameError, AttributeError, LookupError):
            return UNDEFINED
    first, *rest = text.split(".")
    value = names.get(first, UNDEFINED)
    for attribute in rest:
        value = getattr(value, attribute, UNDEFINED)
    return value


def lookup(name: str, names: Namespace, where: str, also: Iterable[str] = ()) -> Any:
    """Return the variable `name`.

    Args:
        name: The name, attributes included.
        names: The variables.
        where: Whose value it is, for messages.
        also: Words that could have stood here in its place, for the hint.

    Raises:
        OptionError: It is not defined; near variables are named.
    """
    value = variable(name, names)
    if value is not UNDEFINED:
        return value
    known = [word for word in names if not word.startswith("_")] if isinstance(names, Mapping) else []
    known += also
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, close))}?" if close else "run the cell that defines it"
    if not is_name(name):
        raise OptionError(f"{where} as a name, a literal or {{python expression}}", repr(name), f"{{{name}}}")
    raise UndefinedName(f"{where} as a variable of this notebook", f"{name!r}, which is not defined", hint)


def evaluate(expression: str, names: Namespace, where: str) -> Any:
    """Return the value of a Python expression.

    Raises:
        OptionError: There is nothing to evaluate it in, or it failed; the cause is kept.
    """
    if names is None:
        raise OptionError(f"{where} as a literal", f"{{{expression}}}", "expressions need a notebook's variables")
    try:
        if not isinstance(names, Mapping):
            return names(expression)
        # A copy, so that `:=` leaves no name behind; as globals, so that comprehensions see the variables.
        return eval(expression, {"__builtins__": builtins, **names})
    except NameError as error:
        missing = str(getattr(error, "name", "") or "")
        lookup(missing or expression, names, where)
        raise OptionError(f"{where} as an expression", f"{{{expression}}}, {error}") from error
    except Exception as error:
        raise OptionError(
            f"{where} as an expression that has a value", f"{{{expression}}}, {type(error).__name__}: {error}"
        ) from error
