"""A finite space as numbers: settings are vectors of places, and a history is settings with their scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nbopt.errors import OptionError

Array = np.ndarray[Any, Any]
Settings = np.ndarray[Any, np.dtype[np.int64]]
"""Places: of shape (dimensions,) one setting, of shape (n, dimensions) several."""

Allowed = Callable[[Settings], np.ndarray[Any, np.dtype[np.bool_]]]
"""Takes n settings, tells of each whether it may be tried."""

AT_ONCE = 2048
"""Settings that are drawn, or looked at, at a time: a whole space up to this size is written down."""

ROUNDS = 50
"""Times that as many are drawn before it is said that nothing more is to be found: about 100,000 settings."""


@dataclass(frozen=True)
class Grid:
    """Describe a finite space.

    Args:
        sizes: Options of each dimension, 1 or more.
        ordered: For each dimension whether its options have an order, as widths have and operations have not.
        start: The setting that changes nothing; None where there is none.
        plain: Brings n settings to the form in which each candidate is there once, where several are the same one;
            None where no two are.

    Raises:
        OptionError: There is no dimension, one has no option, or the start lies outside.
    """

    sizes: tuple[int, ...]
    ordered: tuple[bool, ...] = ()
    start: tuple[int, ...] | None = None
    plain: Callable[[Settings], Settings] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not self.sizes or min(self.sizes) < 1:
            raise OptionError("a space of dimensions with an option or more", f"{self.sizes}")
        if not self.ordered:
            object.__setattr__(self, "ordered", (False,) * len(self.sizes))
        if len(self.ordered) != len(self.sizes):
            raise OptionError(f"an order told of {len(self.sizes)} dimensions", f"{len(self.ordered)}")
        if self.start is not None and not self.contains(self.start):
            raise OptionError(f"a start within sizes {self.sizes}", f"{self.start}")

    @property
    def size(self) -> int:
        """Return how many settings there are."""
        return math.prod(self.sizes)

    def contains(self, setting: Sequence[int]) -> bool:
        """Tell whether a setting lies in the space."""
        return len(setting) == len(self.sizes) and all(
            0 <= place < size for place, size in zip(setting, self.sizes, strict=True)
        )

    def all(self) -> Settings:
        """Return every setting; for small spaces."""
        return np.stack(np.unravel_index(np.arange(self.size), self.sizes), axis=1).astype(np.int64)

    def draw(self, rng: np.random.Generator, count: int) -> Settings:
        """Return settings at random, with repeats."""
        return rng.integers(0, np.asarray(self.sizes), size=(count, len(self.sizes)))

    def balanced(self, rng: np.random.Generator, count: int) -> Settings:
        """Return settings that hold every option of a dimension equally often, as near as their number allows.

        Of so few a plain draw leaves out a third of five options, and what was never seen can't be judged.
        """
        columns = [np.concatenate([rng.permutation(size) for _ in range(-(-count // size))]) for size in self.sizes]
        return np.stack([column[:count] for column in columns], axis=1).astype(np.int64)

    def beside(self, setting: Settings) -> Settings:
        """Return all settings that differ in one dimension: in an ordered one by any number of steps too."""
        found = []
        for at, size in enumerate(self.sizes):
            block = np.repeat(setting[None], size, axis=0)
            block[:, at] = np.arange(size)
            found.append(block[block[:, at] != setting[at]])
        return np.concatenate(found)

    def distances(self, some: Settings, others: Settings) -> Array:
        """Return, for each pair and dimension, how far apart they are: 0 to 1; options without order are 0 or 1."""
        gaps = np.abs(some[:, None, :] - others[None, :, :]).astype(np.float64)
        spans = np.where(self.ordered, np.maximum(np.asarray(self.sizes) - 1, 1), 1)
        return np.asarray(np.where(self.ordered, gaps / spans, gaps > 0))


@dataclass(frozen=True)
class History:
    """Hold what a search has tried.

    Args:
        settings: Places of the candidates that ended, in the order in which they began, of shape (n, dimensions).
        scores: Their scores, the greater the better; NaN for one that failed.
        pending: Candidates under way.
    """

    settings: Settings
    scores: Array
    pending: Settings | None = None

    @classmethod
    def empty(cls, grid: Grid) -> History:
        """Return the history of a search that has not begun."""
        return cls(np.zeros((0, len(grid.sizes)), np.int64), np.zeros(0))

    def __len__(self) -> int:
        return len(self.scores)

    def then(self, setting: Settings, score: float) -> History:
        """Return the history with one more candidate that ended."""
        return History(np.vstack([self.settings, setting[None]]), np.append(self.scores, score), self.pending)

    @property
    def began(self) -> Settings:
        """Return all that was begun, ended or not."""
        return self.settings if self.pending is None else np.vstack([self.settings, self.pending])

    def filled(self) -> Array:
        """Return the scores with failed candidates as bad as the worst that ended; zeros where all failed."""
        good = self.scores[np.isfinite(self.scores)]
        return np.where(np.isfinite(self.scores), self.scores, good.min() if len(good) else 0.0)


@dataclass
class Untried:
    """Find settings that may be tried and were not.

    Args:
        grid: The space.
        allowed: Tells which settings may be tried; None allows all.
    """

    grid: Grid
    allowed: Allowed | None = None
    _whole: Settings | None = field(default=None, init=False)

    def among(self, settings: Settings, history: History) -> Settings:
        """Return those of some settings that may be tried and were not, each candidate once, in their order."""
        if not len(settings):
            return settings
        if self.grid.plain is not None:
            settings = self.grid.plain(settings)
        codes, tried = self._codes(settings), self._codes(history.began)
        _, first = np.unique(codes, return_index=True)
        fresh = np.sort(first[~np.isin(codes[first], tried)])
        found = settings[fresh]
        return found if self.allowed is None or not len(found) else found[self.allowed(found)]

    def some(self, history: History, rng: np.random.Generator, least: int = 1) -> Settings:
        """Return settings that may be tried, evenly over the space: all of a small one, else `least` or more.

        Fewer than `least`, or none, where no more were found.
        """
        if self.grid.size <= AT_ONCE:
            if self._whole is None:
                self._whole = self.grid.all()
            return self.among(self._whole, history)
        found: list[Settings] = []
        count = 0
        for _ in range(ROUNDS):
            found.append(self.among(self.grid.draw(rng, AT_ONCE), history))
            count += len(found[-1])
            if count >= least:
                break
        return self.among(np.concatenate(found), history)

    def first(self, history: History, planned: Settings) -> Settings | None:
        """Return the first of some planned settings that may be tried and was not."""
        left = self.among(planned, history)
        return left[0] if len(left) else None

    def _codes(self, settings: Settings) -> Array:
        """Return a text of bytes for each setting: numbers would overflow in spaces of 10 to the 19."""
        plain = np.ascontiguousarray(settings, dtype=np.int64)
        return plain.view(np.dtype((np.void, plain.dtype.itemsize * plain.shape[1]))).ravel()


def starting(grid: Grid, seed: int, least: int) -> Settings:
    """Return what is tried before there is anything to learn from: the start, then a balanced draw.

    Args:
        grid: The space.
        seed: Of the draw; the same seed plans the same, so that a search that goes on has the same plan.
        least: How many at least; as many as the largest dimension has options, up to twice that, where that is more.
    """
    count = max(least, min(max(grid.sizes), 2 * least))
    planned = grid.balanced(np.random.default_rng([seed, 1]), count)
    return planned if grid.start is None else np.vstack([np.asarray(grid.start, np.int64)[None], planned])
