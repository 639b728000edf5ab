"""Which runs a word of a line means: a variable's, or by an id, or by a name in a table."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from nbopt import history
from nbopt.comparison import Comparison
from nbopt.errors import OptionError
from nbopt.recipe.names import evaluate, is_name, variable
from nbopt.reproduce import Reproduction
from nbopt.runs import Run

_ID = re.compile(rf"[0-9a-f]{{{history.SHORTEST_ID},32}}")
_SUBSCRIPT = re.compile(r"([^\W\d]\w*)\[.+\]", re.DOTALL)


def held(name: Any, names: Mapping[str, Any]) -> list[Run] | None:
    """Return the runs that an object or a variable holds, None where it is no such thing.

    Raises:
        OptionError: It is an object of another kind.
    """
    value = name
    if isinstance(name, str):
        subscript = _SUBSCRIPT.fullmatch(name)
        if is_name(name):
            value = variable(name, names)
        elif subscript and subscript[1] in names:
            value = evaluate(name, names, "the run")
        else:
            return None
    found = _runs_in(value)
    if found is None and not isinstance(name, str):
        raise OptionError("a run or a comparison", f"a {type(value).__name__}", "%optimize runs lists them")
    return found


def by_id(name: str) -> list[Run]:
    """Return the kept runs, of any model, whose id begins with a name; none where it can't be an id."""
    if not _ID.fullmatch(name):
        return []
    return [run for run in history.kept_runs() if run.id.startswith(name)]


def _runs_in(value: Any) -> list[Run] | None:
    if isinstance(value, Run):
        return [value]
    if isinstance(value, history.RunCard):
        return [value.run]
    if isinstance(value, (Comparison, history.RunList)):
        return list(value)
    if isinstance(value, Reproduction):
        return list(value.comparison)
    if isinstance(value, (list, tuple)) and value:
        parts = [_runs_in(part) for part in value]
        return None if None in parts else [run for part in parts for run in part or ()]
    return None
