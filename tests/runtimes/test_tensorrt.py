"""Where there is no NVIDIA GPU, TensorRT's row says what is missing, and the others are measured."""

from __future__ import annotations

import onnx
import pytest

from nbopt.draft import Context, Draft
from nbopt.loop import optimize
from nbopt.runtimes import runtime_named
from nbopt.techniques._quantize.onnx_static import OnnxParts
from nbopt.techniques.quantize import Quantize
from nbopt.workload import Workload

RUNTIME = runtime_named("tensorrt")
missing = RUNTIME.unavailable("torch")


@pytest.mark.skipif(not missing, reason="TensorRT can be used here")
def test_its_row_says_what_is_missing(workload: Workload) -> None:
    assert "NVIDIA" in missing or "TensorRT" in missing
    comparison = optimize(workload, Quantize(calibration=16), runtimes=["tensorrt", "onnxruntime"], threads=1)
    rows = {run.name: run for run in comparison}
    assert rows["quantize/tensorrt"].failed
    assert rows["quantize/tensorrt"].reason == missing
    assert rows["quantize/onnxruntime"].status == "ok"


def test_it_is_not_among_the_defaults_and_takes_no_weights_alone(workload: Workload) -> None:
    assert not RUNTIME.by_default
    (step,) = Quantize(dtype="int4").apply(Draft(workload.model), Context(workload)).lower
    assert "weight_only" in step.refuses(RUNTIME)


def test_its_activations_have_no_zero_point(workload: Workload, tmp_path) -> None:
    from nbopt.techniques._quantize.calibrating import calibration_rows

    work = workload
    source = work.framework.export(work.model, work.signature, tmp_path / "float.onnx", "onnx")
    rows, _ = calibration_rows(work.signature, Context(work), Quantize(calibration=8))
    OnnxParts(source.path, rows, Quantize(calibration=8), tmp_path, symmetric=True).write(tmp_path / "q.onnx", ())
    graph = onnx.load(tmp_path / "q.onnx").graph
    points = [onnx.numpy_helper.to_array(t) for t in graph.initializer if "zero_point" in t.name]
    assert points
    assert all(point.dtype.name in ("int8", "int32") and not point.any() for point in points)
