"""What is installed, and from what: the ranges, the exact set, the wheel, the two commands."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import nbopt

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
APART = ("litert-torch", "torchdistill")
"""Extras whose declared needs exclude what others need: each has constraints and a folder of its own."""


def constraints(name: str) -> list[str]:
    lines = (ROOT / "constraints" / f"{name}.txt").read_text().splitlines()
    return [line for line in lines if not line.startswith("#")]


CONSTRAINTS = constraints("constraints")


@pytest.fixture(scope="module")
def pinned() -> dict[str, Version]:
    return versions(CONSTRAINTS)


def versions(lines: list[str]) -> dict[str, Version]:
    pins = [line.split("==") for line in lines]
    return {canonicalize_name(name): Version(version) for name, version in pins}


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    """Return every file that is, or is about to be, committed."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    # A file that was removed and not yet committed is still in git's list.
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
    ]
    subprocess.run([*command, "--wheel-dir", str(folder), str(ROOT)], check=True, timeout=120)
    (built,) = folder.glob("nbopt-*.whl")
    return zipfile.ZipFile(built)


def requirements(*extras: str) -> list[Requirement]:
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in EXTRAS[extra])]
    return [Requirement(line) for line in lines if not line.startswith("nbopt[")]


def test_constraints_are_names_and_versions_only() -> None:
    assert len(CONSTRAINTS) > 100
    odd = [line for line in CONSTRAINTS if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", line)]
    assert odd == []


def test_every_dependency_is_pinned_within_its_range(pinned: dict[str, Version]) -> None:
    pinned = versions([line for extra in APART for line in constraints(extra)]) | pinned
    for requirement in requirements(*EXTRAS):
        version = pinned[canonicalize_name(requirement.name)]
        assert version in requirement.specifier, f"{requirement} does not admit {version}"


def test_everything_that_an_install_brings_is_pinned(pinned: dict[str, Version]) -> None:
    waiting = requirements(*(extra for extra in EXTRAS if extra not in APART))
    seen: set[tuple[str, str]] = set()
    unpinned: set[str] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        for extra in ("", *requirement.extras):
            if (name, extra) in seen or not _applies(requirement, ""):
                continue
            seen.add((name, extra))
            if name not in pinned:
                unpinned.add(name)
                continue
            for line in metadata.distribution(name).requires or []:
                needed = Requirement(line)
                if _applies(needed, extra):
                    # The marker was answered with the extra that asked; it must not be asked again without.
                    needed.marker = None
                    waiting.append(needed)
    # pip itself and what builds packages come with the environment, not from the constraints.
    assert unpinned - {"pip", "setuptools", "wheel"} == set()


def _applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def test_this_environment_is_the_pinned_one(pinned: dict[str, Version]) -> None:
    # A local part (torch's +cpu) tells which build it is, not which version.
    installed = {name: Version(Version(metadata.version(name)).public) for name in pinned}
    assert installed == pinned


def test_all_holds_every_extra_that_a_user_may_want() -> None:
    (line,) = EXTRAS["all"]
    # Benchmarks, like tests, are run from a checkout.
    assert Requirement(line).extras == EXTRAS.keys() - {"all", "bench", "test", "lint", *APART}


def test_no_tracked_file_names_a_registry_or_a_place_on_one_machine(tracked: list[Path]) -> None:
    hosts = ["pypi.org", "pythonhosted.org", "registry.npmjs", "npmjs.org", "deb.debian.org"]
    folders = ["work", "root", "home/[a-z]+", "opt/(?:wheels|pypi)"]
    places = [rf"/(?:{'|'.join(folders)})\b", "file:" + "///[a-z]"]
    pattern = re.compile("|".join([*map(re.escape, hosts), *places]).encode())
    assert len(tracked) > 30
    found = {
        str(path.relative_to(ROOT)): hit.group()
        for path in tracked
        if path != Path(__file__) and (hit := pattern.search(path.read_bytes()))
    }
    assert found == {}


def test_the_wheel_holds_the_package_and_its_notebooks(wheel: zipfile.ZipFile, tracked: list[Path]) -> None:
    names = set(wheel.namelist())
    sources = {str(path.relative_to(ROOT)) for path in tracked if path.is_relative_to(ROOT / "nbopt")}
    assert sources - names == set()
    notebooks = {path.name for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert {"quickstart.ipynb", "quickstart_keras.ipynb"} <= notebooks
    assert {f"nbopt/notebooks/{name}" for name in notebooks} <= names


def test_the_wheel_holds_nothing_else(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert tops == {"nbopt", f"nbopt-{nbopt.__version__}.dist-info", f"nbopt-{nbopt.__version__}.data"}
    odd = [name for name in wheel.namelist() if re.search(r"tests?/|\.pyc$|\.db$|__pycache__|\.nbopt/", name)]
    assert odd == []


def test_the_wheel_brings_the_lab_extension_prebuilt_and_once(wheel: zipfile.ZipFile) -> None:
    place = f"nbopt-{nbopt.__version__}.data/data/share/jupyter/labextensions/nbopt/"
    names = wheel.namelist()
    described = json.loads(wheel.read(f"{place}package.json"))
    assert described["version"] == nbopt.__version__
    built = described["jupyterlab"]["_build"]
    assert f"{place}{built['load']}" in names
    assert {"extension", "mimeExtension", "style"} <= built.keys()
    assert f"{place}schemas/nbopt/plugin.json" in names
    # The builder copies package.json under this name: JupyterLab reads there of which version the settings are.
    assert json.loads(wheel.read(f"{place}schemas/nbopt/package.json.orig"))["version"] == nbopt.__version__
    assert {name for name in names if name.startswith(f"{place}schemas/")} == {
        f"{place}schemas/nbopt/plugin.json",
        f"{place}schemas/nbopt/package.json.orig",
    }
    offered = json.loads(wheel.read(f"{place}tutorials/list.json"))
    assert [each["name"] for each in offered] == sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
    assert all(f"{place}tutorials/{each['name']}" in names for each in offered)
    assert [name for name in names if name.startswith("nbopt/labextension/")] == []


def test_the_wheel_brings_the_command_and_the_licence(wheel: zipfile.ZipFile) -> None:
    info = f"nbopt-{nbopt.__version__}.dist-info"
    assert "nbopt = nbopt.cli:main" in wheel.read(f"{info}/entry_points.txt").decode()
    assert "Apache License" in wheel.read(f"{info}/licenses/LICENSE").decode()
    described = wheel.read(f"{info}/METADATA").decode()
    assert "License-Expression: Apache-2.0" in described
    assert "Requires-Python: >=3.11" in described
    # What a package index shows as the project's page.
    assert "Description-Content-Type: text/markdown" in described


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a folder with what `make` reads and an environment that seems just installed."""
    lock = "labextension/package-lock.json"
    for name in ("Makefile", "pyproject.toml", "constraints/constraints.txt", "labextension/package.json", lock):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
        os.utime(tmp_path / name, (1000, 1000))
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").write_text("")
    for stamp in (".installed-demo", ".installed-test"):
        (tmp_path / ".venv" / stamp).write_text("")
        os.utime(tmp_path / ".venv" / stamp, (2000, 2000))
    return tmp_path


def make(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    # This test may itself run below make, whose flags are not meant for this one.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", "--no-print-directory", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=60)


def test_a_second_make_installs_nothing(checkout: Path) -> None:
    planned = make(checkout, "--dry-run", "demo")
    assert planned.stdout.split() == [".venv/bin/nbopt", "demo"], planned.stderr
    assert "pip install" not in make(checkout, "--dry-run", "test").stdout


@pytest.mark.parametrize("changed", ["pyproject.toml", "constraints/constraints.txt"])
@pytest.mark.parametrize("target", ["demo", "test"])
def test_make_installs_again_when_its_recipe_changed(checkout: Path, changed: str, target: str) -> None:
    os.utime(checkout / changed, (3000, 3000))
    planned = make(checkout, "--dry-run", target).stdout
    assert planned.count("pip install") == 1
    assert "-c constraints/constraints.txt -e" in planned


def test_make_says_which_python_it_needs(checkout: Path) -> None:
    shutil.rmtree(checkout / ".venv")
    old = checkout / "python3"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.2\nexit 1\n')
    old.chmod(0o755)
    refused = make(checkout, "demo", f"PYTHON={old}")
    assert refused.returncode != 0
    assert "expected: CPython 3.11 or newer" in refused.stderr
    assert "came: Python 3.9.2" in refused.stderr
    assert "do: make demo PYTHON=" in refused.stderr
    assert not (checkout / ".venv").exists()
