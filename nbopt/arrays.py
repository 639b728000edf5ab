"""Arrays in any usual form, brought to NumPy."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from nbopt.errors import DataError

What = Literal["arrays", "labels", "row weights"]

ENCODE: dict[What, str] = {
    "arrays": "encode text and categories as numbers first",
    "labels": "encode classes as whole numbers from 0, for example with pandas.factorize",
    "row weights": "batches are read as (x, y, weight): leave names and ids out of them",
}


def to_numpy(value: Any, what: What = "arrays") -> np.ndarray[Any, Any]:
    """Return a torch or TensorFlow tensor, a pandas object, a list or an array as a NumPy array.

    Args:
        value: In whatever form.
        what: What it is to be, for the message.

    Raises:
        DataError: The value has no numeric array form (strings, dates, ragged lists), or is sparse.
    """
    check_dense(value, what)
    if isinstance(value, np.ndarray):
        array = value
    elif hasattr(value, "detach"):
        tensor = value.detach().cpu()
        # NumPy has no bfloat16; float32 holds each of its values exactly.
        array = (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()
    elif hasattr(value, "to_numpy"):
        array = _of_pandas(value, what)
    elif hasattr(value, "numpy"):
        array = np.asarray(value.numpy())
    else:
        try:
            array = np.asarray(value)
        except ValueError as error:
            raise DataError(
                f"numeric {what}", f"a {type(value).__name__} of uneven rows", "pad the rows to one length"
            ) from error
    if array.dtype.kind in "OUSMm":
        such = f", such as {str(array.flat[0])[:20]!r}" if array.size and what != "arrays" else ""
        raise DataError(f"numeric {what}", f"a {type(value).__name__} of dtype {array.dtype}{such}", ENCODE[what])
    return array


def check_dense(value: Any, what: What = "arrays") -> None:
    """Raise a DataError for a sparse matrix or tensor, which says how it becomes dense."""
    kind = type(value).__name__
    dense = {"toarray": "x.toarray()", "todense": "x.todense()", "dense_shape": "tf.sparse.to_dense(x)"}
    how = next((text for name, text in dense.items() if hasattr(value, name)), "")
    if hasattr(value, "to_dense") and str(getattr(value, "layout", "torch.strided")) != "torch.strided":
        how = "x.to_dense()"
    if how:
        raise DataError(f"dense {what}", f"a {kind}, which is sparse", how)


def _of_pandas(value: Any, what: What) -> np.ndarray[Any, Any]:
    """Return a table's or a column's numbers; of columns of several types, or of nullable ones, pandas makes objects.

    Raises:
        DataError: A column is no number; the message names it.
    """
    array: np.ndarray[Any, Any] = value.to_numpy()
    if array.dtype != object:
        return array
    columns = dict(value.dtypes.items()) if hasattr(getattr(value, "dtypes", None), "items") else {}
    bad = [name for name, dtype in columns.items() if dtype.kind not in "iufb"]
    if bad:
        names = ", ".join(map(repr, bad[:3])) + (" and more" if len(bad) > 3 else "")
        came = f"a {type(value).__name__} with {columns[bad[0]]} in {'columns' if len(bad) > 1 else 'column'} {names}"
        raise DataError(f"numeric {what}", came, ENCODE[what])
    kinds = {getattr(dtype, "kind", "O") for dtype in columns.values() or [getattr(value, "dtype", None)]}
    if not kinds <= set("iufb"):
        return array
    if "f" in kinds or bool(np.any(value.isna())):
        return np.asarray(value.to_numpy(dtype="float64", na_value=np.nan))
    return np.asarray(value.to_numpy(dtype="int64"))
