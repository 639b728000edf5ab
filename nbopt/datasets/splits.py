"""What a loader returns, and how rows are held out for a test."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nbopt.errors import DataError


class Split(NamedTuple):
    """Hold the inputs and labels of one part of a data set; unpacks as `x, y`."""

    x: NDArray[Any]
    y: NDArray[np.int64]


class Sequences(NamedTuple):
    """Hold sequences of several lengths, padded with zeros at their end; unpacks as `x, lengths, y`.

    A Workload takes them as `((x, lengths), y)`: three parts are inputs, labels and weights of rows to it.
    """

    x: NDArray[np.float32]
    lengths: NDArray[np.int64]
    y: NDArray[np.int64]


class Texts(NamedTuple):
    """Hold texts and their labels; unpacks as `texts, y`."""

    texts: list[str]
    y: NDArray[np.int64]


def rows_to_take(rows: int | None, available: int, name: str) -> slice:
    """Return the first `rows` rows, or all when None.

    Args:
        rows: How many; None means all.
        available: How many there are.
        name: The argument's name, for the message.

    Raises:
        DataError: There are fewer rows, or none were asked for.
    """
    if rows is not None and not 1 <= rows <= available:
        raise DataError(f"{name} from 1 to {available}", f"{name}={rows}", f"leave {name} out to take all")
    return slice(rows)


def held_out(y: NDArray[np.int64], seed: int, share: float = 0.3) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the row numbers of a training and a test part, in random order, with each class in the same proportion.

    A class of a few dozen rows would otherwise be short by chance in one of the two.

    Args:
        y: The label of each row.
        seed: Decides which rows.
        share: The part of each class that is tested on, 0 to 1.
    """
    order = np.random.default_rng(seed).permutation(len(y))
    tested = np.zeros(len(y), dtype=bool)
    for label in np.unique(y):
        rows = order[y[order] == label]
        tested[rows[: round(share * len(rows))]] = True
    return order[~tested[order]], order[tested[order]]


def standardized(x: NDArray[np.float64], train: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return columns of mean 0 and deviation 1 over the training rows; a constant column becomes 0."""
    deviation = x[train].std(axis=0)
    return (x - x[train].mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)
