"""The notebook of tuning, run for real through Papermill on one table and a few trials."""

from __future__ import annotations

from pathlib import Path

import nbformat
import papermill
import pytest

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "benchmarks" / "tuning.ipynb"
PARAMETERS = {
    "tasks": "hpobench/vehicle",
    "seeds": 3,
    "pause": 0.05,
    "paused_trials": 5,
    "jobs": 3,
    "shared_trials": 40,
    "networks": "",
}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_fewer_trials_than_random_search_and_none_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NBOPT_HOME", raising=False)
    out = tmp_path / "executed.ipynb"
    papermill.execute_notebook(NOTEBOOK, out, PARAMETERS, cwd=tmp_path, progress_bar=False, kernel_name="python3")
    cells = nbformat.read(out, as_version=4).cells
    (printed,) = [c.outputs[0].text for c in cells if "outputs" in c and c.source.startswith("summary = ")]
    reached = {line.rsplit("  ", 1)[0].strip(): line.endswith("True") for line in printed.splitlines()[1:]}
    assert len(reached) == 7
    # A few searches of one table say nothing of who is better, nor short trials of what a long one costs.
    missed = [
        name for name, there in reached.items() if not there and "defaults" not in name and "overhead" not in name
    ]
    assert missed == [], printed


def test_it_has_a_parameters_cell_and_is_committed_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (tagged,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert set(PARAMETERS) <= {line.split(" =")[0] for line in tagged.source.splitlines()}
    assert all(not cell.get("outputs") for cell in notebook.cells)
