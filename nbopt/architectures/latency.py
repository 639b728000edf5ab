"""The latency table of a space: what each part takes in the runtime where it will run, from whole candidates.

Single operations, timed alone, leave out what a runtime fuses, lays out anew and keeps in its caches, and not every
runtime tells what an operation took. So whole candidates are exported and timed, and their time is shared out: each
weight takes time by the share of it that a candidate keeps (of a matrix its products, of a bias or a norm what is
given), and everything else is the same for all. That is linear, with factors of 0 or more, which are fitted. How far
off it is on candidates that it was not fitted to is measured too, and told beside every search that goes by it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nbopt.architectures.factors import Factor, Factors
from nbopt.architectures.space import BLOCK, Space
from nbopt.controllers.grid import Settings
from nbopt.controllers.table import Table, Term

Array = np.ndarray[Any, Any]

COMBINATIONS = 4096
"""Combinations of options that one part may have a cost for: four widths of seven options, and a block, in or out."""

FIRMNESS = 1e-4
"""How much factors are held to 0, beside the mean square of the relative errors: it settles those that the measured
candidates can't tell apart."""

FOLDS = 5
SWEEPS = 500


@dataclass(frozen=True)
class Part:
    """Say how much candidates keep of one weight, and of all that always keep as much.

    Args:
        dimensions: The choices that decide it.
        shares: Share that stays, 0 to 1, an axis for each of those choices.
    """

    dimensions: tuple[int, ...]
    shares: Array

    def at(self, settings: Settings) -> Array:
        """Return the share that each of n settings keeps."""
        return np.asarray(self.shares[tuple(settings[:, at] for at in self.dimensions)])


@dataclass(frozen=True)
class Latency:
    """Hold what candidates take, by their parts.

    Args:
        table: Milliseconds.
        settings: What was measured, of shape (n, dimensions).
        milliseconds: What that took.
        error: Median relative error on candidates that were left out of the fit.
        worst: The greatest.
    """

    table: Table
    settings: Settings
    milliseconds: Array
    error: float
    worst: float

    @property
    def note(self) -> str:
        """Return what a reader must know of it."""
        return (
            f"latency is guessed from {len(self.settings)} candidates that were exported and timed: off by "
            f"{self.error:.1%} in the median and {self.worst:.1%} at worst on those left out of the fit"
        )

    def within(self, limit_ms: float) -> Callable[[Settings], NDArray[np.bool_]]:
        """Return a test of settings (n, dimensions): which of them are within a latency, by the table."""
        return lambda settings: np.asarray(self.table.at(settings) <= limit_ms)


def to_measure(space: Space, count: int, rng: np.random.Generator) -> Settings:
    """Return settings that tell the most of a space: the whole, the ends of each choice, uniform ones, then a draw.

    Args:
        space: The space.
        count: How many, the first ones where there are more.
        rng: Of the draw.
    """
    grid = space.grid
    whole = np.asarray(grid.start, np.int64)
    alone = []
    for at in range(len(grid.sizes)):
        changed = whole.copy()
        changed[at] = 0
        alone.append(changed)
    ladder = [space.uniform(share) for share in (0.25, 0.5, 0.75)]
    some = np.vstack([whole, np.zeros_like(whole), *ladder, *alone, grid.balanced(rng, count)])
    plain = space.plain(some)
    _, first = np.unique(plain, axis=0, return_index=True)
    return np.asarray(plain[np.sort(first)][:count])


def parts_of(factors: Factors) -> list[Part]:
    """Return how much candidates keep of each weight, each way once; what lies in a block left out keeps nothing."""
    found: list[Part] = []
    for part in _by_weight(factors).values():
        known = any(
            part is not None and part.dimensions == other.dimensions and np.allclose(part.shares, other.shares)
            for other in found
        )
        if part is not None and not known:
            found.append(part)
    return found


def weighed(factors: Factors) -> Latency:
    """Return a table of how many weights candidates have, in place of milliseconds: for where nothing is timed."""
    space = factors.space
    terms, constant = [], 0
    for weight, part in _by_weight(factors).items():
        size = math.prod(space.parts.shapes[weight])
        if part is None:
            constant += size
        else:
            terms.append(Term(part.dimensions, size * part.shares))
    nothing = np.zeros((0, len(space.choices)), np.int64)
    return Latency(Table(tuple(terms), float(max(1, constant))), nothing, np.zeros(0), 0.0, 0.0)


def _by_weight(factors: Factors) -> dict[str, Part | None]:
    """Return how much candidates keep of each weight, None of one that never changes."""
    space = factors.space
    block_of = {
        layer: index
        for index, choice in enumerate(space.choices)
        if choice.kind == BLOCK
        for block in space.parts.blocks
        if block.name == choice.members[0]
        for layer in block.inside
    }
    found = {}
    for weight in space.parts.shapes:
        block = block_of.get(space.parts.layers.get(weight, ""))
        # Of a block's last weights the block's own factor says the same.
        own = [factor for factor in factors.of.get(weight, ()) if space.choices[factor.choice].kind != BLOCK]
        found[weight] = _part(space, own, block)
    return found


def _part(space: Space, factors: list[Factor], block: int | None) -> Part | None:
    """Return how much of a weight stays, None where it never changes or there are too many combinations."""
    inside = set() if block is None else {block}
    dimensions = tuple(sorted({factor.choice for factor in factors} | inside))
    sizes = [len(space.choices[at].options) for at in dimensions]
    if not dimensions or math.prod(sizes) > COMBINATIONS:
        return None
    shares = np.ones(sizes)
    axes = {factor.axis for factor in factors}
    for places in itertools.product(*map(range, sizes)):
        drawn = dict(zip(dimensions, places, strict=True))
        for axis in axes:
            # Several may share an axis, as where channels of several layers lie beside each other.
            lines = [factor.lines[drawn[factor.choice]] for factor in factors if factor.axis == axis]
            shares[places] *= float(np.prod(lines, axis=0).mean())
        if block is not None and not space.choices[block].options[drawn[block]]:
            shares[places] = 0.0
    return Part(dimensions, shares)


def fitted(parts: list[Part], settings: Settings, milliseconds: Array) -> Latency:
    """Return the table that goes best with what was measured, and how far it is off where nothing was.

    Args:
        parts: What `parts_of` returned.
        settings: What was measured, of shape (n, dimensions).
        milliseconds: What that took, above 0.
    """
    columns = np.stack([np.ones(len(settings)), *(part.at(settings) for part in parts)], axis=1)
    errors = np.zeros(len(settings))
    folds = min(FOLDS, len(settings))
    for fold in range(folds if folds > 1 else 0):
        out = np.arange(len(settings)) % folds == fold
        factors = not_negative(columns[~out], milliseconds[~out])
        errors[out] = np.abs(columns[out] @ factors / milliseconds[out] - 1)
    constant, *rest = not_negative(columns, milliseconds).tolist()
    terms = tuple(
        Term(part.dimensions, factor * part.shares) for part, factor in zip(parts, rest, strict=True) if factor > 0
    )
    return Latency(Table(terms, constant), settings, milliseconds, float(np.median(errors)), float(errors.max()))


def not_negative(columns: Array, values: Array) -> Array:
    """Return factors of 0 or more with which columns add up to values, by the least relative squares.

    By coordinate descent: SciPy, which has this, is not among what a user of one framework has.
    """
    scaled = columns / values[:, None]
    count = len(values)
    products = scaled.T @ scaled / count
    aims = scaled.mean(0)
    usual = float(np.median(values))
    firm = FIRMNESS / usual**2
    factors = np.zeros(columns.shape[1])
    for _ in range(SWEEPS):
        before = factors.copy()
        for at in range(len(factors)):
            rest = float(products[at] @ factors) - products[at, at] * factors[at]
            factors[at] = max(0.0, (aims[at] - rest) / (products[at, at] + firm))
        if np.abs(factors - before).max() <= 1e-9 * usual:
            break
    return factors
