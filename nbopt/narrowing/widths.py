"""Which units go: channels, hidden units and heads, each with every weight that holds it. NumPy only."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
MOST = 0.9
"""Largest share that one layer gives where layers give unequally: the least important layer must not vanish."""


@dataclass(frozen=True)
class Cut:
    """Say which unit each place of one axis of a weight belongs to.

    Args:
        weight: Name of the weight or buffer.
        axis: The axis.
        units: A unit for each place, -1 for places that stay.
    """

    weight: str
    axis: int
    units: Array


@dataclass(frozen=True)
class Width:
    """Hold units of one kind: what can be made narrower.

    Args:
        name: The first layer that makes them.
        layers: All layers that make them.
        size: Units.
        cuts: Everything that holds them.
        makers: Sets of units of which one at least must stay; none means that of all units one stays.
        kind: "channels", "heads" or "units" (of a recurrent layer).
        normed: A normalization takes its mean over these units (LayerNorm), so that fewer of them give other numbers.
    """

    name: str
    layers: tuple[str, ...]
    size: int
    cuts: tuple[Cut, ...]
    makers: tuple[Array, ...] = ()
    kind: str = "channels"
    normed: bool = False


def importance(width: Width, scores: Mapping[str, Array]) -> Array:
    """Return how much each unit matters: the norms of the weights that hold it, each relative to their mean.

    Relative, so that a weight of large numbers does not speak for the others.

    Args:
        width: The units.
        scores: Importance of each single weight by name, squared; what is not named does not count.
    """
    total = np.zeros(width.size)
    for cut in width.cuts:
        if cut.weight not in scores:
            continue
        value = scores[cut.weight]
        others = tuple(axis for axis in range(value.ndim) if axis != cut.axis % value.ndim)
        places = value.sum(others, dtype=np.float64)
        held = cut.units >= 0
        squares = np.bincount(cut.units[held], places[held], minlength=width.size)
        norms = np.sqrt(squares / np.maximum(np.bincount(cut.units[held], minlength=width.size), 1))
        if norms.mean() > 0:
            total += norms / norms.mean()
    return total


def scored(width: Width, scores: Mapping[str, Array]) -> bool:
    """Tell whether anything is known of the importance of a width's units."""
    return any(cut.weight in scores for cut in width.cuts)


def least(width: Width, importances: Array, count: int) -> Array:
    """Return the `count` units of least importance, fewer where each maker must keep one; ties go in order."""
    makers = width.makers or (np.arange(width.size),)
    left = [len(units) for units in makers]
    holders: list[list[int]] = [[] for _ in range(width.size)]
    for index, units in enumerate(makers):
        for unit in units.tolist():
            holders[unit].append(index)
    going: list[int] = []
    for unit in np.argsort(importances, kind="stable").tolist():
        if len(going) >= count:
            break
        if all(left[index] > 1 for index in holders[unit]):
            going.append(unit)
            for index in holders[unit]:
                left[index] -= 1
    return np.array(sorted(going), dtype=np.int64)


def choose(
    widths: Sequence[Width], importances: Mapping[str, Array], fractions: Mapping[str, float]
) -> dict[str, Array]:
    """Return the units that go, by width: of each its own share, the least important."""
    return {
        width.name: least(width, importances[width.name], round(fractions.get(width.name, 0.0) * width.size))
        for width in widths
    }


def shared_fractions(importances: Mapping[str, Array], share: float) -> dict[str, float]:
    """Return what each width gives where all units are ranked together, each relative to its width's mean.

    Args:
        importances: Of each width's units.
        share: Share of all units that goes; no width gives more than nine tenths, or `share` where that is more.
    """
    most = max(MOST, share)
    relative = {name: values / (values.mean() or 1.0) for name, values in importances.items()}
    ranked = sorted(
        (float(value), name, index) for name, values in relative.items() for index, value in enumerate(values.tolist())
    )
    room = {name: math.floor(most * len(values)) for name, values in relative.items()}
    going = dict.fromkeys(relative, 0)
    left = round(share * len(ranked))
    for _, name, _ in ranked:
        if left and going[name] < room[name]:
            going[name] += 1
            left -= 1
    return {name: going[name] / len(values) for name, values in relative.items()}


def kept_places(widths: Iterable[Width], going: Mapping[str, Array]) -> dict[str, dict[int, Array]]:
    """Return, by weight and axis, which places stay."""
    places: dict[str, dict[int, Array]] = {}
    for width in widths:
        if not len(going.get(width.name, ())):
            continue
        stays = np.ones(width.size + 1, dtype=bool)  # the last for -1: places of no unit
        stays[going[width.name]] = False
        for cut in width.cuts:
            axes = places.setdefault(cut.weight, {})
            known = axes.get(cut.axis)
            axes[cut.axis] = stays[cut.units] if known is None else known & stays[cut.units]
    return places


def unit_masks(
    widths: Iterable[Width], going: Mapping[str, Array], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Array]:
    """Return which single weights stay where units go: with the others at zero, the model computes the same.

    Args:
        widths: All of the model.
        going: Units that go, by width.
        shapes: Shapes of the weights to mask, by name; buffers are left out of it.
    """
    masks: dict[str, Array] = {}
    for weight, axes in kept_places(widths, going).items():
        if weight not in shapes:
            continue
        mask = np.ones(shapes[weight], dtype=bool)
        for axis, stays in axes.items():
            shape = [1] * mask.ndim
            shape[axis] = -1
            mask &= stays.reshape(shape)
        masks[weight] = mask
    return masks


def sliced(value: Array, axes: Mapping[int, Array]) -> Array:
    """Return a weight without the places that go."""
    for axis, stays in axes.items():
        value = np.compress(stays, value, axis=axis)
    return value
