"""The doctor tells what is there, and for what is not, the command that brings it."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import pytest

from nbopt import doctor
from nbopt.doctor import Diagnosis, diagnose
from nbopt.runs import Run, RunStore
from nbopt.runtimes import all_runtimes


def check(found: Diagnosis, section: str, name: str) -> doctor.Check:
    return next(c for c in found.sections[section] if c.name == name)


def test_it_names_every_runtime_found() -> None:
    found = diagnose()
    assert {c.name for c in found.runtimes} == {runtime.title for runtime in all_runtimes().values()}
    # What needs another machine says so; the rest is installed.
    assert all(c.ok or "NVIDIA" in f"{c.state}{c.do}" for c in found.runtimes)
    assert found.ok


def test_a_missing_runtime_gives_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = all_runtimes()["openvino"]
    monkeypatch.setattr("nbopt.runtimes.find_spec", lambda name: None if name == "openvino" else object())
    missing = check(diagnose(), "runtimes", runtime.title)
    assert not missing.ok
    assert missing.do.startswith('pip install "nbopt[')
    assert "not installed" in missing.state


def test_a_missing_framework_gives_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name in ("torch", "keras", "tensorflow", "tf-keras"):
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(doctor, "version", version)
    found = diagnose()
    assert check(found, "frameworks", "torch").do == 'pip install "nbopt[torch]"'
    assert not found.ok


def test_the_store(home: Path) -> None:
    assert "none yet" in check(diagnose(), "store of runs", "runs").state
    assert not home.exists(), "looking makes no folder"
    store = RunStore(home)
    store.add(Run(name="a/b"))
    assert check(diagnose(), "store of runs", "runs").state == "1 run"
    (home / "runs.sqlite").write_bytes(b"damaged" * 1000)
    found = diagnose()
    assert not check(found, "store of runs", "runs").ok
    assert "runs.sqlite" in check(found, "store of runs", "runs").do
    assert not found.ok


def test_a_folder_that_can_not_be_written(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: False)
    found = check(diagnose(), "store of runs", "write access")
    assert not found.ok
    assert "NBOPT_HOME" in found.do


def test_little_disk_and_a_busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr(doctor.os, "getloadavg", lambda: (99.0, 0.0, 0.0))
    found = diagnose()
    assert not check(found, "store of runs", "free disk").ok
    assert not check(found, "this machine", "load").ok


def test_it_shows_as_text_and_html_and_data() -> None:
    found = diagnose()
    bundle = found._repr_mimebundle_()
    for title, checks in found.sections.items():
        assert title in bundle["text/plain"]
        assert title in bundle["text/html"]
        assert all(c.name in bundle["text/plain"] for c in checks)
    assert json.loads(json.dumps(found.to_dict())) == found.to_dict()


def test_it_imports_no_framework(tmp_path: Path) -> None:
    code = (
        "import json, sys; from nbopt.doctor import diagnose; diagnose(); "
        "print(json.dumps([n for n in ('torch', 'keras', 'onnxruntime', 'openvino') if n in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    )
    assert json.loads(done.stdout.splitlines()[-1]) == []
