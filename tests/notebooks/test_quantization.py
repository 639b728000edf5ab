"""The notebook that compares quantizers, run for real through Papermill on a small case."""

from __future__ import annotations

import re
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
    "loads": 2,
    "by_hand_pt2e": False,
}


NAMES = (
    "fashion_cnn: int8 smaller in onnxruntime",
    "fashion_cnn: int8 smaller in openvino",
    "fashion_cnn: int8 lost pt in onnxruntime",
    "fashion_cnn: int8 lost pt in openvino",
    "fashion_cnn: faster than onnxruntime by hand",
    "fashion_cnn: faster than openvino by hand",
    "depthwise: lost pt post-training",
    "depthwise: lost pt after qat",
)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_it_runs_and_says_what_was_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NBOPT_HOME", raising=False)
    out = tmp_path / "executed.ipynb"
    papermill.execute_notebook(NOTEBOOK, out, SMALL, cwd=tmp_path, progress_bar=False, kernel_name="python3")
    last = nbformat.read(out, as_version=4).cells[-1]
    told = "".join(output.get("text", "") for output in last.outputs)
    rows = {name: line for line in told.splitlines() for name in NAMES if name in line}
    assert set(rows) == set(NAMES), told
    assert rows["fashion_cnn: int8 smaller in onnxruntime"].rstrip().endswith("True")
    lost, left = (numbers(rows[name]) for name in NAMES[-2:])
    assert max(left) < min(lost)


def numbers(line: str) -> list[float]:
    """Return the figures of a row, which have two decimals."""
    return [float(word) for word in re.findall(r"-?\d+\.\d\d\b", line)]


def test_it_has_a_parameters_cell_and_is_committed_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (tagged,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert set(SMALL) <= {line.split(" =")[0] for line in tagged.source.splitlines()}
    assert all(not cell.get("outputs") for cell in notebook.cells)
