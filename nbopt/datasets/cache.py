"""Files fetched once, checked against a recorded sha256, and kept in a cache.

What a source brought is checked before it enters the cache, and again at every load.
"""

from __future__ import annotations

import gzip
import hashlib
import logging
import os
import sys
import tempfile
import warnings
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nbopt.datasets.sources import NoSourceError, Source
from nbopt.errors import DataError, NbOptWarning

_log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Return the folder that keeps fetched data: `NBOPT_CACHE`, or the platform's place for caches."""
    if chosen := os.environ.get("NBOPT_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "nbopt"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "nbopt" / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nbopt"


@dataclass(frozen=True)
class Files:
    """Describe the files of a data set or a model, and where they come from.

    Args:
        title: What a person calls it.
        name: Its folder in the cache, and its word for `python -m nbopt.datasets fetch`.
        sha256: The recorded hash of each file, by file name; of a `.gz` file, that of its unpacked content, because
            two homes of the same data may have compressed it differently.
        sources: The ways to it, the best first.
    """

    title: str
    name: str
    sha256: Mapping[str, str]
    sources: tuple[Source, ...]

    @property
    def folder(self) -> Path:
        """Return where its files are kept; `read` fills it."""
        return cache_folder() / self.name

    def read(self) -> dict[str, bytes]:
        """Return the unpacked content of each file, fetching what the cache lacks.

        Raises:
            DataError: A file is neither cached nor to be had with the recorded content.
        """
        found: dict[str, bytes] = {}
        for name, sha256 in self.sha256.items():
            content = _cached(self.folder / name, sha256)
            if content is not None:
                found[name] = content
        lacking = [name for name in self.sha256 if name not in found]
        return found | self._fetch(lacking) if lacking else found

    def _fetch(self, names: Sequence[str]) -> dict[str, bytes]:
        """Try each source in turn and move what it brought into the cache."""
        folder = self.folder
        tried: list[str] = []
        for source in self.sources:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryDirectory(dir=folder, prefix=".fetching-") as scratch:
                    source(Path(scratch), names)
                    return {name: _keep(Path(scratch), folder, name, self.sha256[name]) for name in names}
            except NoSourceError as closed:
                _log.info("%s: %s", self.title, closed)
                tried.append(str(closed))
            except OSError as error:
                raise _no_folder(folder, error) from error
        raise DataError(
            f"{self.title} in {folder}, or a way to fetch it",
            "; ".join(tried),
            f"connect this machine to a network once, or copy {', '.join(names)} into {folder}",
        )


def _cached(path: Path, sha256: str) -> bytes | None:
    try:
        packed = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _no_folder(path, error) from error
    content = unpacked(path.name, packed, sha256)
    if content is None:
        warnings.warn(f"{path} is damaged and is fetched anew", NbOptWarning, stacklevel=4)
    return content


def unpacked(name: str, packed: bytes, sha256: str) -> bytes | None:
    """Return the content of a file where it is the recorded one."""
    try:
        content = gzip.decompress(packed) if name.endswith(".gz") else packed
    except (OSError, EOFError, zlib.error):
        return None
    return content if hashlib.sha256(content).hexdigest() == sha256 else None


def _no_folder(path: Path, error: OSError) -> DataError:
    return DataError(
        "a folder to keep data in",
        f"{path}: {error.strerror or error}",
        "set NBOPT_CACHE to a folder that can be written and has 300 MB free",
    )


def _keep(scratch: Path, folder: Path, name: str, sha256: str) -> bytes:
    """Check one fetched file and move it into the cache in one step, so that no process sees half of it."""
    for found in sorted(scratch.rglob(name)):
        content = unpacked(name, found.read_bytes(), sha256)
        if content is not None:
            found.replace(folder / name)
            return content
    raise NoSourceError(f"{name} came without the recorded content (sha256 {sha256[:12]}...)")
