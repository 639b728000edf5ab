"""The conditions that figures were measured under."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

import psutil
import pytest

from nbopt.comparison import Comparison
from nbopt.measurement import environment
from nbopt.measurement.environment import INSTRUCTION_SETS, cpu_quota, differing, governor, machine, revision


def test_the_machine_is_described_in_plain_data() -> None:
    found = machine()
    assert json.loads(json.dumps(found)) == found
    assert found["cpu"]
    assert found["cores"] == os.cpu_count()
    assert found["python"] == platform.python_version()
    assert set(found["instruction_sets"]) <= set(INSTRUCTION_SETS.values())
    assert isinstance(governor(), str)


def test_versions_are_those_that_are_installed() -> None:
    found = machine()["versions"]
    for package in ("numpy", "torch", "onnxruntime", "openvino", "nncf", "keras", "tensorflow"):
        assert found[package] == version(package)


def test_every_run_carries_its_conditions(comparison: Comparison) -> None:
    for run in comparison:
        assert run.environment["threads"] == 1
        assert run.environment["cpu"] == machine()["cpu"]
        assert run.environment["measure"] == "quick"
        assert run.environment["shared_rows"] == 0
        assert run.environment["shared"]["train-test"] == {"rows": 0, "of": 547, "read": 1000, "whole": True}
        assert run.environment["memory_bytes"] == psutil.virtual_memory().total
        assert run.environment["cpu_quota"] == cpu_quota()
        assert run.environment["git"] == revision()
        assert run.contention is not None
        assert run.contention >= 1


def git(folder: Path, *words: str) -> str:
    told = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words]
    return subprocess.run(told, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def test_the_revision_of_the_notebooks_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    assert revision(tmp_path) == "", "no repository"
    folder = tmp_path / "repository" / "notebooks"
    folder.mkdir(parents=True)
    git(folder.parent, "init", "-q")
    (folder / "a.ipynb").write_text("1")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "one")
    git(folder, "tag", "v1")
    sha = git(folder, "rev-parse", "HEAD")[:7]
    monkeypatch.chdir(folder)
    assert revision() == sha
    (folder / "a.ipynb").write_text("2")
    assert revision() == sha, "asked again only after a while"
    monkeypatch.setattr(environment, "REVISION_LASTS_SECONDS", 0.0)
    assert revision() == f"{sha}-dirty"


@pytest.mark.parametrize("script", [None, "sleep 30", "exit 3", "echo fatal >&2; exit 128"])
def test_git_that_is_missing_slow_or_refuses_is_no_error(
    script: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    if script is not None:
        program = programs / "git"
        program.write_text(f"#!{shutil.which('sh')}\nPATH=/bin:/usr/bin\n{script.replace('sleep', 'exec sleep')}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setattr(environment, "GIT_SECONDS", 0.3)
    assert revision(tmp_path) == ""


@pytest.mark.parametrize(
    ("groups", "files", "quota"),
    [
        ("0::/", {}, 0.0),
        ("0::/", {"cpu.max": "max 100000"}, 0.0),
        ("0::/", {"cpu.max": "150000 100000"}, 1.5),
        ("0::/user/job", {"user/cpu.max": "200000 100000", "user/job/cpu.max": "max 100000"}, 2.0),
        ("0::/user/job", {"user/cpu.max": "200000 100000", "user/job/cpu.max": "50000 100000"}, 0.5),
        ("0::/not/here", {"cpu.max": "300000 100000"}, 3.0),
        (
            "5:memory:/x\n4:cpu,cpuacct:/x\n0::/",
            {"cpu,cpuacct/x/cpu.cfs_quota_us": "400000\n", "cpu,cpuacct/x/cpu.cfs_period_us": "100000\n"},
            4.0,
        ),
        ("4:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 0.0),
        ("0::/", {"cpu.max": "something else entirely"}, 0.0),
    ],
)
def test_a_containers_quota(groups: str, files: dict[str, str], quota: float, tmp_path: Path) -> None:
    (tmp_path / "groups").write_text(groups + "\n")
    for name, text in files.items():
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_text(text)
    assert cpu_quota(tmp_path / "groups", tmp_path / "root") == quota
    assert cpu_quota(tmp_path / "none", tmp_path / "root") is None


def test_only_what_is_known_and_matters_differs() -> None:
    one = {
        "cpu": "A", "threads": 2, "governor": "powersave", "cpu_quota": 0.0, "instruction_sets": ["AVX2", "AVX512"],
        "versions": {"onnxruntime": "1.31", "openvino": "2026.1", "torch": "2.13"}, "git": "abc", "shared_rows": 1,
    }  # fmt: skip
    assert differing([(one, {"torch"}), (dict(one), {"torch"}), ({}, {"torch"})]) == {}
    other = {
        **one, "governor": "performance", "cpu_quota": 1.5, "instruction_sets": ["AVX2"], "git": "def",
        "versions": {"onnxruntime": "1.32", "openvino": "2026.2", "torch": "2.13"},
    }  # fmt: skip
    assert differing([(one, {"onnxruntime", "torch"}), (other, {"onnxruntime", "torch"})]) == {
        "governor": ["performance", "powersave"],
        "CPU quota": ["1.5 CPUs", "no quota"],
        "instruction sets": ["AVX512 not everywhere"],
        "onnxruntime": ["1.31", "1.32"],
    }
    assert "openvino" not in differing([(one, {"openvino"}), (other, {"torch"})])
    assert differing([]) == {}
