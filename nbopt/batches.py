"""Batches: every form that a user's data gives them in, read into one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

from nbopt.arrays import What, check_dense, to_numpy
from nbopt.errors import DataError

Inputs = tuple[Any, ...] | dict[str, Any]
"""What a model is called with: positional leaves, or leaves by name."""

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


def identifiers(names: Iterable[str]) -> list[str]:
    """Return names of inputs as distinct ASCII identifiers: "hours-per-week" is "hours_per_week"."""
    made: list[str] = []
    for name in names:
        plain = re.sub(r"\W", "_", name, flags=re.ASCII)
        plain = plain if plain[:1].isalpha() else f"arg_{plain}"
        made.append(next(each for i in count() if (each := f"{plain}_{i}" if i else plain) not in made))
    return made


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


def classes_second(outputs: tuple[int, ...], labels: tuple[int, ...]) -> bool:
    """Tell from shapes whether outputs have their classes in the second axis: (rows, classes, height, width)."""
    return len(outputs) > 2 and labels == (outputs[0], *outputs[2:]) and labels != outputs[:-1]


def all_finite(batch: Batch) -> bool:
    """Tell whether inputs, targets and weights of a batch are numbers, none of them NaN or infinite."""
    parts = [*leaves(batch.inputs), *(part for part in (batch.targets, batch.weight) if part is not None)]
    return all(bool(np.isfinite(array).all()) for array in map(to_numpy, parts) if array.dtype.kind == "f")


def as_inputs(value: Any) -> Inputs:
    """Return what a model is called with, from one array, several, or a mapping of them."""
    if isinstance(value, Mapping):
        return {str(name): _arrayish(leaf) for name, leaf in value.items()}
    if isinstance(value, (tuple, list)) and value and all(is_array(leaf) for leaf in value):
        return tuple(map(_arrayish, value))
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
                return Batch(as_inputs(parts), _arrayish(targets, "labels"))
        return Batch(as_inputs(parts))
    if isinstance(item, (tuple, list)):
        if len(item) == 1:
            return Batch(as_inputs(item[0]))
        if len(item) in (2, 3):
            weight = _weights(item[2]) if len(item) == 3 and item[2] is not None else None
            inputs = as_inputs(item[0])
            return Batch(inputs, None if item[1] is None else _one_target(item[1], rows_of(inputs)), weight)
        raise DataError(
            "batches (x, y), (x, y, weight), (dict, y) or a dict with 'labels'",
            f"a {type(item).__name__} of {len(item)} parts",
            "group several inputs as ((a, b), y)",
        )
    return Batch(as_inputs(item))


MOST_DIFFERENT = 32
"""Rows whose weights may be whole numbers of which none comes twice, as counts of few rows are by chance."""


def _weights(value: Any) -> Any:
    """Return row weights.

    Raises:
        DataError: They are texts, or whole numbers of which none comes twice, as those of rows are.
    """
    weights = _arrayish(value, "row weights")
    numbers = to_numpy(weights)
    if numbers.dtype.kind in "iu" and numbers.size >= MOST_DIFFERENT and len(np.unique(numbers)) == numbers.size:
        raise DataError(
            "(x, y, weight), with how much each row counts",
            f"whole numbers that are all different ({', '.join(map(str, numbers.flat[:3]))}), as row numbers are",
            "leave row numbers out of the batches; weights that are so as floats",
        )
    return weights


def _one_target(value: Any, rows: int) -> Any:
    """Return labels as one array.

    Raises:
        DataError: They are those of several outputs; one of them is judged.
    """
    several = list(value.values()) if isinstance(value, Mapping) else value
    # A list of as many arrays as there are rows is a label for each row, as some collate functions give them.
    if isinstance(several, (list, tuple)) and len(several) not in (0, rows) and all(map(is_array, several)):
        if len(several) == 1:
            return _arrayish(several[0], "labels")
        names = f": {', '.join(map(str, value))}" if isinstance(value, Mapping) else ""
        first = repr(next(iter(value))) if isinstance(value, Mapping) else "0"
        raise DataError(
            "labels as one array, those of the model's first output",
            f"labels for {len(several)} outputs{names}",
            f"give (x, y[{first}]); to judge another output, put it first in a model around yours",
        )
    return _arrayish(value, "labels")


def is_array(value: Any) -> bool:
    """Tell whether a value has axes, as tensors, arrays and pandas objects have."""
    return len(getattr(value, "shape", ())) > 0


def _arrayish(value: Any, what: What = "arrays") -> Any:
    """Keep tensors and arrays as they are; bring everything else (lists, pandas) to NumPy."""
    check_dense(value, what)
    if hasattr(value, "detach") or (isinstance(value, np.ndarray) and value.dtype.kind not in "OUSMm"):
        return value
    if is_array(value) and not hasattr(value, "to_numpy") and not isinstance(value, np.ndarray):
        return value
    return to_numpy(value, what)


def numeric_inputs(inputs: Inputs, float_dtype: str) -> Inputs:
    """Return `inputs` as NumPy arrays whose floating leaves have the model's dtype."""

    def cast(leaf: Any) -> np.ndarray[Any, Any]:
        array = to_numpy(leaf)
        return array.astype(float_dtype) if array.dtype.kind == "f" and array.dtype != float_dtype else array

    return map_leaves(cast, inputs)
