"""A search's dimensions as Optuna has them: drawn for a trial, and as the distributions of a space."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from nbopt.errors import OptionError
from nbopt.space import Dimension
from nbopt.studies.extra import load

_PLAIN = (type(None), bool, int, float, str)


def in_order(space: Sequence[Dimension]) -> list[Dimension]:
    """Return dimensions with those that others depend on before them.

    Raises:
        OptionError: Two have one name, one depends on a name that is not there, or two depend on each other.
    """
    named: dict[str, Dimension] = {}
    for each in space:
        if each.name in named:
            raise OptionError("a name for each dimension of a search", f"{each.name} twice")
        named[each.name] = each
    found: dict[str, Dimension] = {}
    waiting = list(space)
    while waiting:
        ready = [each for each in waiting if each.when is None or each.when[0] in found]
        if not ready:
            lost = waiting[0]
            raise OptionError("dimensions that depend on others of the search", f"{lost.name} on {lost.when}")
        found |= {each.name: each for each in ready}
        waiting = [each for each in waiting if each.name not in found]
    return list(found.values())


def is_active(dimension: Dimension, values: Mapping[str, Any]) -> bool:
    """Tell whether a dimension means something beside the values that were drawn for others."""
    if dimension.when is None:
        return True
    name, wanted = dimension.when
    return name in values and values[name] in wanted


def draw(trial: Any, space: Sequence[Dimension]) -> dict[str, Any]:
    """Return a value for each dimension that means something in this trial, drawn by the study's sampler."""
    values: dict[str, Any] = {}
    for each in in_order(space):
        if is_active(each, values):
            values[each.name] = suggest(trial, each)
    return values


def suggest(trial: Any, dimension: Dimension) -> Any:
    """Return the value of one dimension in a trial."""
    if dimension.choices:
        words = _words(dimension.choices)
        return words[trial.suggest_categorical(dimension.name, list(words))]
    low, high = dimension.low, dimension.high
    if dimension.whole:
        step = {} if dimension.log else {"step": int(dimension.step or 1)}
        return trial.suggest_int(dimension.name, int(low or 0), int(high or 0), log=dimension.log, **step)
    return trial.suggest_float(
        dimension.name, low, high, log=dimension.log, step=None if dimension.log else dimension.step
    )


def defaults(space: Sequence[Dimension]) -> dict[str, Any]:
    """Return the parameters of the trial that changes nothing, as `Study.enqueue_trial` takes them."""
    values: dict[str, Any] = {}
    for each in in_order(space):
        if is_active(each, values):
            values[each.name] = each.default
    return {each.name: _written(each, values[each.name]) for each in in_order(space) if each.name in values}


def values_of(params: Mapping[str, Any], space: Sequence[Dimension]) -> dict[str, Any]:
    """Return the dimensions' own values for the parameters of a finished trial."""
    return {
        each.name: _words(each.choices)[params[each.name]] if each.choices else params[each.name]
        for each in in_order(space)
        if each.name in params
    }


def distributions(space: Sequence[Dimension]) -> dict[str, Any]:
    """Return the space as Optuna's distributions."""
    return {each.name: _distribution(each) for each in space}


def contains(distribution: Any, value: Any) -> bool:
    """Tell whether a value lies in one of Optuna's distributions."""
    if hasattr(distribution, "choices"):
        return value in distribution.choices
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return bool(distribution.low <= value <= distribution.high)


def values_in(distribution: Any) -> float:
    """Return how many values one of Optuna's distributions has."""
    if hasattr(distribution, "choices"):
        return len(distribution.choices)
    if distribution.step is None:
        return 1 if distribution.low == distribution.high else math.inf
    return math.floor((distribution.high - distribution.low) / distribution.step + 1e-9) + 1


def _distribution(dimension: Dimension) -> Any:
    made = load().distributions
    if dimension.choices:
        return made.CategoricalDistribution(list(_words(dimension.choices)))
    if dimension.whole:
        whole = 1 if dimension.log else int(dimension.step or 1)
        return made.IntDistribution(int(dimension.low or 0), int(dimension.high or 0), log=dimension.log, step=whole)
    step = None if dimension.log else dimension.step
    return made.FloatDistribution(dimension.low, dimension.high, log=dimension.log, step=step)


def _words(choices: Sequence[Any]) -> dict[Any, Any]:
    """Return each choice by what a storage can hold of it: itself, or its text where it is an object."""
    plain = all(isinstance(choice, _PLAIN) for choice in choices)
    return {choice if plain else str(choice): choice for choice in choices}


def _written(dimension: Dimension, value: Any) -> Any:
    if not dimension.choices:
        return value
    return next(word for word, choice in _words(dimension.choices).items() if choice == value)
