"""Imports go downward only, and the checker that says so does notice."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)


def test_imports_go_downward_only() -> None:
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


def test_an_upward_import_is_noticed(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "nbopt", tmp_path / "nbopt", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    lowest = tmp_path / "nbopt" / "errors.py"
    lowest.write_text(lowest.read_text() + "\n\ndef upward() -> None:\n    import nbopt.cli\n")
    done = lint_imports(tmp_path)
    assert done.returncode == 1, done.stdout
    assert "nbopt.errors -> nbopt.cli" in done.stdout
