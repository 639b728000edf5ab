"""The notebook of regularization, run for real through Papermill on fewer images."""

from __future__ import annotations

from pathlib import Path

import nbformat
import papermill
import pytest

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "benchmarks" / "regularization.ipynb"
PARAMETERS = {"frameworks": "torch", "rows": 300, "valid_rows": 500, "test_rows": 1000, "epochs": 25, "seeds": 2}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_both_trainings_are_compared_over_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NBOPT_HOME", raising=False)
    out = tmp_path / "executed.ipynb"
    papermill.execute_notebook(NOTEBOOK, out, PARAMETERS, cwd=tmp_path, progress_bar=False, kernel_name="python3")
    cells = nbformat.read(out, as_version=4).cells
    (printed,) = [c.outputs[0].text for c in cells if "outputs" in c and c.source.startswith("gains = ")]
    (row,) = [
        dict(zip(printed.splitlines()[0].split(), line.split(), strict=True)) for line in printed.splitlines()[1:]
    ]
    assert row["what"] == "together"
    assert 50 < float(row["plain"]) < 90
    assert float(row["low"]) <= float(row["gained_pt"]) <= float(row["high"])
    shown = "".join(str(c.get("outputs", "")) for c in cells)
    assert "overfitted" in shown
    assert "BatchNorm of 3 layers folded" in shown


def test_it_has_a_parameters_cell_and_is_committed_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (tagged,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert set(PARAMETERS) <= {line.split(" =")[0] for line in tagged.source.splitlines()}
    assert all(not cell.get("outputs") for cell in notebook.cells)
