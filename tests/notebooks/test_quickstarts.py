"""Both quickstarts, run for real through Papermill on fewer rows, and read as a person would."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import papermill
import pytest

from nbopt.artifacts import read_sidecar
from nbopt.data import Split
from nbopt.frozen import freeze
from nbopt.measurement.bench import Bench
from nbopt.measurement.statistics import QUIET
from nbopt.measurement.turns import run_rounds
from nbopt.runs import Run

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
MIME = "application/vnd.nbopt.comparison.v1+json"
PARAMETERS = {"rows": 6000, "epochs": 1, "seed": 0}
NATIVE = {"quickstart": "torch", "quickstart_keras": "keras"}
RUNTIMES = {
    "quickstart": ["torch", "onnxruntime", "openvino"],
    "quickstart_keras": ["keras", "litert", "onnxruntime", "openvino"],
}


@pytest.fixture(scope="module", params=sorted(NATIVE))
def executed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any]:
    folder = tmp_path_factory.mktemp(request.param)
    out = folder / "executed.ipynb"
    parameters = {**PARAMETERS, "runtimes": RUNTIMES[request.param]}
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("NBOPT_HOME", raising=False)
        papermill.execute_notebook(
            NOTEBOOKS / f"{request.param}.ipynb", out, parameters, cwd=folder, progress_bar=False, kernel_name="python3"
        )
    notebook = nbformat.read(out, as_version=4)
    notebook.metadata["home"] = str(folder / ".nbopt")
    return request.param, notebook


def tables(notebook: Any) -> list[list[Run]]:
    """Return the rows of every comparison that the notebook shows."""
    found = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            payload = output.get("data", {}).get(MIME)
            if payload is not None:
                payload = json.loads(payload) if isinstance(payload, str) else payload
                found.append([Run.from_dict(run, notebook.metadata["home"]) for run in payload["runs"]])
    return found


def one_thread_ratio(baseline: Path, variant: Path) -> float:
    """Return how many times faster an artifact is than another on the same runtime, on one thread."""
    sidecar = read_sidecar(baseline)
    assert sidecar is not None
    shape = [8, *(size or 1 for size in sidecar[0].shapes[0][1:])]
    rows = freeze(Split((np.random.default_rng(0).random(shape, dtype=np.float32), np.zeros(8, int)), "valid"))
    with ExitStack() as opened:
        sides = {}
        for path in (baseline, variant):
            manifest = (read_sidecar(path) or sidecar)[0]
            bench = opened.enter_context(Bench(path, manifest, threads=1, folder=rows.folder))
            sides[path.parent.name + str(len(sides))] = bench.side()
        return run_rounds(sides, "full", apart=True).ratio(*sides).value


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_table_has_every_baseline_and_six_variants(executed: tuple[str, Any]) -> None:
    name, notebook = executed
    last = tables(notebook)[-1]
    baselines = [run for run in last if run.is_baseline]
    variants = [run for run in last if not run.is_baseline]
    assert {run.runtime for run in baselines} == set(RUNTIMES[name])
    assert len(variants) >= 6
    assert not [run.reason for run in last if run.failed]
    for run in last:
        assert run.quality is not None
        assert run.size_bytes
        assert run.latency_ms
        assert run.peak_memory_bytes is not None
        assert run.artifact_sha256
        assert run.verdict


@pytest.mark.slow
def test_int8_is_about_four_times_smaller_and_as_good(executed: tuple[str, Any]) -> None:
    name, notebook = executed
    last = tables(notebook)[-1]
    sizes = {run.runtime: run.size_bytes for run in last if run.is_baseline}
    quantized = [run for run in last if run.recipe == "quantize"]
    assert {run.runtime for run in quantized} == set(RUNTIMES[name]) - {NATIVE[name]}
    for run in quantized:
        assert sizes[run.runtime] / run.size_bytes > 3.6, run.name
        assert run.quality_delta > -0.01, run.name
        assert run.dtype.startswith(("int8", "uint8"))


@pytest.mark.slow
def test_structured_pruning_is_smaller_faster_and_nearly_as_good(executed: tuple[str, Any]) -> None:
    name, notebook = executed
    last = tables(notebook)[-1]
    sizes = {run.runtime: run.size_bytes for run in last if run.is_baseline}
    pruned = [run for run in last if run.recipe == "prune --structured"]
    assert {run.runtime for run in pruned} == set(RUNTIMES[name])
    assert all(run.quality_delta > -0.015 for run in pruned)
    assert all(sizes[run.runtime] / run.size_bytes > 3 for run in pruned)
    told = max(run.speedup_technique for run in pruned)
    if told <= 2 and any("busy" in run.verdicts.values() or run.contention > QUIET for run in pruned):
        # Threads that wait for each other suffer most from other load: with one thread the same files are compared
        # on a busy machine too.
        before = {run.runtime: run for run in last if run.is_baseline}
        told = max(one_thread_ratio(before[run.runtime].path, run.path) for run in pruned)
    assert told > 2


@pytest.mark.slow
def test_unstructured_zeros_are_called_what_they_are(executed: tuple[str, Any]) -> None:
    _, notebook = executed
    zeros = [run for run in tables(notebook)[-1] if run.recipe == "prune"]
    assert zeros
    for run in zeros:
        assert run.nonzero_params / run.params == pytest.approx(0.5, abs=0.01)
        assert run.deflated_bytes < 0.75 * run.size_bytes
        assert run.verdicts["size"] == "same" or run.runtime != NATIVE[executed[0]]


@pytest.mark.slow
def test_the_exported_file_gives_the_tables_quality(executed: tuple[str, Any]) -> None:
    _, notebook = executed
    told = notebook.cells[-1].outputs[0].text
    assert "as in the table" in told


@pytest.mark.slow
def test_no_cell_leaves_noise(executed: tuple[str, Any]) -> None:
    _, notebook = executed
    for cell in notebook.cells:
        if cell.cell_type == "code" and cell.source.startswith("%optimize"):
            streams = [o.text for o in cell.outputs if o.output_type == "stream"]
            assert streams == [], cell.source
            widgets = [o for o in cell.outputs if "application/vnd.jupyter.widget-view+json" in o.get("data", {})]
            assert widgets == [], cell.source


def test_both_have_a_parameters_cell() -> None:
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
        assert len(tagged) == 1, path.name
        names = {"epochs", "rows", "seed"}
        assert names <= {line.split(" =")[0] for line in tagged[0].source.splitlines()}
        assert all(not cell.get("outputs") for cell in notebook.cells), f"{path.name} is committed with outputs"
