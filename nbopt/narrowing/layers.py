"""Which layers a user means by name or pattern."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import TypeVar

from nbopt.errors import OptionError, nearest

T = TypeVar("T")


def named(layer: str, pattern: str) -> bool:
    """Tell whether a pattern means a layer: its name, a glob of it, or the name of a part that it lies in."""
    return fnmatchcase(layer, pattern) or fnmatchcase(layer, f"{pattern}.*") or fnmatchcase(layer, f"{pattern}/*")


def selected(
    things: Sequence[T],
    names: Callable[[T], Iterable[str]],
    include: Sequence[str],
    exclude: Sequence[str],
    also: Iterable[str] = (),
) -> list[T]:
    """Return the things that a user wants pruned.

    Args:
        things: Weights or widths.
        names: The layers of one.
        include: Names or globs; none means all.
        exclude: Names or globs of what keeps its size; it wins over `include`.
        also: Further layers of the model that may be named, though there is nothing to prune in them.

    Raises:
        OptionError: A name is of no layer.
    """
    known = list(dict.fromkeys([*(name for thing in things for name in names(thing)), *also]))
    for flag, patterns in (("--include", include), ("--exclude", exclude)):
        for pattern in patterns:
            if not any(named(name, pattern) for name in known):
                listed = ", ".join(known[:8]) + (f" and {len(known) - 8} more" if len(known) > 8 else "")
                raise OptionError(
                    f"prune {flag} with a layer of the model: {listed}", repr(pattern), nearest(pattern, known)
                )

    def wanted(thing: T) -> bool:
        own = list(names(thing))
        taken = not include or any(named(name, pattern) for name in own for pattern in include)
        return taken and not any(named(name, pattern) for name in own for pattern in exclude)

    return [thing for thing in things if wanted(thing)]
