"""A limit that no variant keeps fails the cell, and the batch run with it, after the table is shown and saved."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest
from papermill.exceptions import PapermillExecutionError

from nbopt.comparison import Comparison
from nbopt.errors import GateFailed
from nbopt.render import MIME
from tests.conftest import ROOT
from tests.jupyter.conftest import MODEL, Shell

TRAIN = """
optimizer = torch.optim.Adam(net.parameters(), 0.02)
for _ in range(60):
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(net(torch.from_numpy(train[0])), torch.from_numpy(train[1])).backward()
    optimizer.step()
"""
FAST = "--runtimes onnxruntime --threads 1"
PRUNE = "prune --sparsity 0.9 --epochs 0"
BROKEN = {
    "--max-drop 1%": "accuracy may have lost",
    "--min-speedup 100000x": "at the bound",
    "--max-size 10": "bytes",
    "--max-latency 0.0000001ms": "ms",
    "--max-memory 1": "bytes of memory",
}
KEPT = "--min-speedup 0.0001x --max-size 1GB --max-latency 1000s --max-memory 100GB --max-drop 100%"


def notebook(path: Path, limits: str) -> Path:
    cells = [
        "%load_ext nbopt",
        MODEL + TRAIN,
        f"%optimize use net --train train --valid valid --name small {FAST};",
        f"%optimize {PRUNE} {FAST} {limits}",
        "print('reached')",
    ]
    made = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell) for cell in cells],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    )
    nbformat.write(made, path)
    return path


def bundles(path: Path) -> list[Any]:
    """Return the tables that a saved notebook holds, of its last cell that ran the recipe."""
    cells = nbformat.read(path, as_version=4).cells
    (cell,) = [cell for cell in cells if cell.source.startswith(f"%optimize {PRUNE}")]
    return [output.data for output in cell.outputs if MIME in output.get("data", {})]


def has_run_to_the_end(path: Path) -> bool:
    cells = nbformat.read(path, as_version=4).cells
    return any(output.get("text") == "reached\n" for cell in cells for output in cell.get("outputs", ()))


def check_table(path: Path) -> None:
    (table,) = bundles(path)
    for name in ("baseline/torch", "baseline/onnxruntime", "prune/onnxruntime"):
        assert name in table["text/plain"]
    assert "<table" in table["text/html"]
    assert {run["name"] for run in table[MIME]["runs"]} >= {"baseline/torch", "prune/onnxruntime"}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_each_limit_fails_its_cell_after_the_table(shell: Shell) -> None:
    shell.ok(MODEL + TRAIN)
    shell.ok(f"%optimize use net --train train --valid valid {FAST};")
    for limit, words in BROKEN.items():
        error = shell.error(f"%optimize {PRUNE} {FAST} {limit}")
        assert isinstance(error, GateFailed), limit
        assert words in str(error)
        assert "prune/onnxruntime" in str(shell.displayed()[-1]["text/plain"]), limit
    kept = shell.ok(f"%optimize {PRUNE} {FAST} {KEPT}")
    assert isinstance(kept, Comparison)
    assert kept["prune/onnxruntime"].max_drop == 1.0, "the table judges by what was asked"
    assert kept._repr_mimebundle_()[MIME]["max_drop"] == 1.0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_papermill_fails_and_its_notebook_holds_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    source, target = notebook(tmp_path / "gate.ipynb", "--max-drop 1%"), tmp_path / "executed.ipynb"
    with pytest.raises(PapermillExecutionError) as caught:
        papermill.execute_notebook(source, target, progress_bar=False, cwd=tmp_path)
    assert caught.value.ename == "GateFailed"
    assert "prune/onnxruntime: accuracy may have lost" in caught.value.evalue
    check_table(target)
    assert not has_run_to_the_end(target)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nbmake_fails_the_broken_one_passes_the_kept_one_and_both_hold_the_table(tmp_path: Path) -> None:
    broken = notebook(tmp_path / "broken.ipynb", "--min-speedup 100000x")
    kept = notebook(tmp_path / "kept.ipynb", KEPT)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "--nbmake",
            "--overwrite",
            "-p",
            "no:cacheprovider",
            "-q",
            str(broken),
            str(kept),
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed, 1 passed" in done.stdout
    assert "GateFailed" in done.stdout
    check_table(broken)
    check_table(kept)
    assert not has_run_to_the_end(broken)
    assert has_run_to_the_end(kept)
