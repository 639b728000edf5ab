"""Which code goes into a file with a torch module, and which is imported where the file is read."""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import cloudpickle


class ByValue:
    """Let cloudpickle write code of the user's own files by value, until the context ends.

    Args:
        names: Modules whose code does.
        follow: So do functions and classes of other modules that this code leads to, base classes for one.
    """

    def __init__(self, names: Iterable[str], *, follow: bool = True) -> None:
        self._users = cloudpickle.list_registry_pickle_by_value()  # what the user has said stays said
        self._names, self._follow = {*self._users, *filter(_is_users_own, names)}, follow
        self._registered: list[Any] = []
        self.followed: set[str] = set()
        self.needed: set[str] = set()

    def __enter__(self) -> ByValue:
        for name in sorted(self._names - self._users):
            self._register(name)
        return self

    def __exit__(self, *_: object) -> None:
        for module in self._registered:
            cloudpickle.unregister_pickle_by_value(module)

    def meet(self, name: str) -> None:
        """Take note of a module that has a function or a class which is about to be written."""
        if name in self._names or not _is_others(name):
            return
        if not self._follow:
            self.needed.add(name)
        elif name not in self.followed:
            self.followed.add(name)
            self._register(name)

    def imports(self, name: str) -> bool:
        """Tell whether a module that code names as a whole is imported where the file is read.

        By value it would bring along all that it holds.
        """
        if name in self._names or not _is_others(name):
            return False
        self.needed.add(name)
        return True

    def _register(self, name: str) -> None:
        cloudpickle.register_pickle_by_value(sys.modules[name])
        self._registered.append(sys.modules[name])


def _is_others(name: str) -> bool:
    """Tell whether a module is the user's, in Python, and not a part of nbopt, whose files may lie anywhere too."""
    if name.partition(".")[0] == "nbopt" or not _is_users_own(name):
        return False
    return str(getattr(sys.modules[name], "__file__", "")).endswith((".py", ".pyc"))


def _is_users_own(name: str) -> bool:
    """Tell whether an imported module is a file of the user's, not an installed package."""
    file = getattr(sys.modules.get(name), "__file__", None)
    return name != "__main__" and file is not None and not _is_installed(name, file)


@cache
def _is_installed(name: str, file: str) -> bool:
    """Tell whether a module's file is of a package.

    Packages lie in more places than this environment's own: a user's site-packages, those of a system or of an
    environment below this one, a folder that pip filled with --target. All hold what pip writes beside a package.
    """
    stdlib = [sysconfig.get_path(key) for key in ("stdlib", "platstdlib")]
    parents = Path(file).resolve().parents
    depth = name.count(".") + (Path(file).name == "__init__.py")
    root = parents[min(depth, len(parents) - 1)]
    if any(part in ("site-packages", "dist-packages") for part in root.parts):
        return True
    return any(root.is_relative_to(folder) for folder in stdlib) or any(root.glob("*.dist-info"))
