"""What was fetched is checked, kept, found again, and fetched anew where it is damaged."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nbopt import datasets
from nbopt.datasets.cache import unpacked
from nbopt.datasets.images import FASHION_MNIST
from nbopt.errors import DataError, NbOptWarning
from tests.datasets.conftest import LABELS, needs_apt


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
    with pytest.warns(NbOptWarning, match=rf"{LABELS} is damaged and is fetched anew") as said:
        _, (_, y) = datasets.fashion_mnist()
    # The warning points at the line that asked for the data.
    assert [warning.filename for warning in said] == [__file__]
    assert np.bincount(y).tolist() == [1000] * 10
    assert unpacked(LABELS, path.read_bytes(), FASHION_MNIST.sha256[LABELS])


def test_only_a_file_called_gz_is_unpacked(kept: Path) -> None:
    packed = (kept / "fashion-mnist" / LABELS).read_bytes()
    assert unpacked("labels", packed, FASHION_MNIST.sha256[LABELS]) is None
    assert len(unpacked(LABELS, packed, FASHION_MNIST.sha256[LABELS]) or b"") == 10008


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
