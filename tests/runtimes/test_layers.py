"""Every runtime tells the layers of one model alike: the same work, the same weights, in the precision that it has."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nbopt.artifacts import Artifact, load, write_sidecar
from nbopt.batches import leaves, map_leaves, take_rows
from nbopt.runtimes import Layer
from tests.runtimes.test_contract import CASES, RUNTIMES, manifest_of, workload

KINDS = {"Conv", "ConvTranspose", "Linear", "MatMul", "Attention", "LSTM", "GRU", "RNN", "Embedding"}

# By hand, from the shapes in tests/models.py and tests/runtimes/keras_models.py.
TEXT_STEPS, TEXT_WIDTH = 6, 16
ATTENTION = TEXT_STEPS * TEXT_WIDTH * 4 * TEXT_WIDTH + 2 * TEXT_STEPS * TEXT_STEPS * TEXT_WIDTH
MACS = {
    ("torch", "mlp"): 64 * 64 + 64 * 10,
    ("torch", "cnn"): 8 * 8 * 9 * 16 + 4 * 4 * 9 * 16 * 32 + 128 * 10,
    ("torch", "lstm"): 5 * 4 * 16 * (8 + 16) + 16 * 10,
    ("torch", "text"): ATTENTION + 2 * TEXT_STEPS * TEXT_WIDTH * 32 + TEXT_WIDTH * 3,
    ("torch", "two"): 10 * 16 + 16 * 2,
    ("keras", "mlp"): 64 * 64 + 64 * 10,
    ("keras", "cnn"): 8 * 8 * 9 * 16 + 4 * 4 * 9 * 16 * 32 + 4 * 4 * 32 * 10,
    ("keras", "lstm"): 5 * 4 * 16 * (8 + 16) + 16 * 10,
    ("keras", "text"): TEXT_STEPS * 16 * 32 + 32 * 3,
    ("keras", "two"): 10 * 16 + 16 * 2,
}
WEIGHTS = {
    ("torch", "mlp"): 64 * 64 + 64 * 10,
    ("torch", "cnn"): 9 * 16 + 9 * 16 * 32 + 128 * 10,
    ("torch", "lstm"): 4 * 16 * (8 + 16) + 16 * 10,
    ("torch", "text"): 50 * 16 + 4 * 16 * 16 + 2 * 16 * 32 + 16 * 3,
    ("torch", "two"): 5 * 4 + 10 * 16 + 16 * 2,
    ("keras", "mlp"): 64 * 64 + 64 * 10,
    ("keras", "cnn"): 9 * 16 + 9 * 16 * 32 + 4 * 4 * 32 * 10,
    ("keras", "lstm"): 4 * 16 * (8 + 16) + 16 * 10,
    ("keras", "text"): 50 * 16 + 16 * 32 + 32 * 3,
    ("keras", "two"): 5 * 4 + 10 * 16 + 16 * 2,
}

Export = Callable[[str, str, str], Artifact]
Told = Callable[[str, str, str], tuple[Layer, ...]]
ALL = pytest.mark.parametrize(("name", "framework", "kind"), CASES)
MLP = pytest.mark.parametrize(("name", "framework", "kind"), [case for case in CASES if case.values[2] == "mlp"])


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Export:
    """Give a function that exports a model for a runtime once, and loads it as any later process would."""
    folder = tmp_path_factory.mktemp("layers")
    made: dict[tuple[str, str, str], Artifact] = {}

    def export(name: str, framework: str, kind: str) -> Artifact:
        key = (name, framework, kind)
        if key not in made:
            runtime, work = RUNTIMES[name], workload(framework, kind)
            path = folder / f"{framework}-{name}-{kind}{runtime.suffix}"
            written = work.framework.export(work.model, work.signature, path, runtime.form)
            write_sidecar(path, manifest_of(work, runtime, written.batch))
            made[key] = load(path, threads=1)
        return made[key]

    return export


@pytest.fixture(scope="module")
def told(exported: Export) -> Callable[[str, str, str], tuple[Layer, ...]]:
    """Give a function that returns the layers of a model on a runtime, read once."""
    made: dict[tuple[str, str, str], tuple[Layer, ...]] = {}

    def layers(name: str, framework: str, kind: str) -> tuple[Layer, ...]:
        key = (name, framework, kind)
        if key not in made:
            artifact = exported(name, framework, kind)
            made[key] = RUNTIMES[name].layers(artifact.path, artifact.session, first_row(framework, kind))
        return made[key]

    return layers


def first_row(framework: str, kind: str) -> Any:
    inputs = next(workload(framework, kind).report_rows.batches())
    return map_leaves(np.ascontiguousarray, take_rows(inputs, slice(0, 1)))


@ALL
def test_the_work_of_a_row_is_what_one_counts_by_hand(told: Told, name: str, framework: str, kind: str) -> None:
    layers = told(name, framework, kind)
    expected = MACS[framework, kind]
    total = sum(layer.macs for layer in layers)
    assert total == pytest.approx(expected, rel=0.05)
    if kind in ("mlp", "cnn", "lstm"):
        assert total == expected


@ALL
def test_the_weights_are_all_there_stored_and_run_in_float32(told: Told, name: str, framework: str, kind: str) -> None:
    layers = told(name, framework, kind)
    assert sum(layer.weights for layer in layers) == WEIGHTS[framework, kind]
    for layer in layers:
        assert layer.name
        assert layer.kind in KINDS
        assert layer.compute_dtype == "float32", layer
        assert layer.weight_dtype == ("float32" if layer.weights else "")
        assert 0 <= layer.zeros <= layer.weights
        assert int(np.prod(layer.weight_shape)) <= layer.weights or not layer.weights
        assert not layer.note


@ALL
def test_layers_that_hold_tables_do_not_multiply(told: Told, name: str, framework: str, kind: str) -> None:
    layers = told(name, framework, kind)
    tables = [layer for layer in layers if layer.kind == "Embedding"]
    assert len(tables) == (1 if kind in ("text", "two") else 0)
    assert all(layer.macs == 0 for layer in tables)


@ALL
def test_the_session_runs_as_before_and_nothing_is_left_in_a_finished_artifact(
    exported: Export, told: Told, name: str, framework: str, kind: str
) -> None:
    artifact = exported(name, framework, kind)
    row = first_row(framework, kind)
    before = artifact.session.run(row)
    kept = [leaf.copy() for leaf in leaves(row)]
    told(name, framework, kind)
    np.testing.assert_array_equal(artifact.session.run(row), before)
    for leaf, original in zip(leaves(row), kept, strict=True):
        np.testing.assert_array_equal(leaf, original)
    assert RUNTIMES[name].leftovers(artifact.path, artifact.session) == ()


@MLP
def test_a_file_for_a_fixed_number_of_rows_counts_one_of_them(
    exported: Export, name: str, framework: str, kind: str
) -> None:
    artifact = exported(name, framework, kind)
    manifest = artifact.session.manifest
    artifact.session.manifest = dataclasses.replace(manifest, batch=3)
    try:
        layers = RUNTIMES[name].layers(artifact.path, artifact.session, first_row(framework, kind))
    finally:
        artifact.session.manifest = manifest
    assert sum(layer.macs for layer in layers) == MACS[framework, kind]


def test_no_runtime_brings_a_framework_along_with_another(run_python: Callable[..., Any]) -> None:
    script = """
        import sys
        from nbopt.runtimes import all_runtimes
        assert len(all_runtimes()) >= 6
        print([name for name in ("torch", "tensorflow", "keras", "onnx") if name in sys.modules])
    """
    output, error = run_python(script).communicate(timeout=60)
    assert output.strip() == "[]", error


def test_paths_are_not_written_to(exported: Export) -> None:
    artifact = exported("onnxruntime", "torch", "mlp")
    folder: Path = artifact.path.parent
    before = sorted(path.name for path in folder.iterdir())
    RUNTIMES["onnxruntime"].layers(artifact.path, artifact.session, first_row("torch", "mlp"))
    assert sorted(path.name for path in folder.iterdir()) == before
