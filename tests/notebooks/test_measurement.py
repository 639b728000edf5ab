"""The notebook that measures the measurement, run for real through Papermill with a few trials."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "benchmarks" / "measurement.ipynb"
PARAMETERS = {"trials": 2, "full_trials": 1, "simulations": 20, "variants": 1, "loaded": False}


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("measurement")
    out = folder / "executed.ipynb"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("NBOPT_HOME", raising=False)
        papermill.execute_notebook(NOTEBOOK, out, PARAMETERS, cwd=folder, progress_bar=False, kernel_name="python3")
    return nbformat.read(out, as_version=4)


def texts(notebook: Any) -> str:
    """Return all that the outputs say."""
    found = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            found += [output.get("text", ""), str(output.get("data", {}).get("text/plain", ""))]
    return "\n".join(found)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_it_runs_and_names_the_pitfalls(executed: Any) -> None:
    told = texts(executed)
    assert "A/A quick: against itself" in told
    assert "zeros make the deflated file smaller" in told
    assert "collapsed: " in told
    assert "likely cause: " in told
    assert "all of which stand in test too" in " ".join(told.split())
    assert "int8 is storage only: computes in float32" in told
    assert "int8 asked, under 1% of MACs run in int8 (1 of 5 layers)" in told
    assert "our baseline's MACs: {'float32': 1.0}" in told
    # Whether it is slower is a question of the machine's load; that it is never called faster is none.
    (dynamic,) = [line for line in told.splitlines() if line.startswith("quantize/litert int8 dynamic")]
    assert "faster" not in dynamic


@pytest.mark.slow
def test_no_delay_is_called_a_gain(executed: Any) -> None:
    (limits,) = [cell for cell in executed.cells if cell.source.startswith("every = ")]
    assert "A/A called different, quick" in limits.outputs[0].data["text/plain"]
    pictures = [o for cell in executed.cells for o in cell.get("outputs", []) if "<img" in str(o.get("data", {}))]
    assert len(pictures) >= 4


def test_it_has_a_parameters_cell_and_is_committed_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (tagged,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert set(PARAMETERS) <= {line.split(" =")[0] for line in tagged.source.splitlines()}
    assert all(not cell.get("outputs") for cell in notebook.cells)
