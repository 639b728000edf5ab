"""Values of a search's dimensions that no training can have together: they are not drawn."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from nbopt.errors import OptionError
from nbopt.space import Dimension, Search
from nbopt.training import TrainingPlan

FIELDS = {field.name for field in dataclasses.fields(TrainingPlan)}


@dataclass(frozen=True)
class Compatible:
    """Hold what is left of a search.

    Args:
        space: Dimensions, none of whose values the plan refuses; of two that clash, one is drawn only where it can be.
        search: Its first values, those left out that can't be any more.
        notes: What was left out, and why.
    """

    space: tuple[Dimension, ...]
    search: Search
    notes: tuple[str, ...] = ()


def compatible(space: Sequence[Dimension], search: Search, plan: TrainingPlan, *, held: bool = False) -> Compatible:
    """Return a search without combinations that the plan itself refuses.

    Techniques don't know of each other's dimensions; which fields of a plan go together, the plan knows.

    Args:
        space: What the techniques of a recipe leave open.
        search: How it is searched.
        plan: The training that the dimensions change; a dimension of a field has that field's name.
        held: Weights of the candidate are held, as by masks, so that their shapes must stay.
    """
    notes = [
        f"{each.name} was not searched: another step of the recipe holds weights as they are"
        for each in space
        if held and each.reshapes
    ]
    space = [each for each in space if not (held and each.reshapes)]
    kept: dict[str, Dimension] = {}
    for each in space:
        refused = {value: why for value in _tried(each) if (why := _refusal(plan, {each.name: value}))}
        for value, why in refused.items():
            notes.append(f"{each.name} {value} was not searched: {why}")
        left = tuple(value for value in each.choices if value not in refused)
        if not refused:
            kept[each.name] = each
        elif len(left) > 1:
            kept[each.name] = replace(each, choices=left)
    for one, other in combinations(list(kept), 2):
        clash = {
            (a, b): why
            for a in _tried(kept[one])
            for b in _tried(kept[other])
            if (why := _refusal(plan, {one: a, other: b}))
        }
        if clash:
            first, second = _which(kept[one], kept[other], list(clash))
            bad = {pair[0 if first == one else 1] for pair in clash}
            good = tuple(value for value in kept[first].choices if value not in bad)
            kept[second] = replace(kept[second], when=(first, good))
            told = ", ".join(sorted(map(str, bad)))
            notes.append(f"{second} was not searched with {first} {told}: {next(iter(clash.values()))}")
    firsts = tuple(values for values in search.first if all(_allowed(kept, *item) for item in values.items()))
    return Compatible(tuple(kept.values()), replace(search, first=firsts), tuple(notes))


def _tried(dimension: Dimension) -> tuple[Any, ...]:
    """Return the values that a plan may refuse: those of a field of it, but for the one that leaves it as it is."""
    if dimension.name not in FIELDS:
        return ()
    return tuple(value for value in dimension.choices if value != dimension.default)


def _refusal(plan: TrainingPlan, fields: dict[str, Any]) -> str:
    """Return why a plan can't have fields, "" where it can."""
    try:
        plan.adjusted(**fields)
    except OptionError as error:
        return error.came
    return ""


def _which(one: Dimension, other: Dimension, clash: list[tuple[Any, Any]]) -> tuple[str, str]:
    """Return which of two is always drawn, and which only beside its other values: what loses fewer of them."""
    shares = [len({pair[index] for pair in clash}) / len(each.choices) for index, each in enumerate((one, other))]
    pair = (one.name, other.name) if shares[0] <= shares[1] else (other.name, one.name)
    second = one if pair[1] == one.name else other
    # One that hangs on another already can't hang on a third.
    return pair if second.when is None else (pair[1], pair[0])


def _allowed(space: dict[str, Dimension], name: str, value: Any) -> bool:
    return name in space and (not space[name].choices or value in space[name].choices)
