"""Weights that a .tflite file stores without their zeros, unpacked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def unpacked(values: Array, sparsity: Any, shape: Sequence[int]) -> Array:
    """Return a stored tensor with its zeros.

    The format is TACO's (https://arxiv.org/abs/1802.10574), as LiteRT's schema describes it: axes in the order of
    traversal, each dense or in compressed rows, and after them axes within blocks.

    Args:
        values: What is stored.
        sparsity: `SparsityParameters` of the tensor.
        shape: The tensor's shape.
    """
    order = sparsity.TraversalOrderAsNumpy().tolist()
    blocks = sparsity.BlockMapAsNumpy().tolist() if sparsity.BlockMapLength() else []
    places: dict[int, Array] = {}
    sizes: dict[int, int] = {}
    count = 1
    for level, axis in enumerate(order):
        metadata = sparsity.DimMetadata(level)
        segments, indices = _vectors(metadata)
        if segments is None or indices is None:
            sizes[axis] = metadata.DenseSize()
            repeats: Any = sizes[axis]
            new = np.tile(np.arange(sizes[axis]), count)
        else:
            repeats, new = np.diff(segments.astype(np.int64)), indices.astype(np.int64)
        places = {known: np.repeat(place, repeats) for known, place in places.items()}
        places[axis], count = new, len(new)
    rank = len(shape)
    where = [places[axis] for axis in range(rank)]
    for block, axis in enumerate(blocks):
        where[axis] = where[axis] * sizes[rank + block] + places[rank + block]
    dense = np.zeros(tuple(shape), values.dtype)
    dense[tuple(where)] = values[:count]
    return dense


def _vectors(metadata: Any) -> tuple[Array | None, Array | None]:
    """Return the segments and indices of an axis in compressed rows, None of a dense one."""
    from ai_edge_litert import schema_py_generated as schema

    if metadata.Format() == schema.DimensionType.DENSE:
        return None, None
    kinds = {
        schema.SparseIndexVector.Int32Vector: schema.Int32Vector,
        schema.SparseIndexVector.Uint16Vector: schema.Uint16Vector,
        schema.SparseIndexVector.Uint8Vector: schema.Uint8Vector,
    }

    def read(kind: int, table: Any) -> Array:
        vector = kinds[kind]()
        vector.Init(table.Bytes, table.Pos)
        return np.asarray(vector.ValuesAsNumpy()) if vector.ValuesLength() else np.zeros(0, np.int32)

    segments = read(metadata.ArraySegmentsType(), metadata.ArraySegments())
    return segments, read(metadata.ArrayIndicesType(), metadata.ArrayIndices())
