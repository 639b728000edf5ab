"""One file = one technique = one word of the magic. A ninth technique is one new file here."""

from __future__ import annotations

import importlib
from functools import cache
from pkgutil import iter_modules

from nbopt.errors import OptionError, nearest
from nbopt.technique import Technique


@cache
def all_techniques() -> dict[str, type[Technique]]:
    """Return every technique found in this package, by its word.

    A file `prune.py` holds the class `Prune`, whose `word` is "prune". Files that start with an underscore are
    parts of a technique, such as its lowering to one framework.
    """
    found: dict[str, type[Technique]] = {}
    for module in iter_modules(__path__):
        if not module.name.startswith("_"):
            class_name = module.name.title().replace("_", "")
            found[module.name] = getattr(importlib.import_module(f"{__name__}.{module.name}"), class_name)
    return found


def technique_named(word: str) -> type[Technique]:
    """Return a technique by its word.

    Raises:
        OptionError: There is none of that name; the nearest is suggested.
    """
    found = all_techniques()
    if word not in found:
        raise OptionError(f"a technique among {', '.join(found)}", repr(word), nearest(word, found))
    return found[word]
