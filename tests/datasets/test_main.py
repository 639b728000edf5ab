"""The command that fills the cache."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nbopt.datasets.__main__ import known, main


def test_every_set_that_is_described_can_be_fetched() -> None:
    assert {"adult", "coil", "fashion-mnist", "fine-food-reviews", "japanese-vowels", "letter", "minilm"} <= set(
        known()
    )
    for name, files in known().items():
        assert files.folder.name == name
        assert all(len(sha256) == 64 for sha256 in files.sha256.values())


def test_what_the_cache_has_needs_no_network_and_no_reader(kept: Path, offline: None) -> None:
    command = [sys.executable, "-m", "nbopt.datasets", "fetch", "adult", "fashion-mnist"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [f"Adult income: {kept / 'adult'}", f"Fashion-MNIST: {kept / 'fashion-mnist'}"]


def test_a_way_that_is_closed_is_said_with_a_failing_status(
    offline: None, empty_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fetch", "adult"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("nbopt.datasets: DataError\nexpected: Adult income in ")


def test_an_unknown_name_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["fetch", "adult", "coal"])
    assert stopped.value.code == 2
    said = capsys.readouterr()
    assert "'coal' is not a data set; did you mean 'coil'?" in said.err
    assert said.out == ""


def test_without_a_name_everything_is_fetched(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{files.title}: {files.folder}" for _, files in sorted(known().items())
    ]
    assert all((files.folder / name).is_file() for files in known().values() for name in files.sha256)
