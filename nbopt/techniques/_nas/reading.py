"""What a function that builds candidates is: its own code, and all of the user's that it reads.

A notebook has the class in one cell and the search in another. Who edits the class searches something else, though
not a letter of the search has changed.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import re
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

PLAIN = (int, float, complex, str, bytes, type(None), type(...), range)
GROUPS = (tuple, list, set, frozenset)


def code_of(build: Any) -> str:
    """Return a digest of a function's code and of the functions, classes and plain values that it reads.

    What a library defines counts by its name. Arrays, models and other objects count by their type alone.

    Args:
        build: A function, an object that is called, or a cell's body (`source` and `variables`).
    """
    digest = hashlib.blake2b(digest_size=16)
    waiting = [build]
    seen: dict[int, tuple[int, Any]] = {}  # objects are held, so that no other one comes by the id of one
    while waiting:
        value = waiting.pop()
        known = seen.get(id(value))
        text, read = _parts(value) if known is None else (f"again {known[0]}", [])
        if not isinstance(value, PLAIN):
            seen.setdefault(id(value), (len(seen), value))
        digest.update(text.encode() + b"\0")
        waiting += reversed(read)
    return digest.hexdigest()


def _parts(value: Any) -> tuple[str, list[Any]]:
    """Return what is told of a value by itself, and what it reads."""
    if isinstance(value, PLAIN):
        return repr(value), []
    if isinstance(value, GROUPS):
        items = sorted(value, key=repr) if isinstance(value, (set, frozenset)) else list(value)
        return f"{type(value).__name__} of {len(items)}", items
    if isinstance(value, Mapping):
        return f"mapping of {len(value)}", [part for pair in value.items() for part in pair]
    if isinstance(value, functools.partial):
        return "partial", [value.func, value.args, value.keywords]
    if isinstance(value, MethodType):
        return "method", [value.__func__, value.__self__]
    if isinstance(value, (staticmethod, classmethod)):
        return "method", [value.__func__]
    if isinstance(value, property):
        return "property", [value.fget, value.fset]
    if isinstance(value, FunctionType) and _own(value.__module__):
        return _function(value)
    if isinstance(value, type) and _own(value.__module__):
        known = {name: part for name, part in vars(value).items() if name not in UNTOLD}
        return f"class {value.__qualname__}", [value.__bases__, *known, *known.values()]
    source, variables = getattr(value, "source", None), getattr(value, "variables", None)
    if isinstance(source, str) and isinstance(variables, Mapping):
        names = set(re.findall(r"\w+", source))
        return source, [part for name in sorted(variables) for part in (name, *_reached(variables[name], names))]
    named = value if hasattr(value, "__qualname__") else type(value)
    # An object that is called does what its class says.
    called = [type(value)] if callable(value) and named is not value else []
    wrapped = [value.__wrapped__] if isinstance(getattr(value, "__wrapped__", None), FunctionType) else []
    return f"{getattr(named, '__module__', '')}.{getattr(named, '__qualname__', '')}", [*called, *wrapped]


UNTOLD = ("__module__", "__dict__", "__weakref__", "__doc__", "__firstlineno__", "__static_attributes__")
"""Of a class what says nothing of what it does, or is another each time that its cell runs."""


def _function(function: FunctionType) -> tuple[str, list[Any]]:
    codes = list(_codes(function.__code__))
    names = {name for code in codes for name in code.co_names}
    constants = [part for code in codes for part in code.co_consts if not isinstance(part, CodeType)]
    cells = inspect.getclosurevars(function).nonlocals.values() if function.__closure__ else ()
    known = [function.__globals__[name] for name in sorted(names) if name in function.__globals__]
    read = [part for value in (*cells, *known) for part in _reached(value, names)]
    text = " ".join(f"{code.co_code.hex()} {code.co_names}" for code in codes)
    return f"{function.__qualname__} {text}", [constants, function.__defaults__, function.__kwdefaults__, *read]


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _reached(value: Any, names: set[str]) -> list[Any]:
    """Return a value; of a module of the user's what code of those names takes from it."""
    if not isinstance(value, ModuleType):
        return [value]
    taken = sorted(names & vars(value).keys()) if _own(value.__name__) else []
    return [value.__name__, *(vars(value)[name] for name in taken)]


def _own(module: str | None) -> bool:
    """Tell whether a module is the user's own: the notebook, or a file that is in no library."""
    if module == "__main__":
        return True
    file = getattr(sys.modules.get(module or ""), "__file__", None)
    if file is None:
        return False
    path = Path(file).resolve()
    standard = Path(sysconfig.get_paths()["stdlib"]).resolve()
    return not {"site-packages", "dist-packages"} & {*path.parts} and not path.is_relative_to(standard)
