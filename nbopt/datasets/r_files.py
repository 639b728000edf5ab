"""Data frames out of R's own files, by the package `rdata`: no R is needed."""

from __future__ import annotations

import lzma
from typing import TYPE_CHECKING, Any

from nbopt.errors import MissingExtra

if TYPE_CHECKING:
    import pandas as pd


def frame(rda: bytes, name: str) -> pd.DataFrame:
    """Return one data frame out of an `.rda` file.

    Raises:
        MissingExtra: The package `rdata` is not installed.
    """
    return _convert(rda)[name]


def lazy_frame(index: bytes, data: bytes, name: str) -> pd.DataFrame:
    """Return one data frame out of R's lazy-load database, which installed R packages keep their data in.

    Args:
        index: The content of the `.rdx` file: where each object begins, and how long it is.
        data: The content of the `.rdb` file: the objects, each compressed by itself.
        name: The object's name.

    Raises:
        MissingExtra: The package `rdata` is not installed.
    """
    begin, length = (int(number) for number in _convert(index)["variables"][name])
    # The unpacked size in four bytes, then Z for xz (a bare LZMA2 stream, without the container's head).
    kind, packed = data[begin + 4 : begin + 5], data[begin + 5 : begin + length]
    if kind != b"Z":
        raise ValueError(f"{name} is packed as {kind!r}, not by xz")
    stream = lzma.decompress(packed, lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2, "preset": 6}])
    return _convert(stream)


def require_reader(purpose: str) -> None:
    """Say that the reader is missing before anything is fetched that could then not be read.

    Raises:
        MissingExtra: The package `rdata` is not installed.
    """
    try:
        import rdata  # noqa: F401
    except ImportError as error:
        raise MissingExtra("rdata", "bench", purpose) from error


def _convert(content: bytes) -> Any:
    from rdata.conversion import DEFAULT_CLASS_MAP, convert
    from rdata.parser import parse_data

    # A tibble is a data frame with another way to print itself; rdata warns of every class that it has no reader for.
    classes = {**DEFAULT_CLASS_MAP, "tbl_df": DEFAULT_CLASS_MAP["data.frame"]}
    # Without the extension rdata warns that it takes a file of one object for what it is.
    alone = content.startswith((b"X\n", b"\x1f\x8b"))
    return convert(parse_data(content, extension=".rds" if alone else ".rda"), classes, default_encoding="utf-8")
