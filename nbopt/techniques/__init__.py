"""One file = one technique = one word of the magic. A ninth technique is one new file here."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from nbopt.discovery import OneAFile
from nbopt.errors import OptionError, nearest
from nbopt.technique import Technique


@cache
def all_techniques() -> Mapping[str, type[Technique]]:
    """Return every technique found in this package, by its word; a class is imported when it is asked for.

    A file `prune.py` holds the class `Prune`, whose `word` is "prune". Files that start with an underscore are
    parts of a technique, such as its lowering to one framework.
    """
    return OneAFile(__name__, __path__)


def technique_named(word: str) -> type[Technique]:
    """Return a technique by its word.

    Raises:
        OptionError: There is none of that name; the nearest is suggested.
    """
    found = all_techniques()
    if word not in found:
        raise OptionError(f"a technique among {', '.join(found)}", repr(word), nearest(word, found))
    return found[word]
