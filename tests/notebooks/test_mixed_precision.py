"""The notebook of mixed precision, run for real through Papermill on the smallest of its models."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import papermill
import pytest

from nbopt.measurement.environment import has_bfloat16

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "benchmarks" / "mixed_precision.ipynb"
PARAMETERS = {"models": "mlp", "rows": 4_000, "test_rows": 1_000, "epochs": 2, "seeds": 2}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_mlp_steps_faster_and_what_must_be_refused_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NBOPT_HOME", raising=False)
    out = tmp_path / "executed.ipynb"
    papermill.execute_notebook(NOTEBOOK, out, PARAMETERS, cwd=tmp_path, progress_bar=False, kernel_name="python3")
    cells = nbformat.read(out, as_version=4).cells
    (refused,) = [c.outputs[0].text for c in cells if "outputs" in c and c.source.startswith("refused = ")]
    assert "no bfloat16: mixed precision refused: this CPU has none of AVX512-BF16" in refused
    assert "float16: expected: a model on a CUDA GPU" in refused
    (printed,) = [c.outputs[0].text for c in cells if "outputs" in c and c.source.startswith("ratios = ")]
    if not has_bfloat16():
        return
    # With its figures, whether the steps were slower or, beside other load, could not be judged.
    told = r"tiny: mixed precision refused: (bfloat16 is|inconclusive, machine busy: bfloat16 against) "
    assert re.search(told, refused)
    (row,) = [
        dict(zip(printed.splitlines()[0].split(), line.split(), strict=True)) for line in printed.splitlines()[1:]
    ]
    assert float(row["faster"]) > 1.3
    assert float(row["quality"]) > 50  # percent: it was trained


def test_it_has_a_parameters_cell_and_is_committed_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (tagged,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert set(PARAMETERS) <= {line.split(" =")[0] for line in tagged.source.splitlines()}
    assert all(not cell.get("outputs") for cell in notebook.cells)
