"""The notebook of distillation, run for real through Papermill on the smallest of its models."""

from __future__ import annotations

from pathlib import Path

import nbformat
import papermill
import pytest

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "benchmarks" / "distillation.ipynb"
PARAMETERS = {"models": "vowels", "seeds": 2, "vowel_epochs": 20, "simple_epochs": 5}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_lstm_has_students_and_what_the_teacher_gave_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NBOPT_HOME", raising=False)
    out = tmp_path / "executed.ipynb"
    papermill.execute_notebook(NOTEBOOK, out, PARAMETERS, cwd=tmp_path, progress_bar=False, kernel_name="python3")
    cells = nbformat.read(out, as_version=4).cells
    (printed,) = [c.outputs[0].text for c in cells if "outputs" in c and c.source.startswith("ratios = ")]
    assert "distill --student simple" in printed
    assert "gain_low" in printed.splitlines()[0]
    assert len(printed.splitlines()) == 3


def test_it_has_a_parameters_cell_and_is_committed_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (tagged,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert set(PARAMETERS) <= {line.split(" =")[0] for line in tagged.source.splitlines()}
    assert all(not cell.get("outputs") for cell in notebook.cells)
