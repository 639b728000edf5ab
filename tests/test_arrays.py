"""What users call arrays becomes NumPy, or is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch

from nbopt.arrays import What, to_numpy
from nbopt.batches import as_batch
from nbopt.data import Split
from nbopt.errors import DataError

MIXED = pd.DataFrame({"size": [1.5, 2.0], "new": [True, False], "rooms": [3, 4]})


@pytest.mark.parametrize(
    ("value", "dtype", "rows"),
    [
        (MIXED, "float64", [[1.5, 1, 3], [2, 0, 4]]),
        (MIXED.convert_dtypes(), "float64", [[1.5, 1, 3], [2, 0, 4]]),
        (MIXED[["new", "rooms"]], "int64", [[1, 3], [0, 4]]),
        (MIXED.size, "int64", 6),
        (pd.Series([1, 2], dtype="Int64"), "int64", [1, 2]),
        (pd.Series([1, 0]).astype("category"), "int64", [1, 0]),
        (pd.Series([0.5, None], dtype="Float32"), "float32", [0.5, np.nan]),
        (pd.Series([True, None], dtype="boolean"), "float64", [1, np.nan]),
        (pd.Index([4, 5]), "int64", [4, 5]),
        (torch.ones(2, dtype=torch.bfloat16, requires_grad=True), "float32", [1, 1]),
        ([[1, 2], [3, 4]], "int64", [[1, 2], [3, 4]]),
    ],
)
def test_numbers_in_any_form_become_an_array(value: Any, dtype: str, rows: Any) -> None:
    found = to_numpy(value)
    assert found.dtype == dtype or (found.dtype.kind == "f" and dtype.startswith("float"))
    np.testing.assert_array_equal(found, rows)


@pytest.mark.parametrize(
    ("value", "what", "told"),
    [
        (MIXED.assign(town="Bern"), "arrays", "in column 'town'"),
        (MIXED.assign(a="x", b="y", c="z", d="z"), "arrays", "in columns 'a', 'b', 'c' and more"),
        (pd.Series(["no", "yes"]), "labels", "such as 'no'"),
        (pd.Series(["no", "yes"], dtype="category"), "labels", "factorize"),
        (pd.DataFrame({"day": pd.to_datetime(["2020-01-01"])}), "arrays", "datetime64"),
        (np.array(["a1", "a2"]), "row weights", "leave names and ids out"),
        ([[1, 2], [3]], "arrays", "uneven rows"),
    ],
)
def test_what_is_no_number_is_named(value: Any, what: What, told: str) -> None:
    with pytest.raises(DataError) as caught:
        to_numpy(value, what)
    assert f"numeric {what}" in str(caught.value)
    assert told in str(caught.value)


def sparse_of_tensorflow() -> Any:
    import tensorflow as tf

    return tf.sparse.from_dense(np.eye(3, dtype=np.float32))


@pytest.mark.parametrize(
    ("make", "how"),
    [
        (lambda: scipy.sparse.csr_matrix(np.eye(3)), "x.toarray()"),
        (lambda: scipy.sparse.coo_array(np.eye(3)), "x.toarray()"),
        (lambda: torch.eye(3).to_sparse(), "x.to_dense()"),
        (sparse_of_tensorflow, "tf.sparse.to_dense(x)"),
    ],
)
def test_sparse_data_is_told_how_it_becomes_dense(make: Callable[[], Any], how: str) -> None:
    value, y = make(), np.zeros(3)
    for attempt in (lambda: to_numpy(value), lambda: Split((value, y), "valid"), lambda: as_batch(((value, value), y))):
        with pytest.raises(DataError, match="which is sparse") as caught:
            attempt()
        assert caught.value.do == how


class OtherTable:
    """A table of text whose types come as a list, as those of polars do."""

    columns: ClassVar[list[str]] = ["name"]
    dtypes: ClassVar[list[str]] = ["String"]

    def to_numpy(self) -> Any:
        return np.array([["a"]], dtype=object)


def test_text_in_another_kind_of_table_is_told() -> None:
    with pytest.raises(DataError, match="a OtherTable of dtype object"):
        to_numpy(OtherTable())
