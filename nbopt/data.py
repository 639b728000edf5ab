"""Splits of the user's data, read batch by batch, again on each pass."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

import numpy as np

from nbopt.batches import LABEL_KEYS, Batch, as_batch, is_array, leaves, take_rows
from nbopt.errors import DataError

EVALUATION_BATCH = 256
MOST_LENGTHS = 6


@contextmanager
def kept_randomness(*splits: Split | None) -> Iterator[None]:
    """Give the user's random state back afterwards: a torch DataLoader draws from it on each pass.

    Python's, NumPy's and, where torch is imported, torch's own on CPU; of `splits` that of a loader's own generator.
    """
    torch = sys.modules.get("torch")
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - the user's own global state
    state = None if torch is None else torch.get_rng_state()
    own = [(each, each.get_state()) for split in splits if split is not None for each in split.generators]
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002 - as above
        if torch is not None:
            torch.set_rng_state(state)
        for each, before in own:
            each.set_state(before)


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
            self._raise_rows(source)
        elif _is_endless(source):
            raise DataError(
                f"{name} data that ends",
                f"a {type(source).__name__} that repeats for ever",
                "leave .repeat() out of it",
            )
        elif not (callable(source) or hasattr(source, "__iter__") or hasattr(source, "__getitem__")):
            raise DataError(
                f"{name} data: a DataLoader, a tf.data.Dataset, arrays (x, y), or a list of batches",
                f"a {type(source).__name__}",
            )

    def _check_lengths(self, batch: Batch) -> None:
        inputs = [len(leaf) for leaf in leaves(batch.inputs)]
        lengths = inputs + [len(part) for part in (batch.targets, batch.weight) if part is not None]
        if len(set(lengths)) > 1:
            told = ", ".join(map(str, lengths[:MOST_LENGTHS])) + (" and more" if len(lengths) > MOST_LENGTHS else "")
            # A list of arrays is several inputs; one with as many as there are labels was to be a row each.
            rows = len(inputs) > 1 and len(inputs) in lengths[len(inputs) :]
            raise DataError(
                f"{self.name} arrays of one length",
                f"{len(inputs):,} inputs, with lengths {told}" if rows else f"lengths {told}",
                "np.stack(x): a list of arrays is read as so many inputs" if rows else "give as many labels as rows",
            )
        if lengths and lengths[0] == 0:
            self._raise_empty()

    def _raise_empty(self) -> None:
        raise DataError(
            f"{self.name} data with at least one row",
            "none: it yielded no batch",
            "check the filter, the file's path, or drop_last with a batch larger than the data",
        )

    def _raise_rows(self, source: Any) -> NoReturn:
        raise DataError(
            f"{self.name} batches",
            f"a {type(source).__name__}, which gives single rows",
            f"{self.name}=DataLoader(dataset, batch_size=256) (batch_size=None where it gives batches), "
            "dataset.batch(256) of tf.data, or arrays (x, y)",
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
        """Yield batches for one epoch; arrays are shuffled with `rng`, a loader keeps its own order.

        One row that arrays leave over joins the last batch: BatchNorm can't train on a row alone.
        """
        empty = True
        for batch in self._batches(batch_size, rng):
            empty = False
            yield batch
        if empty:
            self._raise_empty()

    def some(self, rows: int, batch_size: int, rng: np.random.Generator) -> Iterator[Batch]:
        """Yield the first batches of a pass as `training_batches` gives it, until there are so many rows."""
        for batch in self.training_batches(batch_size, rng):
            yield batch
            rows -= batch.rows
            if rows <= 0:
                return

    def first(self) -> Batch:
        """Return the first batch.

        Raises:
            DataError: No batch came.
        """
        return next(iter(self))

    @property
    def whole_rows(self) -> int | None:
        """Return the rows of arrays, which have no batches of their own; None of any other source."""
        return None if self._whole is None else self._whole.rows

    def steps(self, batch_size: int) -> int | None:
        """Return the batches of one pass, or None where the source does not tell."""
        if self._whole is not None:
            return len(_starts(self._whole.rows, batch_size))
        try:
            return len(self.source)
        except TypeError:
            return None

    @property
    def generators(self) -> list[Any]:
        """Return the random generators of the user's that a torch DataLoader or its sampler draws from."""
        sampler = getattr(self.source, "sampler", None)
        inner = getattr(getattr(self.source, "batch_sampler", None), "sampler", None)
        found = [getattr(holder, "generator", None) for holder in (self.source, sampler, inner)]
        return [each for each in found if hasattr(each, "get_state") and hasattr(each, "set_state")]

    def _batches(self, batch_size: int, rng: np.random.Generator | None) -> Iterator[Batch]:
        if self._whole is not None:
            yield from _slices(self._whole, batch_size, rng)
            return
        source = self.source() if callable(self.source) and not hasattr(self.source, "__iter__") else self.source
        # keras.utils.PyDataset and Sequence-like sources index batches and may never raise IndexError; Keras's
        # ImageDataGenerator gives an iterator over them that goes on for ever.
        by_index = hasattr(source, "__getitem__") and hasattr(source, "__len__")
        if hasattr(source, "__iter__") and not (by_index and hasattr(source, "__next__")):
            items: Iterable[Any] = source
        else:
            items = (source[index] for index in range(len(source)))
        for item in items:
            batch = as_batch(item)
            if batch.targets is not None and not len(getattr(batch.targets, "shape", ())):
                self._raise_rows(source)
            if batch.rows:
                yield batch


def iter_once(source: Any) -> bool:
    """Tell whether `source` is an iterator, spent after one pass."""
    return hasattr(source, "__next__") and not hasattr(source, "__getitem__")


def _is_arrays(source: Any) -> bool:
    """Tell whole arrays from an iterable of batches."""
    if is_array(source):
        return True
    if isinstance(source, Mapping):
        return True
    if isinstance(source, list) and len(source) == 2 and all(map(is_array, source)):
        # [x, y] for (x, y) is a common slip. Two batches without labels have as many axes as each other.
        x, y = source
        return len(x) == len(y) and len(y.shape) < len(x.shape)
    if isinstance(source, tuple) and len(source) in (2, 3):
        # A tuple of batches, ((x, y), (x, y)), has a tuple in its second place too; labels are one array.
        x, y = source[0], source[1]
        one_array_of_labels = y is None or is_array(y) or (isinstance(y, list) and bool(y) and np.isscalar(y[0]))
        if one_array_of_labels:
            return is_array(x) or isinstance(x, (Mapping, tuple, list))
        # Labels of several outputs, which `as_batch` tells about; two batches are tuples, or dicts with labels.
        if isinstance(x, Mapping) and isinstance(y, Mapping):
            return not any(key in part for key in LABEL_KEYS for part in (x, y))
        return is_array(x) and isinstance(y, (Mapping, list, tuple))
    return False


def _is_row_dataset(source: Any) -> bool:
    module = type(source).__mro__
    names = {f"{c.__module__}.{c.__qualname__}" for c in module}
    return "torch.utils.data.dataset.Dataset" in names


def _starts(rows: int, size: int) -> range:
    """Return where each batch of a training begins."""
    return range(0, rows - 1 if size > 1 and rows > size and rows % size == 1 else rows, size)


def _is_endless(source: Any) -> bool:
    """Tell whether a tf.data pipeline repeats for ever: an epoch of it would never end, and its rows fill the disk."""
    cardinality = getattr(source, "cardinality", None)
    if "tensorflow" not in sys.modules or not callable(cardinality) or not hasattr(source, "element_spec"):
        return False
    return int(cardinality()) == int(sys.modules["tensorflow"].data.INFINITE_CARDINALITY)


def _slices(whole: Batch, size: int, rng: np.random.Generator | None) -> Iterator[Batch]:
    order = None if rng is None else rng.permutation(whole.rows)
    starts = range(0, whole.rows, size) if order is None else _starts(whole.rows, size)
    for start in starts:
        end = whole.rows if order is not None and start == starts[-1] else start + size
        rows: Any = slice(start, end) if order is None else order[start:end]
        yield Batch(
            take_rows(whole.inputs, rows),
            None if whole.targets is None else whole.targets[rows],
            None if whole.weight is None else whole.weight[rows],
        )
