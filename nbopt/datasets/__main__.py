"""`python -m nbopt.datasets fetch [NAME...]`: fill the cache, so that what comes after needs no network."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
from collections.abc import Sequence

import nbopt.datasets
from nbopt.datasets.cache import Files
from nbopt.errors import NbOptError, nearest


def known() -> dict[str, Files]:
    """Return what can be fetched, by name: every `Files` that a module of this package describes."""
    found: dict[str, Files] = {}
    for module in pkgutil.iter_modules(nbopt.datasets.__path__):
        if module.name != "__main__":
            described = vars(importlib.import_module(f"nbopt.datasets.{module.name}")).values()
            found |= {files.name: files for files in described if isinstance(files, Files)}
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch and check what the words after `fetch` name, or everything, and return the exit status.

    Args:
        arguments: The words of the command; None takes the process's own.
    """
    there = known()
    names = ", ".join(sorted(there))
    parser = argparse.ArgumentParser(prog="python -m nbopt.datasets", description="Real data for nbopt's tutorials.")
    commands = parser.add_subparsers(required=True, metavar="fetch")
    fetch = commands.add_parser("fetch", help="fetch and check data sets, unless the cache has them")
    fetch.add_argument("names", nargs="*", metavar="NAME", help=f"all of them (125 MB) when none is named: {names}")
    chosen = parser.parse_args(arguments).names or sorted(there)
    for name in chosen:
        if name not in there:
            fetch.error(f"{name!r} is not a data set; {nearest(name, there)}")
    for name in chosen:
        try:
            there[name].read()
        except NbOptError as error:
            print(f"nbopt.datasets: {type(error).__name__}\n{error.message}", file=sys.stderr)
            return 1
        print(f"{there[name].title}: {there[name].folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
