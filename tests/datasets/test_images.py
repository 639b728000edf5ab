"""Fashion-MNIST as it is."""

from __future__ import annotations

import numpy as np
import pytest

from nbopt import datasets
from nbopt.errors import DataError


def test_fashion_mnist_is_the_whole_set() -> None:
    (x, y), (x_test, y_test) = datasets.fashion_mnist()
    assert (x.shape, x.dtype, y.shape, y.dtype) == ((60000, 28, 28), np.uint8, (60000,), np.int64)
    assert (x_test.shape, y_test.shape) == ((10000, 28, 28), (10000,))
    assert np.bincount(y).tolist() == [6000] * 10
    assert np.bincount(y_test).tolist() == [1000] * 10
    assert x.max() == 255
    assert x.flags.writeable


def test_images_lie_beside_their_labels() -> None:
    # Trousers (1) are dark between the legs, bags (8) are not; a shift by one row would mix them.
    (x, y), _ = datasets.fashion_mnist()
    between_legs = x[:, 20:26, 13:15].mean(axis=(1, 2))
    assert between_legs[y == 1].mean() < 0.6 * between_legs[y == 8].mean()


def test_rows_are_the_first_ones() -> None:
    (x, y), (x_test, y_test) = datasets.fashion_mnist(rows=300, test_rows=7)
    (all_x, all_y), _ = datasets.fashion_mnist()
    assert (len(x), len(y), len(x_test), len(y_test)) == (300, 300, 7, 7)
    assert np.array_equal(x, all_x[:300])
    assert np.array_equal(y, all_y[:300])
    assert set(y) == set(range(10))


@pytest.mark.parametrize(("name", "rows"), [("rows", 0), ("rows", 60001), ("rows", -1), ("test_rows", 10001)])
def test_too_many_or_no_rows_are_refused(name: str, rows: int) -> None:
    with pytest.raises(DataError, match=rf"came: {name}={rows}\n"):
        datasets.fashion_mnist(**{name: rows})
