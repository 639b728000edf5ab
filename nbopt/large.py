"""Arrays that are larger than memory may hold: in files, and worked on some rows at a time."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

LARGE_BYTES = 256 * 2**20
"""A larger array lies in a file, which the system keeps in memory as far as there is room."""
SLICE_BYTES = 32 * 2**20
"""Rows that are worked on at a time take so much in float64."""


def room(shape: tuple[int, ...], dtype: Any) -> Array:
    """Return an array to be filled; a large one lies in a temporary file, which goes when the array does.

    Raises:
        OSError: The disk has no room for the file.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size <= LARGE_BYTES:
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile(prefix="nbopt-array-") as file:
        if hasattr(os, "posix_fallocate"):
            # Told now, while it is an error: a disk that is full when a page is written ends the process.
            os.posix_fallocate(file.fileno(), 0, size)
        return np.memmap(file, dtype, "r+", shape=shape).view(np.ndarray)


def slices_of(*arrays: Array) -> list[slice]:
    """Return slices of the rows of arrays, of which each takes `SLICE_BYTES` at most, or is one row."""
    rows = len(arrays[0]) if arrays[0].ndim else 1
    widest = max(8 * array.size // max(1, rows) for array in arrays)
    step = max(1, SLICE_BYTES // max(1, widest))
    return [slice(start, start + step) for start in range(0, max(1, rows), step)]


def by_slices(function: Callable[..., Array], *arrays: Array) -> Array:
    """Return what a function makes of rows, which it looks at one by one; of many rows slice by slice.

    Args:
        function: From as many arrays (rows, ...) to an array (rows, ...).
        arrays: Of one number of rows.
    """
    parts = slices_of(*arrays)
    if len(parts) == 1:
        return function(*arrays)
    found: Array | None = None
    for part in parts:
        made = function(*(array[part] for array in arrays))
        if found is None:
            found = room((len(arrays[0]), *made.shape[1:]), made.dtype)
        found[part] = made
    assert found is not None
    return found


def any_of(test: Callable[..., Array], *arrays: Array) -> bool:
    """Tell whether a test of elements holds anywhere; of many rows slice by slice."""
    if not arrays[0].ndim:
        return bool(test(*arrays))
    return any(bool(test(*(array[part] for array in arrays)).any()) for part in slices_of(*arrays))


def where(kept: Array, array: Array) -> Array:
    """Return `array[kept]`, for booleans of its first axes."""
    parts = slices_of(array)
    if len(parts) == 1:
        return np.asarray(array[kept])
    found, end = room((int(kept.sum()), *array.shape[kept.ndim :]), array.dtype), 0
    for part in parts:
        made = array[part][kept[part]]
        found[end : end + len(made)] = made
        end += len(made)
    return found
