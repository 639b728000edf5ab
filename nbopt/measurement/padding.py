"""Places that rows were padded with: nothing was asked there, whatever stands in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nbopt.errors import DataError
from nbopt.large import where

Array = NDArray[Any]


def trimmed(array: Array) -> Array:
    """Return a masked array without what is padding in every row, as of the first rows of a split; others as they are.

    Args:
        array: Of shape (rows, ...); masked where rows are padded, as `nbopt.frozen.join_ragged` does.
    """
    if not isinstance(array, np.ma.MaskedArray):
        return array
    real = ~np.ma.getmaskarray(array)
    longest = [
        int(real.any(axis=tuple(other for other in range(array.ndim) if other != axis)).sum())
        for axis in range(1, array.ndim)
    ]
    return array[(slice(None), *map(slice, longest))]


def places_of(labels: Array | None, outputs: Sequence[Array]) -> NDArray[np.bool_] | None:
    """Return which places of (rows, length...) are none of padding, None where no row is padded.

    Args:
        labels: Labels (rows, ...), or None.
        outputs: Outputs (rows, ...) for the same rows, classes last.

    Raises:
        DataError: Rows are padded, and labels and outputs have not a place for each other.
    """
    arrays = [*([] if labels is None else [labels]), *outputs]
    masks = [np.ma.getmaskarray(array) for array in arrays if isinstance(array, np.ma.MaskedArray)]
    depth = max(map(_depth, masks), default=1)
    if depth == 1:
        return None
    shape = outputs[0].shape[:depth]
    if any(array.shape[:depth] != shape for array in arrays):
        raise DataError(
            f"a label for each place of the outputs, which are of shape {outputs[0].shape}",
            f"labels of shape {arrays[0].shape}",
            "pad labels and inputs of a batch to one length",
        )
    # All that belongs to one place is padded or not: the first of it tells.
    return ~np.logical_or.reduce([mask.reshape(*shape, -1)[..., 0] for mask in masks])


def _depth(mask: NDArray[np.bool_]) -> int:
    """Return how many axes make a place: those up to the last in which some rows end before others."""
    return 1 + max((axis for axis in range(1, mask.ndim) if (mask.any(axis) != mask.all(axis)).any()), default=0)


def at(places: NDArray[np.bool_], array: Array) -> Array:
    """Return the values at the places, shape (places, ...), in the order of the rows."""
    return where(places, np.asarray(array))


def weight_at(places: NDArray[np.bool_], weight: Any) -> Any:
    """Return a weight for each of the places, from one a row or one a place; of another shape as it is."""
    if weight is None:
        return None
    values = trimmed(np.asanyarray(weight))
    if values.size == len(places):
        return np.asarray(values).reshape(-1)[np.nonzero(places)[0]]
    return at(places, values) if values.shape[: places.ndim] == places.shape else weight
