"""The notebook that compares quantizers, run for real through Papermill on a small case."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "benchmarks" / "quantization.ipynb"
SMALL: dict[str, Any] = {
    "cases": "fashion_cnn",
    "seeds": 1,
    "train_rows": 6000,
    "test_rows": 2000,
    "epochs": 2,
    "qat_epochs": 4,
    "calibration": 64,
    "measure": "quick",
    "by_hand_pt2e": False,
}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_it_runs_and_says_what_was_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NBOPT_HOME", raising=False)
    out = tmp_path / "executed.ipynb"
    papermill.execute_notebook(NOTEBOOK, out, SMALL, cwd=tmp_path, progress_bar=False, kernel_name="python3")
    last = nbformat.read(out, as_version=4).cells[-1]
    told = "".join(output.get("text", "") for output in last.outputs)
    lines = {line.split("  ")[0].strip(): line for line in told.splitlines()}
    named = [line for line in told.splitlines() if "fashion_cnn: onnxruntime by hand" in line]
    assert named, told
    assert any("openvino by hand" in line for line in lines.values())
    (smaller,) = [line for line in told.splitlines() if "fashion_cnn: int8 smaller" in line]
    assert smaller.rstrip().endswith("True")
    (lost,) = [line for line in told.splitlines() if "depthwise: lost pt after qat" in line]
    (before,) = [line for line in told.splitlines() if "depthwise: lost pt post-training" in line]
    assert max(numbers(lost)) < min(numbers(before))


def numbers(line: str) -> list[float]:
    """Return the figures of a row: the words before them have a bound of their own."""
    found = line.split(":", 1)[1].replace(",", " ").split()
    return [float(word) for word in found if "." in word and word.lstrip("-").replace(".", "").isdigit()][1:] or [0.0]


def test_it_has_a_parameters_cell_and_is_committed_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (tagged,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert set(SMALL) <= {line.split(" =")[0] for line in tagged.source.splitlines()}
    assert all(not cell.get("outputs") for cell in notebook.cells)
