"""The notebook of architecture search, run for real through Papermill on one table and a few seeds."""

from __future__ import annotations

from pathlib import Path

import nbformat
import papermill
import pytest

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "benchmarks" / "nas.ipynb"
PARAMETERS = {"tasks": "cifar10", "controllers": "surrogate", "seeds": 5, "trials": 100, "image_rows": 0}


def printed_by(parameters: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.delenv("NBOPT_HOME", raising=False)
    out = tmp_path / "executed.ipynb"
    papermill.execute_notebook(NOTEBOOK, out, parameters, cwd=tmp_path, progress_bar=False, kernel_name="python3")
    cells = nbformat.read(out, as_version=4).cells
    (printed,) = [c.outputs[0].text for c in cells if "outputs" in c and c.source.startswith("summary = ")]
    lines: list[str] = printed.splitlines()
    return lines


@pytest.mark.timeout(300)
def test_the_default_controller_needs_few_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = printed_by(PARAMETERS, tmp_path, monkeypatch)
    assert lines[-1].endswith("True"), lines


def test_it_has_a_parameters_cell_and_is_committed_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (tagged,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert set(PARAMETERS) <= {line.split(" =")[0] for line in tagged.source.splitlines()}
    assert all(not cell.get("outputs") for cell in notebook.cells)
