"""Front ends by the traces that they leave; each is told what it shows and what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nbopt.frontend import WIDGETS, front_end, lab_extensions, parts
from tests.conftest import ROOT


def shell(*, kernel: bool = True, stdin: bool = True, **names: Any) -> Any:
    made = SimpleNamespace(user_ns=names)
    if kernel:
        made.kernel = SimpleNamespace(_allow_stdin=stdin)
    return made


@pytest.mark.parametrize(
    ("where", "environment", "modules", "word"),
    [
        (None, {}, (), "plain"),
        (shell(kernel=False), {}, (), "terminal"),
        (shell(), {"COLAB_RELEASE_TAG": "x"}, (), "colab"),
        (shell(), {}, ("google.colab",), "colab"),
        (shell(__vsc_ipynb_file__="a.ipynb"), {}, (), "vscode"),
        (shell(), {"VSCODE_PID": "1", "JPY_PARENT_PID": "2"}, (), "vscode"),
        (shell(), {"VSCODE_PID": "1", "JPY_SESSION_NAME": "a.ipynb"}, (), "jupyter"),
        (shell(__vsc_ipynb_file__="a.ipynb"), {"JPY_SESSION_NAME": "a.ipynb"}, (), "vscode"),
        (shell(stdin=False), {"JPY_PARENT_PID": "2"}, (), "batch"),
        (shell(), {"JPY_SESSION_NAME": "a.ipynb"}, (), "jupyter"),
        (shell(), {}, (), "kernel"),
    ],
)
def test_each_front_end_is_known_and_has_its_words(
    where: Any, environment: dict[str, str], modules: tuple[str, ...], word: str
) -> None:
    found = front_end(where, environment, modules)
    assert found.word == word
    assert found.state
    names = [part.name for part in parts(found)]
    assert "panel" in names
    assert "saved notebook" in names
    assert ("lab extension" in names) == (word in ("jupyter", "kernel", "batch"))


def test_extensions_are_found_where_jupyter_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "labextensions"
    for name, body in {"nbopt": {"name": "nbopt", "version": "9.9"}, "broken": None}.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "package.json").write_text(json.dumps(body) if body else "{")
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path))
    found = lab_extensions()
    assert found["nbopt"] == "9.9"
    assert WIDGETS in found
    own = next(part for part in parts(front_end(shell(), {}, ())) if part.name == "lab extension")
    assert own.ok
    assert "9.9" in own.state


def test_a_real_batch_kernel_says_so(tmp_path: Path) -> None:
    import nbformat

    source = "%load_ext nbopt\nfound = %optimize doctor\nprint(found)"
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    path = tmp_path / "doctor.ipynb"
    nbformat.write(book, path)
    how = "kernel_name='python3', progress_bar=False"
    code = f"import papermill, sys; papermill.execute_notebook(sys.argv[1], sys.argv[1], {how})"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = [sys.executable, "-c", code, str(path)]
    subprocess.run(run, check=True, capture_output=True, cwd=tmp_path, timeout=200, env=environment)
    (cell,) = nbformat.read(path, as_version=4).cells[-1:]
    assert "a notebook in batch" in "".join(output.get("text", "") for output in cell.outputs)
