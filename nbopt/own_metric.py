"""A metric that the user wrote: what it is called, which way is better, and whether two are the same."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from types import CellType, CodeType, FunctionType, MethodType
from typing import Any

import numpy as np

from nbopt.arrays import to_numpy
from nbopt.errors import DataError

_OF_ERRORS = ("error", "loss", "deviance", "mse", "rmse", "mae", "mape", "nll", "perplexity", "brier", "wer", "cer")
_DEEPEST = 8
"""Objects in objects that are looked into: a metric may hold a whole library."""


def _layers(metric: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """Yield a function, and what it is a partial or a wrapper of."""
    layer: Any = metric
    for _ in range(_DEEPEST):
        yield layer
        layer = layer.func if isinstance(layer, partial) else getattr(layer, "__wrapped__", None)
        if layer is None:
            return


def name_of(metric: Callable[..., Any]) -> str:
    """Return a function's name, a partial's function's, or that of an object's class."""
    *_, inner = _layers(metric)
    return str(getattr(inner, "__name__", type(inner).__name__))


def greater_is_better(metric: Callable[..., Any]) -> bool:
    """Tell which way a user's metric is better: by its attribute `greater_is_better`, or else by its name.

    As scikit-learn has it: functions that end with _error, _loss or _deviance return what is to be small; so do
    classes that end with Error, Loss or Deviance.
    """
    for layer in _layers(metric):
        if hasattr(layer, "greater_is_better"):
            return bool(layer.greater_is_better)
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name_of(metric)).lower()
    return words.rpartition("_")[2] not in _OF_ERRORS


def content_of(metric: Callable[..., Any]) -> str:
    """Return a hash of what a function does: its code, and the values that it carries.

    Two metrics of one name, as when a cell is edited and run again or a function makes them, judge differently. Values
    of globals don't count: they change without the metric doing so.
    """
    return hashlib.sha256(_Teller().told(metric, _DEEPEST).encode()).hexdigest()


class _Teller:
    """Tell values as text that is the same in every process: no address, no order of a set."""

    def __init__(self) -> None:
        self._seen: set[int] = set()

    def told(self, value: Any, depth: int) -> str:
        """Return a value as text; an object that was told before, or lies deeper, by its class alone."""
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        if value is None or isinstance(value, bool | int | float | complex | str | bytes):
            return repr(value)
        if not depth:
            return kind
        if isinstance(value, set | frozenset):
            return f"{kind}{sorted(self.told(each, depth - 1) for each in value)}"
        if isinstance(value, Mapping):
            return f"{kind}{sorted((str(key), self.told(each, depth - 1)) for key, each in value.items())}"
        if id(value) in self._seen and not isinstance(value, list | tuple):
            return kind
        if not isinstance(value, list | tuple):
            self._seen.add(id(value))
        return f"{kind}({', '.join(self.told(part, depth - 1) for part in _parts(value))})"


def _parts(value: Any) -> Sequence[Any]:
    """Return what a value consists of."""
    if isinstance(value, list | tuple):
        return value
    if isinstance(value, partial):
        return value.func, value.args, value.keywords
    if isinstance(value, MethodType):
        return value.__func__, value.__self__
    if isinstance(value, FunctionType):
        cells = tuple(cell.cell_contents for cell in value.__closure__ or () if cell != CellType())
        wrapped = getattr(value, "__wrapped__", None)
        return value.__qualname__, value.__code__, value.__defaults__, value.__kwdefaults__, cells, wrapped
    if isinstance(value, CodeType):
        return value.co_code, value.co_names, value.co_consts
    if isinstance(value, type) or hasattr(value, "__name__"):  # a class, a module, a function in C
        return str(getattr(value, "__module__", "")), str(getattr(value, "__qualname__", value.__name__))
    return _array_of(value), vars(type(value)).get("__call__"), getattr(value, "__dict__", None)


def _array_of(value: Any) -> str:
    """Return a hash of what an array or a tensor holds, "" of anything else."""
    if not hasattr(value, "shape"):
        return ""
    try:
        array = to_numpy(value)
    except DataError:  # no numbers: its class alone tells
        return ""
    content = np.ascontiguousarray(array).tobytes()
    return f"{array.dtype}{array.shape}{hashlib.sha256(content).hexdigest()}"
