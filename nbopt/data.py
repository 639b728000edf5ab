"""Splits of the user's data: every batch form read into one, and frozen to disk for other processes."""

from __future__ import annotations

import hashlib
import json
import random
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np

from nbopt.errors import FULL, DataError, disk_error

Inputs = tuple[Any, ...] | dict[str, Any]
"""What a model is called with: positional leaves, or leaves by name."""

EVALUATION_BATCH = 256
LABEL_KEYS = ("labels", "label")


@dataclass(frozen=True)
class Batch:
    """Hold one batch in the form that the user's own data has (tensors stay tensors)."""

    inputs: Inputs
    targets: Any = None
    weight: Any = None

    @property
    def rows(self) -> int:
        """Return the number of rows, from the first input's first axis."""
        return rows_of(self.inputs)


def leaves(inputs: Inputs) -> list[Any]:
    """Return the arrays of `inputs` in order."""
    return list(inputs.values()) if isinstance(inputs, dict) else list(inputs)


def map_leaves(function: Callable[[Any], Any], inputs: Inputs) -> Inputs:
    """Apply `function` to each array and keep the structure."""
    if isinstance(inputs, dict):
        return {name: function(value) for name, value in inputs.items()}
    return tuple(function(value) for value in inputs)


def rows_of(inputs: Inputs) -> int:
    """Return the length of the first axis of the first leaf."""
    values = leaves(inputs)
    if not values or not len(getattr(values[0], "shape", ())):
        raise DataError(
            "inputs with a batch axis first",
            "a batch without inputs" if not values else "an input that is a single number",
            "pass arrays of shape (rows, ...)",
        )
    return int(values[0].shape[0])


def take_rows(inputs: Inputs, rows: Any) -> Inputs:
    """Return the given rows (a slice or an index array) of every leaf."""
    return map_leaves(lambda leaf: leaf[rows], inputs)


def to_numpy(value: Any) -> np.ndarray[Any, Any]:
    """Return a torch or TensorFlow tensor, a pandas object, a list or an array as a NumPy array.

    Raises:
        DataError: The value has no numeric array form (strings, ragged lists).
    """
    if isinstance(value, np.ndarray):
        array = value
    elif hasattr(value, "detach"):
        tensor = value.detach().cpu()
        # NumPy has no bfloat16; float32 holds each of its values exactly.
        array = (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()
    elif hasattr(value, "to_numpy"):
        array = value.to_numpy()
    elif hasattr(value, "numpy"):
        array = np.asarray(value.numpy())
    else:
        try:
            array = np.asarray(value)
        except ValueError as error:
            raise DataError(
                "numeric arrays", f"a {type(value).__name__} of uneven rows", "pad the rows to one length"
            ) from error
    if array.dtype == object or array.dtype.kind in "USO":
        raise DataError(
            "numeric arrays",
            f"a {type(value).__name__} of dtype {array.dtype}",
            "encode text and categories as numbers first",
        )
    return array


def as_inputs(value: Any) -> Inputs:
    """Return what a model is called with, from one array, several, or a mapping of them."""
    if isinstance(value, Mapping):
        return {str(name): _arrayish(leaf) for name, leaf in value.items()}
    if isinstance(value, (tuple, list)) and value and all(_is_array(leaf) for leaf in value):
        return tuple(value)
    return (_arrayish(value),)


def as_batch(item: Any) -> Batch:
    """Return a batch from `(x, y)`, `(x, y, weight)`, `(dict, y)`, a dict with `labels`, or inputs alone."""
    if isinstance(item, Batch):
        return item
    if isinstance(item, Mapping):
        parts = dict(item)
        for key in LABEL_KEYS:
            if key in parts:
                targets = parts.pop(key)
                return Batch(as_inputs(parts), _arrayish(targets))
        return Batch(as_inputs(parts))
    if isinstance(item, (tuple, list)):
        if len(item) == 1:
            return Batch(as_inputs(item[0]))
        if len(item) in (2, 3):
            weight = _arrayish(item[2]) if len(item) == 3 and item[2] is not None else None
            targets = None if item[1] is None else _arrayish(item[1])
            return Batch(as_inputs(item[0]), targets, weight)
        raise DataError(
            "batches (x, y), (x, y, weight), (dict, y) or a dict with 'labels'",
            f"a {type(item).__name__} of {len(item)} parts",
            "group several inputs as ((a, b), y)",
        )
    return Batch(as_inputs(item))


def _is_array(value: Any) -> bool:
    return len(getattr(value, "shape", ())) > 0


def _arrayish(value: Any) -> Any:
    """Keep tensors and arrays as they are; bring everything else (lists, pandas) to NumPy."""
    if hasattr(value, "detach") or isinstance(value, np.ndarray):
        return value
    if _is_array(value) and not hasattr(value, "to_numpy"):
        return value
    return to_numpy(value)


@contextmanager
def kept_randomness() -> Iterator[None]:
    """Give the user's random state back afterwards: a torch DataLoader draws from it on each pass.

    Python's, NumPy's and, where torch is imported, torch's own on CPU.
    """
    torch = sys.modules.get("torch")
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - the user's own global state
    state = None if torch is None else torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002 - as above
        if torch is not None:
            torch.set_rng_state(state)


class Split:
    """Read one split of the user's data, again on each pass.

    Args:
        source: A loader, a `tf.data.Dataset`, a `keras.utils.PyDataset`, arrays `(x, y)`, a dict of arrays
            with `labels`, any re-iterable of batches, or a function that returns a fresh iterator.
        name: What messages call it: "train", "valid" or "test".

    Raises:
        DataError: The source is a generator (one pass only), a data set of single rows, empty, or has no
            form that is known.
    """

    def __init__(self, source: Any, name: str) -> None:
        self.name = name
        self.source = source
        self._whole: Batch | None = None
        if iter_once(source):
            raise DataError(
                f"{name} data that can be read again on each pass",
                f"a {type(source).__name__}, which is empty after one pass",
                f"{name}=list(batches), a DataLoader, or a function that returns a new iterator",
            )
        if _is_arrays(source):
            self._whole = as_batch(source)
            self._check_lengths(self._whole)
        elif _is_row_dataset(source):
            raise DataError(
                f"{name} batches",
                f"a {type(source).__name__}, which gives single rows",
                f"{name}=DataLoader(dataset, batch_size=256)",
            )
        elif not (callable(source) or hasattr(source, "__iter__") or hasattr(source, "__getitem__")):
            raise DataError(
                f"{name} data: a DataLoader, a tf.data.Dataset, arrays (x, y), or a list of batches",
                f"a {type(source).__name__}",
            )

    def _check_lengths(self, batch: Batch) -> None:
        lengths = [len(leaf) for leaf in leaves(batch.inputs)]
        lengths += [len(part) for part in (batch.targets, batch.weight) if part is not None]
        if len(set(lengths)) > 1:
            raise DataError(
                f"{self.name} arrays of one length",
                f"lengths {', '.join(map(str, lengths))}",
                "give as many labels as rows",
            )
        if lengths and lengths[0] == 0:
            self._raise_empty()

    def _raise_empty(self) -> None:
        raise DataError(
            f"{self.name} data with at least one row",
            "none: it yielded no batch",
            "check the filter, the file's path, or drop_last with a batch larger than the data",
        )

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches in the source's own order; arrays in batches of 256 rows.

        Raises:
            DataError: No batch came.
        """
        empty = True
        for batch in self._batches(EVALUATION_BATCH, None):
            empty = False
            yield batch
        if empty:
            self._raise_empty()

    def training_batches(self, batch_size: int, rng: np.random.Generator) -> Iterator[Batch]:
        """Yield batches for one epoch; arrays are shuffled with `rng`, a loader keeps its own order."""
        empty = True
        for batch in self._batches(batch_size, rng):
            empty = False
            yield batch
        if empty:
            self._raise_empty()

    def first(self) -> Batch:
        """Return the first batch.

        Raises:
            DataError: No batch came.
        """
        return next(iter(self))

    def steps(self, batch_size: int) -> int | None:
        """Return the batches of one pass, or None where the source does not tell."""
        if self._whole is not None:
            return -(-self._whole.rows // batch_size)
        try:
            return len(self.source)
        except TypeError:
            return None

    def _batches(self, batch_size: int, rng: np.random.Generator | None) -> Iterator[Batch]:
        if self._whole is not None:
            yield from _slices(self._whole, batch_size, rng)
            return
        source = self.source() if callable(self.source) and not hasattr(self.source, "__iter__") else self.source
        if hasattr(source, "__iter__"):
            items: Iterable[Any] = source
        else:
            # keras.utils.PyDataset and Sequence-like sources index batches and may never raise IndexError.
            items = (source[index] for index in range(len(source)))
        for item in items:
            batch = as_batch(item)
            if batch.rows:
                yield batch


def iter_once(source: Any) -> bool:
    """Tell whether `source` is an iterator, spent after one pass."""
    return hasattr(source, "__next__") and not hasattr(source, "__getitem__")


def _is_arrays(source: Any) -> bool:
    """Tell whole arrays from an iterable of batches."""
    if _is_array(source):
        return True
    if isinstance(source, Mapping):
        return True
    if isinstance(source, tuple) and len(source) in (2, 3):
        # A tuple of batches, ((x, y), (x, y)), has a tuple in its second place too; labels are one array.
        x, y = source[0], source[1]
        one_array_of_labels = y is None or _is_array(y) or (isinstance(y, list) and bool(y) and np.isscalar(y[0]))
        return one_array_of_labels and (_is_array(x) or isinstance(x, (Mapping, tuple, list)))
    return False


def _is_row_dataset(source: Any) -> bool:
    module = type(source).__mro__
    names = {f"{c.__module__}.{c.__qualname__}" for c in module}
    return "torch.utils.data.dataset.Dataset" in names


def _slices(whole: Batch, size: int, rng: np.random.Generator | None) -> Iterator[Batch]:
    order = None if rng is None else rng.permutation(whole.rows)
    for start in range(0, whole.rows, size):
        rows: Any = slice(start, start + size) if order is None else order[start : start + size]
        yield Batch(
            take_rows(whole.inputs, rows),
            None if whole.targets is None else whole.targets[rows],
            None if whole.weight is None else whole.weight[rows],
        )


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
        targets: Labels of all rows, or None.
        weight: Row weights, or None.
        signature: A leaf for each input; an axis that varied between batches is None, the first always.
        keyed: Inputs are by name.
        row_digests: 8-byte hash of each row's inputs, for finding shared rows.
    """

    folder: Path
    digest: str
    rows: int
    targets: np.ndarray[Any, Any] | None
    weight: np.ndarray[Any, Any] | None
    signature: tuple[Leaf, ...]
    keyed: bool
    row_digests: frozenset[bytes] = field(repr=False, default=frozenset())

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
        with kept_randomness():
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
        row_digests.update(hash_rows(arrays))
        for start in range(0, count, EVALUATION_BATCH):
            part_arrays = [a[start : start + EVALUATION_BATCH] for a in arrays]
            for array in part_arrays:
                digest.update(np.ascontiguousarray(array).tobytes())
            named = {f"leaf{i}": a for i, a in enumerate(part_arrays)}
            np.savez(folder / f"{shard:06d}.npz", names=json.dumps(batch_names), count=len(arrays), **named)
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
        join_ragged(targets) if targets else None,
        np.concatenate(weights) if weights else None,
        signature,
        bool(names),
        frozenset(row_digests),
    )


def join_ragged(parts: Sequence[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """Concatenate along rows; where a later axis varies (padding a batch at a time) pad with -100.

    -100 is what loss functions of sequence models ignore (`torch.nn.CrossEntropyLoss`'s `ignore_index`).
    """
    tails = {part.shape[1:] for part in parts}
    if len(tails) == 1:
        return np.concatenate(parts)
    widest = [max(sizes) for sizes in zip(*tails, strict=True)]
    padded = [
        np.pad(p, [(0, 0), *((0, w - s) for w, s in zip(widest, p.shape[1:], strict=True))], constant_values=-100)
        for p in parts
    ]
    return np.concatenate(padded)


def _common(shapes: Sequence[tuple[int, ...]]) -> tuple[int | None, ...]:
    if len({len(s) for s in shapes}) > 1:
        raise DataError("inputs with one number of axes", f"shapes {sorted(set(shapes))[:3]}")
    return tuple(sizes[0] if len(set(sizes)) == 1 else None for sizes in zip(*shapes, strict=True))


def numeric_inputs(inputs: Inputs, float_dtype: str) -> Inputs:
    """Return `inputs` as NumPy arrays whose floating leaves have the model's dtype."""

    def cast(leaf: Any) -> np.ndarray[Any, Any]:
        array = to_numpy(leaf)
        return array.astype(float_dtype) if array.dtype.kind == "f" and array.dtype != float_dtype else array

    return map_leaves(cast, inputs)


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


def hash_rows(arrays: Sequence[np.ndarray[Any, Any]]) -> set[bytes]:
    """Return an 8-byte content hash of each row, over all inputs."""
    contiguous = [np.ascontiguousarray(a) for a in arrays]
    hashes = set()
    for row in range(len(contiguous[0])):
        digest = hashlib.blake2b(digest_size=8)
        for array in contiguous:
            digest.update(array[row].tobytes())
        hashes.add(digest.digest())
    return hashes
