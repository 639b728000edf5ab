"""How far a variant's outputs could have moved before any row would have been judged otherwise.

Where a variant's outputs differ from the baseline's and yet no row is judged otherwise, `n` rows alone prove no more
than that fewer than about 3.8/n of all rows are. But rows also show by how much: the untouched model on another
runtime moves outputs in their sixth digit, and an int8 file by a tenth of what separates two classes, and both may
judge 200 rows alike. So the differences are enlarged, in both directions, until some row is judged otherwise. If that
takes `c` times the differences, then the bound 3.8/n holds for differences that large; and for small differences the
share of rows judged otherwise is proportional to their size, since it is the share of rows that lie as near to where a
decision changes. For the differences as they are the bound is therefore 3.8/(n c).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nbopt.large import by_slices
from nbopt.measurement.predictions import Scored
from nbopt.measurement.scores import Floats

STEP = 10.0
MOST = STEP**4
"""Differences are enlarged by this at most: beyond it the bound is as good as zero."""

_LARGEST = 36.0  # log-odds whose probability float64 still tells from 1


def clearance(unchanged: Callable[[Scored], bool], base: Scored, variant: Scored) -> float:
    """Return how many times a variant's differences can be enlarged before a row is judged otherwise, 1 to `MOST`.

    They are enlarged as log-odds, in which outputs move: a probability near 0 or 1 hardly moves however far its logit
    does. They are enlarged about their middle, so that both directions are tried: rows that happened to move away from
    a decision would prove nothing.

    Args:
        unchanged: Tells whether every row is judged as it was, given probabilities between and around the two.
        base: The baseline's scores.
        variant: The variant's, which are judged the same.
    """
    factor = 1.0
    while factor < MOST:
        for sign in (1.0, -1.0):

            def moved(before: Floats, after: Floats, reach: float = sign * factor * STEP) -> Floats:
                one, other = _log_odds(before), _log_odds(after)
                middle, half = (one + other) / 2, (other - one) / 2
                return _probabilities(middle + reach * half)

            if not unchanged(replace(base, scores=by_slices(moved, base.scores, variant.scores))):
                return factor
        factor *= STEP
    return factor


def units_moved(base: Scored, variant: Scored, units: NDArray[Any] | None) -> int:
    """Return how many rows, or groups of rows, have other scores: the others show nothing of how far scores move."""
    width = base.scores.reshape(len(base.scores), -1)
    moved = by_slices(lambda one, other: (one != other).any(axis=1), width, variant.scores.reshape(width.shape))
    return int(moved.sum()) if units is None else len(np.unique(units[moved]))


def _log_odds(scores: Floats) -> Floats:
    with np.errstate(divide="ignore"):
        odds: Floats = np.log(scores) - np.log1p(-scores)
    return np.clip(odds, -_LARGEST, _LARGEST)


def _probabilities(odds: Floats) -> Floats:
    small = np.exp(-np.abs(odds))
    return np.where(odds >= 0, 1 / (1 + small), small / (1 + small))
