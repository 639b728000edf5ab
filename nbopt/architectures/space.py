"""The space of what may change: choices of few options each, few enough that tens of candidates tell something."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nbopt.architectures.parts import Kernel, Parts
from nbopt.controllers import Grid, Settings
from nbopt.errors import ModelError, OptionError
from nbopt.narrowing.widths import Width

SHARES = (0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)
"""Shares of a width's units that may stay: eighths, from a quarter up."""

MOST_WIDTHS = 8
"""Choices of widths at most: tens of candidates can't tell more apart, so neighbours of alike size go together."""

WIDTH, KERNEL, BLOCK = "width", "kernel", "block"
KINDS = (WIDTH, KERNEL, BLOCK)


@dataclass(frozen=True)
class Choice:
    """Describe one thing to choose.

    Args:
        name: Its name in the study: of the first member.
        kind: "width", "kernel" or "block".
        members: Names of the widths, layers or the block that it decides for, all alike.
        options: What there is, in order; the last is the model as it is. Shares of units that stay, sizes of a kernel,
            or whether a block stays.
    """

    name: str
    kind: str
    members: tuple[str, ...]
    options: tuple[Any, ...]

    @property
    def text(self) -> str:
        """Return it for people: `width conv1 and 2 more: 0.25, 0.5, 1`."""
        more = f" and {len(self.members) - 1} more" if len(self.members) > 1 else ""
        if self.kind == BLOCK:
            return f"block {self.members[0]}: in or out"
        return f"{self.kind} {self.members[0]}{more}: {', '.join(f'{option:g}' for option in self.options)}"


@dataclass(frozen=True)
class Blueprint:
    """Say what a candidate is.

    Args:
        widths: Units that stay, by the names of all widths.
        kernels: Size of each kernel that may change, by layer.
        skipped: Blocks that are left out.
    """

    widths: Mapping[str, int] = field(default_factory=dict)
    kernels: Mapping[str, int] = field(default_factory=dict)
    skipped: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Space:
    """Hold the choices, and turn places into blueprints.

    Args:
        choices: The choices.
        parts: What they change.
    """

    choices: tuple[Choice, ...]
    parts: Parts

    @property
    def grid(self) -> Grid:
        """Return the space as numbers, with the model as it is as its start."""
        sizes = tuple(len(choice.options) for choice in self.choices)
        return Grid(sizes, (True,) * len(sizes), tuple(size - 1 for size in sizes), self.plain)

    def blueprint(self, setting: Sequence[int] | Settings) -> Blueprint:
        """Return what the candidate of a setting is.

        Raises:
            OptionError: The setting lies outside the space.
        """
        places = [int(place) for place in setting]
        if not self.grid.contains(places):
            raise OptionError(f"a setting within sizes {self.grid.sizes}", f"{places}")
        sizes = {width.name: width for width in self.parts.widths}
        widths: dict[str, int] = {}
        kernels: dict[str, int] = {}
        skipped: set[str] = set()
        for choice, place in zip(self.choices, places, strict=True):
            option = choice.options[place]
            for member in choice.members:
                if choice.kind == WIDTH:
                    widths[member] = kept_units(sizes[member], option)
                elif choice.kind == KERNEL:
                    kernels[member] = int(option)
                elif not option:
                    skipped.add(member)
        return Blueprint(widths, kernels, frozenset(skipped))

    def uniform(self, share: float) -> Settings:
        """Return the setting that scales all widths alike, and changes nothing else: what a search must beat.

        Args:
            share: Of the units that stay, above 0 to 1; each choice takes its nearest option.
        """
        places = [
            int(np.argmin([abs(option - share) for option in choice.options]))
            if choice.kind == WIDTH
            else len(choice.options) - 1
            for choice in self.choices
        ]
        return np.asarray(places, np.int64)

    def plain(self, settings: Settings) -> Settings:
        """Return settings with what lies in a skipped block at its start, so that no candidate is there twice."""
        found = settings.copy()
        at = {choice.members[0]: index for index, choice in enumerate(self.choices) if choice.kind == BLOCK}
        for block in self.parts.blocks:
            if block.name not in at:
                continue
            gone = settings[:, at[block.name]] == 0
            for index, choice in enumerate(self.choices):
                if choice.kind != BLOCK and set(self._layers(choice)) <= set(block.inside):
                    found[gone, index] = len(choice.options) - 1
        return found

    def _layers(self, choice: Choice) -> list[str]:
        layers = {width.name: width.layers for width in self.parts.widths}
        return [layer for member in choice.members for layer in layers.get(member, (member,))]


def space_of(
    parts: Parts, *, kinds: Sequence[str] = KINDS, shares: Sequence[float] = SHARES, most_widths: int = MOST_WIDTHS
) -> Space:
    """Return the space of what may change in a model.

    Args:
        parts: What may change.
        kinds: Which of `KINDS` shall.
        shares: Of a width's units that may stay, above 0 to 1; 1 is always among them.
        most_widths: Choices of widths at most, 1 or more.

    Raises:
        OptionError: A kind is none, or a share lies outside.
        ModelError: There is nothing to choose: the space is the model itself.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise OptionError(f"kinds among {', '.join(KINDS)}", repr(kind))
    if not shares or min(shares) <= 0 or max(shares) > 1:
        raise OptionError("shares above 0 to 1", f"{tuple(shares)}")
    choices: list[Choice] = []
    if WIDTH in kinds:
        for group in grouped(parts.widths, most_widths):
            options = distinct(group, sorted({*shares, 1.0}))
            choices.append(Choice(f"width:{group[0].name}", WIDTH, tuple(width.name for width in group), options))
    if KERNEL in kinds:
        choices += [Choice(f"kernel:{each.layer}", KERNEL, (each.layer,), _sizes(each)) for each in parts.kernels]
    if BLOCK in kinds:
        choices += [Choice(f"block:{each.name}", BLOCK, (each.name,), (False, True)) for each in parts.blocks]
    open_ones = tuple(choice for choice in choices if len(choice.options) > 1)
    if not open_ones:
        told = f" ({'; '.join(parts.notes)})" if parts.notes else ""
        raise ModelError(
            "a model with widths, kernels or residual blocks to choose",
            f"one in which none of {', '.join(kinds)} can change{told}: a space of one point",
            "give a body that builds a model from `trial`",
        )
    return Space(open_ones, parts)


def grouped(widths: Sequence[Width], most: int) -> list[list[Width]]:
    """Return widths in groups that are chosen for together: neighbours of one kind, the most alike in size first.

    Args:
        widths: In the order of the model.
        most: Groups at most; each kind has one at least.
    """
    groups = [[width] for width in widths]

    def apart(at: int) -> float:
        one, other = groups[at][-1], groups[at + 1][0]
        return math.inf if one.kind != other.kind else abs(math.log(one.size / other.size))

    while len(groups) > max(1, most):
        gaps = [apart(at) for at in range(len(groups) - 1)]
        # Of equals the shortest group, so that a network of one width throughout falls into parts of alike length.
        at = min(range(len(gaps)), key=lambda i: (gaps[i], len(groups[i]) + len(groups[i + 1]), i))
        if math.isinf(gaps[at]):
            break
        groups[at : at + 2] = [groups[at] + groups[at + 1]]
    return groups


def kept_units(width: Width, share: float) -> int:
    """Return how many units of a width a share keeps: a whole number of steps, one at least."""
    step = unit_step(width)
    return min(width.size, max(step, round(share * width.size / step) * step))


def unit_step(width: Width) -> int:
    """Return by how many units a width changes: kernels compute channels in blocks of 8 or 16, heads are single."""
    if width.kind == "heads":
        return 1
    return next((step for step, least in ((8, 64), (4, 32), (2, 16)) if width.size >= least), 1)


def distinct(group: Sequence[Width], shares: Sequence[float]) -> tuple[float, ...]:
    """Return those shares that give other numbers of units than the next greater one, in order."""
    found: dict[tuple[int, ...], float] = {}
    for share in sorted(shares, reverse=True):
        found.setdefault(tuple(kept_units(width, share) for width in group), share)
    return tuple(sorted(found.values()))


def _sizes(kernel: Kernel) -> tuple[int, ...]:
    return tuple(size for size in range(1, kernel.size + 1, 2) if size >= kernel.least)
