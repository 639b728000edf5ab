"""An audit sums layers up, says what falls short of what was asked, and comes back from a fresh process."""

from __future__ import annotations

import json
from pathlib import Path

import psutil
import pytest

from nbopt.artifacts import read_sidecar
from nbopt.comparison import Comparison
from nbopt.measurement.audit import LAYERS_KEPT, Audit, audit_of, family_of, leftovers, shortfall
from nbopt.measurement.bench import Bench
from nbopt.runs import Run
from nbopt.runtimes import Layer, Manifest
from nbopt.workload import Workload


def layer(computes: str, macs: int, stored: str = "float32", weights: int = 100, zeros: int = 0) -> Layer:
    return Layer("layer", "Linear", stored, computes, (weights,), weights, zeros, macs)


def test_the_sums_are_over_all_layers() -> None:
    layers = [layer("float32", 60), layer("int8 dynamic", 30, "int8", 50, 10), layer("int8", 10, "uint8", 50, 15)]
    audit = audit_of([*layers, Layer("table", "Embedding", "float16", "float32", (4, 50), 200, 50)])
    assert (audit.macs, audit.weights, audit.zeros) == (100, 400, 75)
    assert audit.mac_shares == {"float32": 0.6, "int8": 0.4}
    assert audit.weight_shares == {"float16": 0.5, "float32": 0.25, "int8": 0.25}
    assert audit.counts == {"float32": 1, "int8": 2}
    assert audit.held == {"float32": 1, "int8": 2, "float16": 1}
    assert audit.zeros_share == 75 / 400
    assert audit.precision == "float32"


def test_it_is_plain_data_there_and_back() -> None:
    audit = audit_of([layer("float32", 60), layer("int8", 40, "int8")], ["a.weight_mask"])
    assert Audit.from_dict(json.loads(json.dumps(audit.to_dict()))) == audit
    assert Audit.from_dict({}) == Audit()
    later = {**audit.to_dict(), "of a later version": 1}
    later["layers"] = [{**entry, "unheard of": 2} for entry in later["layers"]]
    assert Audit.from_dict(later) == audit


def test_of_many_layers_the_largest_are_kept_in_order_and_all_are_in_the_sums() -> None:
    layers = [Layer(f"layer {i}", "Linear", "float32", "float32", macs=i) for i in range(LAYERS_KEPT + 50)]
    audit = audit_of(layers)
    assert len(audit.layers) == LAYERS_KEPT
    assert audit.left_out == 50
    assert [entry.macs for entry in audit.layers] == list(range(50, LAYERS_KEPT + 50))
    assert audit.macs == sum(range(LAYERS_KEPT + 50))
    assert audit.counts == {"float32": LAYERS_KEPT + 49}  # the first multiplies nothing


@pytest.mark.parametrize(
    ("layers", "asked", "said"),
    [
        ([layer("float32", 97)] * 1 + [layer("int8", 3, "int8")], "int8",
         "int8 asked, 3% of MACs run in int8 (1 of 2 layers)"),
        ([layer("float32", 9_990), layer("int8", 10, "int8")], "int8",
         "int8 asked, under 1% of MACs run in int8 (1 of 2 layers)"),
        ([layer("float32", 10)], "int8", "int8 asked, 0% of MACs run in int8 (0 of 1 layers)"),
        ([layer("int8 dynamic", 50, "int8"), layer("float32", 50)], "int8", ""),
        ([layer("float32", 100, "float16")], "float16", "float16 is storage only: computes in float32"),
        ([layer("float32", 100, "int8")], "int8", "int8 is storage only: computes in float32"),
        ([layer("float32", 100, "float16")], "bfloat16", "bfloat16 asked: this CPU computes in float32"),
        ([layer("bfloat16", 100, "float16")], "bfloat16", ""),
        ([layer("bfloat16", 100)], "float32", "float32 is storage only: computes in bfloat16"),
        ([layer("unknown", 100, "int8")], "int8", ""),
        ([layer("unknown", 60), layer("float32", 40)], "int8",
         "int8 asked, 0% of MACs are known to run in int8 (0 of 2 layers), and of 60% the runtime does not tell"),
        ([layer("float32", 0, "int8"), layer("float32", 0, weights=20)], "int8", ""),
        ([layer("float32", 0, "int8", 10), layer("float32", 0)], "int8",
         "int8 asked, 9% of weights are int8 (1 of 2 layers)"),
        ([layer("float32", 10)], "", ""),
        ([], "int8", ""),
    ],
)  # fmt: skip
def test_what_falls_short_is_said_in_plain_words(layers: list[Layer], asked: str, said: str) -> None:
    assert shortfall(audit_of(layers), asked) == said


def test_a_format_that_only_stores_is_judged_by_its_weights() -> None:
    assert shortfall(audit_of([layer("float32", 10, "int8")]), "int8", weight_only=True) == ""
    few = audit_of([layer("float32", 10, "int8", 30), layer("float32", 10, weights=70)])
    assert shortfall(few, "int8", weight_only=True) == "int8 asked, 30% of weights are int8 (1 of 2 layers)"


def test_leftovers_are_named_as_our_own_error() -> None:
    assert leftovers(audit_of([])) == ""
    audit = audit_of([], [f"layer{i}.weight_mask" for i in range(5)])
    assert leftovers(audit).startswith("an error of nbopt's: the artifact still holds layer0.weight_mask, ")
    assert leftovers(audit).endswith("and 2 more")
    assert leftovers(audit, audit) == ""  # the user's own
    own = audit_of([], audit.leftovers[:4])
    assert leftovers(audit, own) == "an error of nbopt's: the artifact still holds layer4.weight_mask"


@pytest.mark.parametrize(
    ("dtype", "family"),
    [("uint8", "int8"), ("int8 dynamic", "int8"), ("float32", "float32"), ("uint4", "int4"), ("unknown", "unknown")],
)
def test_dtypes_of_one_family_count_together(dtype: str, family: str) -> None:
    assert family_of(dtype) == family


def kept(run: Run) -> tuple[Path, Manifest]:
    sidecar = read_sidecar(run.path)
    assert sidecar is not None
    return run.path, sidecar[0]


@pytest.mark.parametrize("name", ["baseline/torch", "baseline/onnxruntime", "baseline/openvino"])
def test_a_fresh_process_audits_the_baseline(comparison: Comparison, workload: Workload, name: str) -> None:
    path, manifest = kept(comparison[name])
    with Bench(path, manifest, threads=1, folder=workload.report_rows.folder) as bench:
        audit = bench.audit()
        assert audit.macs == 64 * 64 + 64 * 10
        assert audit.mac_shares == {"float32": 1}
        assert [entry.weight_shape for entry in audit.layers] == [(64, 64), (10, 64)]
        assert audit.leftovers == ()
        assert shortfall(audit, "float32") == ""
        assert bench.side()(3).calls >= 3
        if "torch" not in name:
            mapped = {Path(entry.path).name for entry in psutil.Process(bench.pid).memory_maps()}
            assert not any("libtorch" in entry or "libtensorflow" in entry for entry in mapped)


def test_what_can_not_be_audited_says_why_and_still_runs(
    comparison: Comparison, workload: Workload, tmp_path: Path
) -> None:
    path, manifest = kept(comparison["baseline/onnxruntime"])
    copy = tmp_path / "model.onnx"
    copy.write_bytes(path.read_bytes())
    with Bench(copy, manifest, threads=1, folder=workload.report_rows.folder) as bench:
        assert bench.loaded.load_ms > 0
        copy.unlink()
        audit = bench.audit()
        assert "model.onnx" in audit.unread
        assert (audit.layers, shortfall(audit, "int8")) == ((), "")
        assert bench.side()(3).calls >= 3


def test_a_pruned_and_quantized_run_is_what_it_says(comparison: Comparison, workload: Workload) -> None:
    run = next(run for run in comparison.runs if run.name.endswith("/onnxruntime") and "quantize" in run.recipe)
    path, manifest = kept(run)
    with Bench(path, manifest, threads=1, folder=workload.report_rows.folder) as bench:
        audit = bench.audit()
    assert shortfall(audit, "int8") == ""
    assert audit.weight_shares == {"int8": 1}
    assert audit.macs == 64 * 64 + 64 * 10
    assert audit.zeros_share >= 0.5  # half of the weights were pruned, and small ones round to zero
    assert leftovers(audit) == ""
