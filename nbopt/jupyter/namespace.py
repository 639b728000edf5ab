"""What stands in the notebook's variables: which can be models, which can be data."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from typing import Any

from nbopt.errors import ModelError
from nbopt.frameworks import framework_of

_NEITHER = (
    str,
    bytes,
    int,
    float,
    complex,
    type,
    types.ModuleType,
    types.FunctionType,
    types.BuiltinFunctionType,
)
_TOOLS = frozenset({"builtins", "collections", "IPython", "nbopt", "numpy", "pandas", "matplotlib", "plotly"})
"""Packages whose iterables hold no batches."""


def is_model(value: Any) -> bool:
    """Tell whether a value is a model of a framework; none is imported to find out."""
    if value is None or isinstance(value, (*_NEITHER, tuple, list, dict)):
        return False
    try:
        framework_of(value)
    except ModelError:
        return False
    return True


def is_data(value: Any) -> bool:
    """Tell whether a value has a form of data that a workload takes: a loader, `(x, y)`, a list of batches."""
    if value is None or isinstance(value, _NEITHER):
        return False
    if isinstance(value, Mapping):
        return "labels" in value or "label" in value
    if isinstance(value, tuple):
        return len(value) in (2, 3) and _holds_arrays(value[0]) and _holds_arrays(value[1])
    if isinstance(value, list):
        return bool(value) and isinstance(value[0], (tuple, dict)) and len(value[0]) > 1
    if hasattr(value, "shape") or hasattr(value, "__next__") or type(value).__module__.split(".")[0] in _TOOLS:
        return False
    kinds = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(value).__mro__}
    if "torch.utils.data.dataset.Dataset" in kinds:
        return False  # it gives single rows; the loader around it is what is taken
    batches = hasattr(value, "__iter__") or (hasattr(value, "__getitem__") and hasattr(value, "__len__"))
    return batches and not is_model(value)


def is_same(one: Any, other: Any) -> bool:
    """Tell whether two values that a workload is bound with are one: the same object, arrays, or text."""
    if isinstance(one, tuple) and isinstance(other, tuple) and len(one) == len(other):
        return all(a is b for a, b in zip(one, other, strict=True))
    return one is other or (isinstance(one, str) and one == other)


def is_like(value: Any, other: Any) -> bool:
    """Tell whether a value can stand where another does: a model for a model, data for data, else one of its type."""
    return any(test(value) and test(other) for test in (is_model, is_data)) or type(value) is type(other)


def is_array(value: Any) -> bool:
    """Tell whether a value is an array, a tensor or a table of any library."""
    if isinstance(value, _NEITHER) or not hasattr(value, "shape"):
        return False
    return hasattr(value, "dtype") or hasattr(value, "to_numpy")  # a DataFrame has a type for each column


def _holds_arrays(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return bool(value) and not isinstance(value[0], str)
    return isinstance(value, dict) or len(getattr(value, "shape", ())) > 0


def names_of(variables: Mapping[str, Any], test: Any) -> list[str]:
    """Return the names of the variables that pass a test, IPython's own (`_`, `Out`) left out."""
    return [
        name
        for name, value in list(variables.items())
        if not name.startswith("_") and name not in ("In", "Out") and test(value)
    ]


def data_names(variables: Mapping[str, Any]) -> list[str]:
    """Return what can stand as data in a line: variables that are data, and arrays in pairs: `x_train,y_train`."""
    found = names_of(variables, is_data)
    for name in names_of(variables, is_array):
        if name[0] not in "xX":
            continue
        labels = next((each for each in (f"y{name[1:]}", f"Y{name[1:]}") if each in variables), "")
        if labels and is_array(variables[labels]) and _rows(variables[labels]) == _rows(variables[name]):
            found.append(f"{name},{labels}")
    return found


def _rows(array: Any) -> int:
    return int(array.shape[0]) if len(array.shape) else -1


def name_of(value: Any, variables: Mapping[str, Any], liked: Sequence[str] = ()) -> str:
    """Return the variable that holds a value, or the variables of a tuple by commas; "" where there is none.

    Args:
        value: The value.
        variables: The notebook's variables.
        liked: Which to take of several that hold it, the first first; else the last is taken.
    """
    found = names_of(variables, lambda held: held is value)
    if found:
        return next((name for name in liked if name in found), found[-1])
    if isinstance(value, tuple) and value:
        parts = [name_of(part, variables, liked) for part in value]
        return ",".join(parts) if all(parts) else ""
    return ""


def suggestion(variables: Mapping[str, Any]) -> str:
    """Return the line that binds, with names that stand in this notebook."""
    models = names_of(variables, is_model) or ["model"]
    data = data_names(variables)
    train = next((name for name in data if "train" in name), "train_dl")
    valid = next((name for name in data if name != train and "train" not in name), "valid_dl")
    return f"%optimize use {models[-1]} --train {train} --valid {valid}"
