"""Exported files: their size, their hash, their manifest, and reading them back."""

from __future__ import annotations

import json
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nbopt.artifacts import deflated_size, files_of, hash_of, load, read_sidecar, sidecar_of, size_of, write_sidecar
from nbopt.comparison import Comparison
from nbopt.errors import ArtifactError, DataError, NbOptWarning, OptionError, StoreError
from nbopt.loop import optimize
from nbopt.runtimes import Manifest
from nbopt.workload import Workload
from tests import models
from tests.conftest import Digits

MANIFEST = Manifest(
    "onnxruntime",
    ("a", "b"),
    keyed=True,
    dtypes=("float32", "int64"),
    shapes=((None, 3), (None, None)),
    output="logits",
)
ROWS = ["baseline/torch", "prune+quantize/onnxruntime", "prune+quantize/openvino"]


def test_all_files_that_a_user_ships_are_counted(tmp_path: Path) -> None:
    graph, weights = tmp_path / "m.xml", tmp_path / "m.bin"
    graph.write_bytes(b"<graph/>" * 100)
    weights.write_bytes(bytes(5000))
    total, deflated = size_of(graph), deflated_size(graph)
    assert total == 800 + 5000
    packed = [len(zlib.compress(path.read_bytes(), 6)) for path in (graph, weights)]
    assert abs(deflated - sum(packed)) <= 20
    assert files_of(graph) == [graph, weights]


def test_another_exports_files_in_the_same_folder_do_not_count(tmp_path: Path) -> None:
    onnx = tmp_path / "m.onnx"
    onnx.write_bytes(b"graph")
    before = hash_of(onnx), (size_of(onnx), deflated_size(onnx))
    (tmp_path / "m.bin").write_bytes(b"weights of m.xml")
    (tmp_path / "m.xml").write_bytes(b"another")
    assert (hash_of(onnx), (size_of(onnx), deflated_size(onnx))) == before
    (tmp_path / "m.onnx.data").write_bytes(b"external weights")
    assert hash_of(onnx) != before[0]


def test_the_hash_is_of_the_content_not_of_the_name(tmp_path: Path) -> None:
    one, two, other = tmp_path / "a.onnx", tmp_path / "b.onnx", tmp_path / "c.onnx"
    one.write_bytes(b"x")
    two.write_bytes(b"x")
    other.write_bytes(b"y")
    assert hash_of(one) == hash_of(two) != hash_of(other)


def test_the_manifest_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"x")
    sha256 = write_sidecar(path, MANIFEST, {"recipe": "quantize"})
    kept = read_sidecar(path)
    assert kept is not None
    assert kept[0] == MANIFEST
    assert kept[1]["sha256"] == sha256 == hash_of(path)
    assert kept[1]["about"] == {"recipe": "quantize"}


def test_fields_that_this_version_does_not_know_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"x")
    write_sidecar(path, MANIFEST)
    body = json.loads(sidecar_of(path).read_text())
    body["manifest"]["colour"] = "blue"
    sidecar_of(path).write_text(json.dumps(body))
    kept = read_sidecar(path)
    assert kept is not None
    assert kept[0] == MANIFEST


@pytest.mark.parametrize("name", ROWS)
def test_an_exported_run_predicts_the_same_wherever_it_lies(
    name: str, comparison: Comparison, digits: Digits, tmp_path: Path
) -> None:
    run = comparison[name]
    x = digits.test[0][:5]
    expected = run.predict(x)
    path = run.export(tmp_path / "deep" / "folder" / "exported")
    assert path.suffix == run.path.suffix
    moved = tmp_path / "moved"
    shutil.move(path.parent, moved)
    np.testing.assert_array_equal(load(moved / path.name).predict(x), expected)
    # Another number of threads may add in another order.
    np.testing.assert_allclose(load(str(moved / path.name), threads=1).predict(x.tolist()), expected, atol=1e-4)


def test_exports_of_two_runtimes_under_one_name_do_not_disturb_each_other(
    comparison: Comparison, digits: Digits, tmp_path: Path
) -> None:
    x = digits.test[0][:5]
    paths = {name: comparison[name].export(tmp_path / "model") for name in ROWS}
    assert len(set(paths.values())) == 3
    for name, path in paths.items():
        np.testing.assert_array_equal(load(path).predict(x), comparison[name].predict(x))


def test_weights_too_large_for_a_graph_go_with_it_under_any_name(
    digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = digits.valid
    runs = {}
    for seed in (0, 1):
        torch.manual_seed(seed)
        work = Workload(models.mlp(hidden=128), valid=(x, y))
        with monkeypatch.context() as large:
            large.setattr("nbopt.frameworks._torch_export.PROTOBUF_BYTES", 0)
            runs[seed] = optimize(work, runtimes="onnxruntime", threads=1)["baseline/onnxruntime"]
    paths = {seed: run.export(tmp_path / f"of{seed}.onnx") for seed, run in runs.items()}
    moved = tmp_path / "moved"
    moved.mkdir()
    for seed, path in paths.items():
        assert [file.name for file in files_of(path)] == [path.name, f"{path.name}.data"]
        assert hash_of(path) == runs[seed].artifact_sha256
        assert size_of(path) == pytest.approx(runs[seed].size_bytes, rel=0.01)
        for file in tmp_path.glob(f"{path.name}*"):
            shutil.copy(file, moved)
        np.testing.assert_array_equal(load(moved / path.name).predict(x), runs[seed].predict(x))
    small = optimize(Workload(models.mlp(hidden=4), valid=(x, y)), runtimes="onnxruntime", threads=1)
    again = small["baseline/onnxruntime"].export(paths[0])
    assert files_of(again) == [again]
    load(again)
    paths[1].with_name("of1.onnx.data").write_bytes(b"")
    with pytest.raises(ArtifactError, match="changed or is cut short"):
        load(paths[1])


def test_exporting_again_replaces_and_leaves_nothing_beside(comparison: Comparison, tmp_path: Path) -> None:
    for name in ("baseline/openvino", "prune+quantize/openvino"):
        path = comparison[name].export(tmp_path / "m.xml")
        assert hash_of(path) == comparison[name].artifact_sha256
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(("m.", "."))) == [
        "m.bin",
        "m.xml",
        "m.xml.nbopt.json",
    ]


def test_another_ending_is_refused_with_the_right_one(comparison: Comparison, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"m\.tflite") as caught:
        comparison["prune+quantize/openvino"].export(tmp_path / "m.tflite")
    assert "m.xml" in caught.value.do
    assert list(tmp_path.glob("m.*")) == []


def test_another_ending_that_the_recipe_has_too_gives_that_file_and_says_so(
    comparison: Comparison, tmp_path: Path
) -> None:
    with pytest.warns(NbOptWarning, match=r"m\.onnx is the file of prune\+quantize/onnxruntime"):
        path = comparison["prune+quantize/openvino"].export(tmp_path / "m.onnx")
    twin = comparison["prune+quantize/onnxruntime"]
    assert hash_of(path) == twin.artifact_sha256
    assert load(path).session.manifest.runtime == "onnxruntime"


def test_a_file_without_a_manifest_is_loaded_by_its_ending(
    comparison: Comparison, digits: Digits, tmp_path: Path
) -> None:
    run = comparison["prune+quantize/onnxruntime"]
    bare = tmp_path / "bare.onnx"
    shutil.copy(run.path, bare)
    x = digits.test[0][:5]
    np.testing.assert_array_equal(load(bare).predict(x), run.predict(x))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros(64, np.float32), r"input_0 of shape \(rows, 64\).*\n.*\(64,\).*\n.*x\[None\]"),
        (np.zeros((2, 63), np.float32), r"\(rows, 64\)"),
        (np.zeros((2, 8, 8), np.float32), r"shape \(2, 8, 8\)"),
        ((np.zeros((2, 64)), np.zeros((2, 64))), "1 inputs: input_0"),
        ({"pixels": np.zeros((2, 64))}, "came: pixels"),
        ([["a"] * 64], "numeric arrays"),
    ],
)
@pytest.mark.parametrize("name", ROWS)
def test_inputs_of_another_form_are_told(comparison: Comparison, name: str, x: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        comparison[name].predict(x)


@pytest.mark.parametrize("name", ROWS)
def test_inputs_in_any_usual_form_are_taken(comparison: Comparison, name: str, digits: Digits) -> None:
    import pandas as pd
    import torch

    run, x = comparison[name], digits.test[0][:3]
    expected = run.predict(x)
    for form in (x.astype(np.float64), x.tolist(), torch.from_numpy(x), pd.DataFrame(x), (x,), {"input_0": x}):
        np.testing.assert_array_equal(run.predict(form), expected)
    whole = np.arange(64).reshape(1, 64)
    np.testing.assert_array_equal(run.predict(whole), run.predict(whole.astype(np.float32)))


@pytest.fixture
def exported(comparison: Comparison, tmp_path: Path) -> dict[str, Path]:
    return {name: comparison[name].export(tmp_path / f"{index}") for index, name in enumerate(ROWS)}


@pytest.mark.parametrize("name", ROWS)
def test_a_file_that_was_cut_short_is_told(exported: dict[str, Path], name: str) -> None:
    path = exported[name]
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ArtifactError, match="changed or is cut short"):
        load(path)


@pytest.mark.parametrize("keep", [0, 100, 0.5])
@pytest.mark.parametrize("name", ROWS)
def test_a_damaged_file_without_a_manifest_is_told_too(exported: dict[str, Path], name: str, keep: float) -> None:
    path = exported[name]
    sidecar_of(path).unlink()
    content = path.read_bytes()
    path.write_bytes(content[: keep if isinstance(keep, int) else int(keep * len(content))])
    with pytest.raises(ArtifactError) as caught:
        load(path)
    assert path.name in str(caught.value)
    assert caught.value.do


def test_openvino_weights_that_are_missing_are_named(exported: dict[str, Path]) -> None:
    path = exported["prune+quantize/openvino"]
    path.with_suffix(".bin").unlink()
    with pytest.raises(ArtifactError):
        load(path)
    sidecar_of(path).unlink()
    with pytest.raises(ArtifactError, match=rf"no {path.stem}\.bin"):
        load(path)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"nbopt_artifact": 1}', '{"nbopt_artifact": 1, "manifest": {}}']
)
def test_a_broken_manifest_is_told(exported: dict[str, Path], content: str) -> None:
    path = exported["baseline/torch"]
    sidecar_of(path).write_text(content)
    with pytest.raises(ArtifactError, match=f"the manifest {sidecar_of(path).name}"):
        load(path)


def test_an_artifact_of_a_newer_version_says_how_to_upgrade(exported: dict[str, Path]) -> None:
    path = exported["baseline/torch"]
    body = json.loads(sidecar_of(path).read_text())
    sidecar_of(path).write_text(json.dumps({**body, "nbopt_artifact": 99}))
    with pytest.raises(ArtifactError, match=r"version 99.*\n.*pip install --upgrade nbopt"):
        load(path)


def test_no_file_no_known_ending_and_no_known_runtime(exported: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no file at"):
        load(tmp_path / "nothing.onnx")
    text = tmp_path / "model.h5"
    text.write_text("x")
    with pytest.raises(ArtifactError, match=r"\.onnx.*\n.*model\.h5"):
        load(text)
    with pytest.raises(OptionError, match="did you mean 'onnxruntime'"):
        load(exported["prune+quantize/onnxruntime"], runtime="onnxruntim")


def test_weights_saved_by_torch_alone_are_no_model(trained_mlp: Any, tmp_path: Path) -> None:
    import torch

    torch.save(trained_mlp.state_dict(), tmp_path / "weights.pt")
    with pytest.raises(ArtifactError, match=r"torch\.save"):
        load(tmp_path / "weights.pt")


def test_an_export_to_a_place_that_can_not_be_written_is_told(comparison: Comparison, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="a place that can be written"):
        comparison["baseline/torch"].export(tmp_path / "file" / "m.pt")
    with pytest.raises(StoreError):
        comparison["baseline/torch"].export("/proc/nbopt/m.pt")
