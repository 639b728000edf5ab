"""A split's rows in files that any process can read, in one order for every variant."""

from __future__ import annotations

import hashlib
import json
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np

from nbopt.arrays import to_numpy
from nbopt.batches import Inputs, leaves, map_leaves, numeric_inputs, rows_of, take_rows
from nbopt.data import EVALUATION_BATCH, Split, kept_randomness
from nbopt.errors import FULL, DataError, disk_error
from nbopt.large import room

IGNORE_LABEL = -100
"""Rows with this label count nowhere, as in torch's cross entropy and in Hugging Face's token labels."""


@dataclass(frozen=True)
class Leaf:
    """Describe one input of a model: its name, dtype, and shape with None for axes whose length varies."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class Frozen:
    """Hold a split's rows in files that any process can read, in one order for every variant.

    Args:
        folder: Where the shards lie.
        digest: Content hash of all rows and labels.
        rows: Number of rows.
        targets: Labels of all rows, or None; masked where they were padded, see `join_ragged`.
        weight: Row weights, or None; likewise.
        signature: A leaf for each input; an axis that varied between batches is None, the first always.
        keyed: Inputs are by name.
        row_digests: 8-byte hash of each row's inputs, for finding shared rows.
        samples: A row of each shape that came, see `Samples`.
    """

    folder: Path
    digest: str
    rows: int
    targets: np.ndarray[Any, Any] | None
    weight: np.ndarray[Any, Any] | None
    signature: tuple[Leaf, ...]
    keyed: bool
    row_digests: frozenset[bytes] = field(repr=False, default=frozenset())
    samples: tuple[Inputs, ...] = field(repr=False, default=())

    def batches(self) -> Iterator[Inputs]:
        """Yield the inputs of each shard, at most 256 rows each."""
        for path in shard_paths(self.folder):
            yield read_shard(path)

    def first_row(self) -> Inputs:
        """Return the first row as a batch of one."""
        return take_rows(next(self.batches()), slice(0, 1))


def shard_paths(folder: Path) -> list[Path]:
    """Return a frozen split's files in order."""
    return sorted(folder.glob("*.npz"))


def read_shard(path: Path) -> Inputs:
    """Return the inputs that one file of a frozen split holds."""
    with np.load(path, allow_pickle=False) as archive:
        names = json.loads(str(archive["names"]))
        arrays = [archive[f"leaf{index}"] for index in range(int(archive["count"]))]
    return dict(zip(names, arrays, strict=True)) if names else tuple(arrays)


def write_shard(path: Path, inputs: Inputs) -> None:
    """Write inputs as one file of a frozen split."""
    arrays = leaves(inputs)
    names = json.dumps(list(inputs) if isinstance(inputs, dict) else [])
    np.savez(path, names=names, count=len(arrays), **{f"leaf{i}": a for i, a in enumerate(arrays)})


class Samples:
    """Keep a row of each shape that inputs come in, as a batch of one: where batches are padded, shapes differ."""

    MOST = 8

    def __init__(self) -> None:
        self._by_shape: dict[tuple[tuple[int, ...], ...], Inputs] = {}

    def see(self, inputs: Inputs) -> None:
        """Look at a batch of arrays, whose first axis is the rows."""
        shapes = tuple(array.shape[1:] for array in leaves(inputs))
        if shapes not in self._by_shape and len(self._by_shape) < self.MOST:
            self._by_shape[shapes] = map_leaves(lambda leaf: leaf[:1].copy(), inputs)

    def rows(self) -> tuple[Inputs, ...]:
        """Return them, in the order in which they came."""
        return tuple(self._by_shape.values())


def freeze(split: Split, *, float_dtype: str = "float32") -> Frozen:
    """Read a split once and write its rows to a temporary folder, which goes when the result does.

    Args:
        split: The split; its first pass decides the order of rows for every variant.
        float_dtype: Dtype that floating inputs are cast to, the model's own.

    Raises:
        DataError: NaN in inputs or labels, batches of different structure, or no batch.
        StoreError: The temporary folder is full.
    """
    folder = Path(tempfile.mkdtemp(prefix="nbopt-split-"))
    try:
        with kept_randomness(split):
            frozen = _write_shards(split, folder, float_dtype)
    except BaseException as error:
        rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in FULL:
            raise disk_error(error, folder.parent, "set TMPDIR to a folder with more") from error
        raise
    weakref.finalize(frozen, rmtree, folder, ignore_errors=True)
    return frozen


def _write_shards(split: Split, folder: Path, float_dtype: str) -> Frozen:
    digest = hashlib.sha256()
    rows = shard = 0
    row_digests: set[bytes] = set()
    samples = Samples()
    targets: list[np.ndarray[Any, Any]] = []
    weights: list[np.ndarray[Any, Any]] = []
    shapes: list[tuple[Any, ...]] = []
    names: list[str] = []
    dtypes: list[str] = []
    for index, batch in enumerate(split):
        inputs = numeric_inputs(batch.inputs, float_dtype)
        arrays = leaves(inputs)
        batch_names = list(inputs) if isinstance(inputs, dict) else []
        if index == 0:
            names, dtypes = batch_names, [str(a.dtype) for a in arrays]
        if batch_names != names or len(arrays) != len(dtypes):
            raise DataError(
                f"{split.name} batches of one structure", f"batch {index} differs: inputs {batch_names or len(arrays)}"
            )
        check_finite(arrays, f"the inputs of {split.name}", rows)
        shapes.append(tuple(a.shape[1:] for a in arrays))
        count = rows_of(inputs)
        if any(len(array) != count for array in arrays):
            lengths = ", ".join(str(len(array)) for array in arrays)
            raise DataError(
                f"as many rows in every input of {split.name}", f"batch {index}: {lengths}", "put the batch axis first"
            )
        for name, part, kept in (("labels", batch.targets, targets), ("weights", batch.weight, weights)):
            if part is not None:
                array = to_numpy(part)
                if len(array) != count:
                    raise DataError(
                        f"as many {name} as rows in {split.name}", f"batch {index}: {len(array)} for {count} rows"
                    )
                check_finite([array], f"the {name} of {split.name}", rows)
                digest.update(np.ascontiguousarray(array).tobytes())
                kept.append(array)
        row_digests.update(row_hashes(inputs))
        samples.see(inputs)
        for start in range(0, count, EVALUATION_BATCH):
            part = take_rows(inputs, slice(start, start + EVALUATION_BATCH))
            for array in leaves(part):
                digest.update(np.ascontiguousarray(array).tobytes())
            write_shard(folder / f"{shard:06d}.npz", part)
            shard += 1
        rows += count
    if targets and sum(map(len, targets)) != rows:
        raise DataError(f"labels for every row of {split.name}", "some batches have none")
    signature = tuple(
        Leaf(names[i] if names else f"input_{i}", dtypes[i], (None, *_common([s[i] for s in shapes])))
        for i in range(len(dtypes))
    )
    return Frozen(
        folder,
        digest.hexdigest(),
        rows,
        join_ragged(targets, IGNORE_LABEL) if targets else None,
        join_ragged(weights) if weights else None,
        signature,
        bool(names),
        frozenset(row_digests),
        samples.rows(),
    )


def join_ragged(parts: Sequence[np.ndarray[Any, Any]], fill: int = 0) -> np.ndarray[Any, Any]:
    """Concatenate along rows; where a later axis varies (padding a batch at a time) pad to the longest.

    Args:
        parts: Arrays (rows, ...) of one number of axes; what is masked in them stays so.
        fill: What the padding holds.

    Returns:
        An array, a large one in a temporary file that goes with it; an `np.ma.MaskedArray` where something is padding,
        which is what its mask tells: a value may be any.

    Raises:
        DataError: Parts have another number of axes than others, or none.
    """
    tails = {part.shape[1:] for part in parts}
    axes = {part.ndim for part in parts}
    if len(axes) > 1 or 0 in axes:
        raise DataError(
            "batches that all have a row axis and the same number of axes",
            f"shapes {', '.join(map(str, sorted({part.shape for part in parts})[:3]))}",
            "a squeeze() drops the row axis of a batch of one row: name the axis, squeeze(-1)",
        )
    dtype, ragged = np.result_type(*{part.dtype for part in parts}), len(tails) > 1
    if ragged and fill < 0 and dtype.kind in "bu":
        dtype = np.dtype(np.int64)
    shape = sum(map(len, parts)), *(max(sizes) for sizes in zip(*tails, strict=True))
    masked = ragged or any(isinstance(part, np.ma.MaskedArray) for part in parts)
    values, padded = room(shape, dtype), room(shape if masked else (0,), np.bool_)
    if ragged:
        values[...], padded[...] = fill, True
    row = 0
    for part in parts:
        place = slice(row, row + len(part)), *map(slice, part.shape[1:])
        values[place] = np.ma.getdata(part)
        if masked:
            padded[place] = np.ma.getmask(part)
        row += len(part)
    return np.ma.MaskedArray(values, padded) if masked else values


def _common(shapes: Sequence[tuple[int, ...]]) -> tuple[int | None, ...]:
    if len({len(s) for s in shapes}) > 1:
        raise DataError("inputs with one number of axes", f"shapes {sorted(set(shapes))[:3]}")
    return tuple(sizes[0] if len(set(sizes)) == 1 else None for sizes in zip(*shapes, strict=True))


MOST_AXES = 3
"""Axes of a batch of sequences: rows, length, features."""


def opened(signature: tuple[Leaf, ...], row: Inputs) -> tuple[Leaf, ...]:
    """Return a signature with each axis open in which a row of another split differs; as it is where nothing fits.

    Inputs of more than three axes keep theirs: pictures of two sizes are so by choice, and an exporter that is told of
    any size writes a slower file, or one that is wrong for the other size (torch 2.13's of AdaptiveAvgPool2d).
    """
    arrays = leaves(row)
    named = not isinstance(row, dict) or list(row) == [leaf.name for leaf in signature]
    if not named or [array.ndim for array in arrays] != [len(leaf.shape) for leaf in signature]:
        return signature

    def shape(leaf: Leaf, array: Any) -> tuple[int | None, ...]:
        if array.ndim > MOST_AXES:
            return leaf.shape
        return (None, *(s if s == a else None for s, a in zip(leaf.shape[1:], array.shape[1:], strict=True)))

    return tuple(replace(leaf, shape=shape(leaf, array)) for leaf, array in zip(signature, arrays, strict=True))


def check_finite(arrays: Iterable[np.ndarray[Any, Any]], what: str, first_row: int = 0) -> None:
    """Raise a DataError that names the first row with NaN or infinity."""
    for array in arrays:
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            bad = ~np.isfinite(array.reshape(len(array), -1)).all(axis=1)
            row = first_row + int(np.flatnonzero(bad)[0])
            raise DataError(
                f"finite numbers in {what}",
                f"NaN or infinity in {int(bad.sum())} rows, first in row {row}",
                "fill or drop these rows before binding",
            )


def hash_rows(inputs: Inputs | Sequence[np.ndarray[Any, Any]]) -> set[bytes]:
    """Return an 8-byte content hash of each distinct row, over all inputs; see `row_hashes`."""
    return set(row_hashes(inputs))


def row_hashes(inputs: Inputs | Sequence[np.ndarray[Any, Any]]) -> list[bytes]:
    """Return an 8-byte content hash of each row, over all inputs.

    Whole numbers are the same in any width, and inputs by name in any order.

    Args:
        inputs: Arrays, whose first axis is the rows.
    """
    arrays = [inputs[name] for name in sorted(inputs)] if isinstance(inputs, dict) else inputs
    parts = [_of_one_width(np.ascontiguousarray(array)) for array in arrays]
    hashes = []
    for row in range(len(parts[0])):
        digest = hashlib.blake2b(digest_size=8)
        for part in parts:
            digest.update(part[row].tobytes())
        hashes.append(digest.digest())
    return hashes


def _of_one_width(array: np.ndarray[Any, Any]) -> Sequence[np.ndarray[Any, Any]]:
    """Return rows of whole numbers in 8 bits where all of a row fit, as pictures have them, and else in 64."""
    if array.dtype.kind not in "iub" or array.dtype in (np.uint8, np.bool_):
        return array  # type: ignore[return-value]  # indexed by rows
    flat = array.reshape(len(array), -1)
    fits: np.ndarray[Any, Any] = np.all((flat >= 0) & (flat < 256), axis=1)
    narrow, wide = array.astype(np.uint8), array.astype(np.int64)
    return [narrow[row] if fits[row] else wide[row] for row in range(len(array))]
