"""The notebooks of training, run for real through Papermill on little of their data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
SMALL = {
    "frames": "torch",
    "rows": 3000,
    "constant_epochs": 6,
    "schedule_epochs": 3,
    "rates": [0.002],
    "seeds": 1,
    "tables": "adult",
    "table_rows": 3000,
    "trials": 3,
    "tune_epochs": 1,
    "tune_seeds": 1,
    "together_trials": 3,
    "together_epochs": 1,
}


def run(name: str, folder: Path, parameters: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.delenv("NBOPT_HOME", raising=False)
    out = folder / "executed.ipynb"
    papermill.execute_notebook(NOTEBOOKS / name, out, parameters, cwd=folder, progress_bar=False, kernel_name="python3")
    return nbformat.read(out, as_version=4)


def printed(notebook: Any) -> str:
    streams = [o.text for cell in notebook.cells for o in cell.get("outputs", []) if o.output_type == "stream"]
    return "".join(streams)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_benchmark_gives_its_three_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = printed(run("benchmarks/training.ipynb", tmp_path, SMALL, monkeypatch))
    assert "fewer_epochs" in told
    assert "auc_tuned" in told
    assert "one training each: True" in told


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_tutorial_shows_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = run("training.ipynb", tmp_path, {"rows": 1500, "epochs": 1, "trials": 4}, monkeypatch)
    shown = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])]
    texts = [data.get("text/plain", "") for data in shown]
    assert any(text.startswith("range test") for text in texts)
    assert any("schedule/onnxruntime" in text for text in texts)
    assert any("with fresh seeds" in text and "(untouched)" in text for text in texts)


def test_the_benchmark_is_committed_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOKS / "benchmarks" / "training.ipynb", as_version=4)
    (tagged,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert set(SMALL) <= {line.split(" =")[0] for line in tagged.source.splitlines()}
    assert all(not cell.get("outputs") for cell in notebook.cells)
