"""PT2E's int8 in torch.compile: a file that loads anywhere, integer kernels, and outputs as good."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from nbopt.artifacts import load, size_of, write_sidecar
from nbopt.draft import Context, Draft
from nbopt.loop import optimize
from nbopt.runtimes import Manifest, runtime_named
from nbopt.runtimes.inductor import COMPILERS
from nbopt.techniques._quantize.mixed import manifest_for, relative_error
from nbopt.techniques.quantize import Quantize
from nbopt.workload import Workload
from tests.conftest import Digits
from tests.techniques.test_quantize import Masked

RUNTIME = runtime_named("inductor")
pytestmark = pytest.mark.skipif(not any(map(shutil.which, COMPILERS)), reason="torch.compile needs a C++ compiler")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cnn", "text"])
def test_it_runs_in_integer_kernels_and_judges_as_before(
    kind: str, trained_cnn: torch.nn.Module, digits: Digits, tmp_path: Path
) -> None:
    if kind == "cnn":
        images = digits.x.reshape(-1, 1, 8, 8)
        work = Workload(trained_cnn, train=(images[:300], digits.y[:300]), valid=(images[300:340], digits.y[300:340]))
    else:
        from tests.test_unseen_models import transformer

        case = transformer()
        work = Workload(case.model, train=case.data, valid=case.data)
    (step,) = Quantize(calibration=32).apply(Draft(work.model), Context(work)).lower
    assert step.refuses(RUNTIME) == ""
    source = work.framework.export(work.model, work.signature, tmp_path / "float.pt", "torch")
    folder = tmp_path / "lowered"
    folder.mkdir()
    lowered = step(work.model, work.signature, source, RUNTIME, folder, Context(work))
    signature = work.signature
    shapes = tuple(leaf.shape for leaf in signature.leaves)
    dtypes = tuple(leaf.dtype for leaf in signature.leaves)
    batch = lowered.exported.batch
    manifest = Manifest("inductor", tuple(signature.names), signature.keyed, batch, "int8", dtypes, shapes)
    write_sidecar(lowered.exported.path, manifest)
    session = load(lowered.exported.path, threads=1).session
    inputs = next(work.report_rows.batches())
    torch._dynamo.utils.counters.clear()
    outputs = session.run(inputs)
    assert relative_error(outputs, work.framework.predict(work.model, inputs)) < 0.1
    fused = torch._dynamo.utils.counters["inductor"]
    assert sum(count for name, count in fused.items() if "qconv" in name or "qlinear" in name) > 0
    layers = RUNTIME.layers(lowered.exported.path, session, work.report_rows.first_row())
    integer = [layer for layer in layers if layer.compute_dtype == "int8"]
    assert integer
    assert {layer.weight_dtype for layer in integer} <= {"int8", ""}
    if kind == "cnn":
        assert [layer.weights for layer in layers] == [16 * 9, 32 * 16 * 9, 1280]
        assert [layer.macs for layer in layers] == [64 * 16 * 9, 16 * 32 * 16 * 9, 1280]
        assert runtime_named("inductor").weight_precisions(lowered.exported.path)["int8"] == 144 + 4608 + 1280
        assert size_of(lowered.exported.path) > 0


@pytest.mark.parametrize(("method", "compute"), [("static", "int8"), ("dynamic", "int8 dynamic")])
def test_products_of_an_attention_have_no_weights(method: str, compute: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    ids, mask = rng.integers(0, 40, (20, 12)), np.ones((20, 12), np.int64)
    data = ((ids, mask), rng.integers(0, 4, 20))
    splits = {"train": data, "valid": data} if method == "static" else {"test": data}  # which nothing is calibrated on
    work = Workload(Masked().eval(), **splits)
    source = work.framework.export(work.model, work.signature, tmp_path / "float.pt", "torch")
    folder = tmp_path / "lowered"
    folder.mkdir()
    (step,) = Quantize(method=method).apply(Draft(work.model), Context(work)).lower
    lowered = step(work.model, work.signature, source, RUNTIME, folder, Context(work))
    assert method == "static" or not lowered.notes
    session = RUNTIME.load(lowered.exported.path, manifest_for(RUNTIME, work.signature, source), threads=1)
    layers = RUNTIME.layers(lowered.exported.path, session, work.report_rows.first_row())
    assert [(layer.kind, layer.weights) for layer in layers if layer.compute_dtype == "float32"] == [("MatMul", 0)] * 2
    assert [layer.weights for layer in layers if layer.compute_dtype == compute] == [1024, 1024, 1024, 128]


@pytest.mark.slow
def test_it_is_measured_in_a_process_of_its_own(trained_cnn: torch.nn.Module, digits: Digits) -> None:
    images = digits.x.reshape(-1, 1, 8, 8)
    parts = {"train": slice(1000), "valid": slice(1000, 1250), "test": slice(1250, None)}
    work = Workload(trained_cnn, **{name: (images[rows], digits.y[rows]) for name, rows in parts.items()})
    run = optimize(work, Quantize(calibration=64), runtimes="inductor", threads=1)["quantize/inductor"]
    assert run.status == "ok", run.reason
    assert (run.quality_delta or 0) > -0.01
    assert [layer["compute_dtype"] for layer in run.audit["layers"]] == ["int8"] * 3
    assert run.dtype.startswith("int8")  # and no float weights beside them
    assert run.predict(images[:3]).shape == (3, 10)


def test_eager_torch_and_what_the_quantizer_has_not_are_refused(trained_cnn: torch.nn.Module, digits: Digits) -> None:
    images = digits.x.reshape(-1, 1, 8, 8)
    work = Workload(trained_cnn, train=(images[:50], digits.y[:50]), valid=(images[300:340], digits.y[300:340]))
    draft, context = Draft(work.model), Context(work)
    refused = Quantize().apply(draft, context).lower[0].refuses(runtime_named("torch"))
    assert "eager" in refused
    for options in (Quantize(dtype="int4"), Quantize(calibration_method="entropy"), Quantize(keep_float="head")):
        assert options.apply(draft, context).lower[0].refuses(RUNTIME)
    assert np.isfinite(work.framework.predict(work.model, (images[:2],))).all()
