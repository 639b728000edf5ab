"""One file, one class: what a package holds, found by its files' names and imported when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from pkgutil import iter_modules
from typing import TypeVar, cast

Kind = TypeVar("Kind", bound=type)


class OneAFile(Mapping[str, Kind]):
    """Map the name of each file of a package to the class that it holds: `early_stop.py` to `EarlyStop`.

    Names cost nothing: a completion that lists them does not wait for their imports. Files that start with an
    underscore are parts of others.

    Args:
        package: Its dotted name.
        path: Its folders, as `__path__` has them.
    """

    def __init__(self, package: str, path: Sequence[str]) -> None:
        self._package = package
        self._names = tuple(each.name for each in iter_modules(path) if not each.name.startswith("_"))

    def __getitem__(self, name: str) -> Kind:
        if name not in self._names:
            raise KeyError(name)
        module = importlib.import_module(f"{self._package}.{name}")
        return cast("Kind", getattr(module, name.title().replace("_", "")))

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
