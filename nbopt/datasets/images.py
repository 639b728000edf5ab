"""Fashion-MNIST."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nbopt.datasets.cache import Files
from nbopt.datasets.sources import debian_package, web
from nbopt.datasets.splits import Split, rows_to_take

FASHION_MNIST = Files(
    title="Fashion-MNIST",
    name="fashion-mnist",
    sha256={
        "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
    sources=(
        debian_package("dataset-fashion-mnist"),
        web("https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"),
        web("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"),
    ),
)


def fashion_mnist(rows: int | None = None, test_rows: int | None = None) -> tuple[Split, Split]:
    """Load Fashion-MNIST, 60,000 and 10,000 grey images of ten kinds of clothes (MIT licence).

    Args:
        rows: How many images to train on, from the first; all when None. The set comes shuffled.
        test_rows: How many images to test on, from the first; all when None.

    Returns:
        `(x_train, y_train), (x_test, y_test)`: uint8 images (rows, 28, 28) and int64 labels 0 to 9.

    Raises:
        DataError: The data is neither cached nor to be had, or `rows` is more than there is.
    """
    files = FASHION_MNIST.read()
    train = Split(_idx(files["train-images-idx3-ubyte.gz"]), _idx(files["train-labels-idx1-ubyte.gz"]))
    test = Split(_idx(files["t10k-images-idx3-ubyte.gz"]), _idx(files["t10k-labels-idx1-ubyte.gz"]))
    return _first(train, rows, "rows"), _first(test, test_rows, "test_rows")


def _first(split: Split, rows: int | None, name: str) -> Split:
    taken = rows_to_take(rows, len(split.y), name)
    return Split(split.x[taken], split.y[taken])


def _idx(content: bytes) -> NDArray[Any]:
    """Read the IDX format: two zero bytes, the type (8: uint8), the rank, the sizes, the values."""
    rank = content[3]
    shape = np.frombuffer(content, ">u4", count=rank, offset=4).astype(int)
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)
    # A copy is writable, which torch.from_numpy asks for.
    return values.astype(np.int64) if rank == 1 else values.copy()
