from __future__ import annotations

import keras
import numpy as np
import pytest

from nbopt.batches import leaves
from nbopt.draft import Context, Draft
from nbopt.errors import ExportError
from nbopt.frameworks import Fitting
from nbopt.frameworks.keras import FRAMEWORK
from nbopt.measurement.bench import Bench
from nbopt.runtimes import Manifest, runtime_named
from nbopt.techniques._quantize.litert import lower
from nbopt.techniques.quantize import Quantize
from nbopt.training import TrainingPlan
from nbopt.workload import Workload
from tests.keras_models import ALL, L, digits


def _lowered(model, train, tmp_path, **options):
    work = Workload(model, valid=train)
    litert = runtime_named("litert")
    source = FRAMEWORK.export(model, work.signature, tmp_path / "model.tflite", "litert")
    folder = tmp_path / "out"
    folder.mkdir()
    result = lower(model, work.signature, source, litert, folder, Context(work), Quantize(**options))
    manifest = Manifest("litert", tuple(work.signature.names), work.signature.keyed, result.exported.batch)
    return source, result, litert.load(result.exported.path, manifest, threads=1)


@pytest.mark.parametrize(
    ("options", "smaller"),
    [({}, 3.4), ({"per_channel": False}, 3.4), ({"method": "dynamic"}, 3.4), ({"dtype": "float16"}, 1.9)],
)
def test_a_trained_cnn_is_smaller_and_as_good(options, smaller, tmp_path):
    (x, y), (xv, yv) = digits()
    body = [L.Conv2D(16, 3, padding="same", use_bias=False), L.BatchNormalization(momentum=0.8), L.ReLU(), L.Flatten()]
    model = keras.Sequential([keras.Input((8, 8, 1)), *body, L.Dense(64, "relu"), L.Dense(10)])
    work = Workload(model, train=(x, y), valid=(xv, yv))
    FRAMEWORK.fit(model, TrainingPlan(epochs=4, batch_size=64), Fitting(work.train, work.loss))
    source, result, session = _lowered(model, (x, y), tmp_path, calibration=100, **options)
    before = (FRAMEWORK.predict(model, (xv,)).argmax(-1) == yv).mean()
    after = (session.run((xv,)).argmax(-1) == yv).mean()
    assert before > 0.85
    assert after > before - 0.01
    assert source.path.stat().st_size > smaller * result.exported.path.stat().st_size
    assert session.run((xv[:1],)).dtype == np.float32


@pytest.mark.parametrize("name", ["embedding", "by_name", "subclassed"])
def test_static_int8_of_other_shapes(name, tmp_path):
    model, inputs = ALL[name]()
    labels = np.array([0, 1, 0, 1, 0])
    _, _, session = _lowered(model, (inputs, labels), tmp_path, calibration=5)
    expected = FRAMEWORK.predict(model, inputs)
    assert np.abs(session.run(inputs) - expected).max() < 0.1 * np.abs(expected).max()
    assert all(np.array_equal(a, b) for a, b in zip(leaves(inputs), leaves(ALL[name]()[1]), strict=True))


@pytest.mark.parametrize("options", [{}, {"method": "dynamic"}, {"dtype": "float16"}])
def test_a_half_precision_policy_is_quantized_from_float32(options, tmp_path):
    body = [L.Conv2D(16, 3, activation="relu", dtype="mixed_float16"), L.Flatten(), L.Dense(32, dtype="mixed_float16")]
    model = keras.Sequential([keras.Input((8, 8, 1)), *body, L.Dense(10)])
    (x, y), _ = digits()
    _, result, session = _lowered(model, (x[:60], y[:60]), tmp_path, calibration=60, **options)
    expected = FRAMEWORK.predict(model, (x[:60],))
    assert np.abs(session.run((x[:60],)) - expected).mean() < 0.1 * np.abs(expected).mean()
    assert any("mixed_float16" in note for note in result.notes)
    assert model.layers[0].dtype_policy.name == "mixed_float16"


def test_recurrent_layers_go_dynamic_or_float16_only(tmp_path):
    model, inputs = ALL["lstm"]()
    train = (inputs, np.array([0, 1, 0, 1, 2]))
    with pytest.raises(ExportError):
        _lowered(model, train, tmp_path)
    for options in ({"method": "dynamic"}, {"dtype": "float16"}):
        folder = tmp_path / next(iter(options))
        folder.mkdir()
        _, result, session = _lowered(model, train, folder, **options)
        assert result.exported.batch == 1
        np.testing.assert_allclose(session.run(inputs), FRAMEWORK.predict(model, inputs), atol=0.02)


def test_what_it_can_not_do_is_told(tmp_path):
    model, inputs = ALL["two_inputs"]()
    train = (inputs, np.array([0, 1, 0, 1, 0]))
    with pytest.raises(ExportError):
        _lowered(model, train, tmp_path, dtype="bfloat16")
    (tmp_path / "small").mkdir()
    with pytest.raises(ExportError):
        _lowered(model, train, tmp_path / "small", method="dynamic")


def test_a_masked_lstm_goes_dynamic_on_onnx_runtime(tmp_path):
    # With the embedding quantized too, ONNX Runtime 1.32 ends the process: hence a process of its own here.
    layers = [L.Embedding(20, 8, mask_zero=True), L.LSTM(16), L.Dense(64, "relu"), L.Dense(3)]
    model = keras.Sequential([keras.Input((6,), dtype="int32"), *layers])
    x = np.random.default_rng(0).integers(0, 20, (9, 6)).astype(np.int32)
    work = Workload(model, train=(x, np.arange(9) % 3), valid=(x, np.arange(9) % 3))
    runtime = runtime_named("onnxruntime")
    source = FRAMEWORK.export(model, work.signature, tmp_path / "float.onnx", "onnx")
    (step,) = Quantize(method="dynamic").apply(Draft(model), Context(work)).lower
    lowered = step(model, work.signature, source, runtime, tmp_path, Context(work))
    manifest = Manifest("onnxruntime", ("input_0",), precision="int8")
    with Bench(lowered.exported.path, manifest, threads=1, folder=work.report_rows.folder) as bench:
        outputs = bench.predict(work.report_rows.folder)
    np.testing.assert_allclose(outputs, FRAMEWORK.predict(model, (x,)), atol=0.02)


def test_int8_in_and_out_for_microcontrollers_and_its_header(tmp_path):
    import shutil
    import subprocess

    from nbopt.loop import optimize

    (x, y), (xv, yv) = digits()
    body = [L.Conv2D(8, 3, activation="relu"), L.GlobalAveragePooling2D(), L.Dense(10)]
    model = keras.Sequential([keras.Input((8, 8, 1)), *body])
    work = Workload(model, train=(x, y), valid=(xv, yv))
    FRAMEWORK.fit(model, TrainingPlan(epochs=3, batch_size=64), Fitting(work.train, work.loss))
    run = optimize(work, Quantize(io="int8", calibration=64), runtimes="litert", threads=1)["quantize/litert"]
    assert run.status == "ok", run.reason
    assert abs(run.quality_delta) < 0.03

    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(run.path))
    ends = [*interpreter.get_input_details(), *interpreter.get_output_details()]
    assert [end["dtype"] for end in ends] == [np.int8, np.int8]
    header = run.export(tmp_path / "my-model.h")
    assert f"my_model_len = {run.path.stat().st_size};" in header.read_text()
    compiler = shutil.which("gcc") or shutil.which("cc")
    assert compiler, "the header is compiled here"
    program = tmp_path / "main.c"
    program.write_text(
        '#include <stdio.h>\n#include "my-model.h"\n'
        "int main(void) { fwrite(my_model, 1, my_model_len, stdout); return (unsigned long)my_model % 16; }"
    )
    subprocess.run([compiler, "-std=c11", "-Wall", "-Werror", str(program), "-o", str(tmp_path / "main")], check=True)
    assert subprocess.run([str(tmp_path / "main")], check=True, capture_output=True).stdout == run.path.read_bytes()


@pytest.mark.parametrize("options", [{"method": "weight_only"}, {"dtype": "int4", "group_size": 32}])
def test_weights_alone(options, tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((64,)), L.Dense(256, "relu"), L.Dense(40, "relu"), L.Dense(3)])
    x = np.random.default_rng(0).normal(size=(40, 64)).astype(np.float32)
    _, result, session = _lowered(model, (x, np.arange(40) % 3), tmp_path, **options)
    expected = FRAMEWORK.predict(model, (x,))
    assert 0 < np.abs(session.run((x,)) - expected).max() < 0.15 * np.abs(expected).max()
    found = [layer.weight_dtype for layer in runtime_named("litert").layers(result.exported.path, session, (x[:1],))]
    assert found == (["int8"] * 3 if "method" in options else ["int4", "int4", "int8"])
    assert any("40 inputs" in note for note in result.notes) == ("dtype" in options)


def test_the_most_sensitive_layer_can_stay_float(tmp_path):
    model = keras.Sequential([keras.Input((8,)), L.Dense(64, "relu"), L.Dense(32, "relu"), L.Dense(3)])
    x = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    work = Workload(
        model, train=(x, np.arange(60) % 3), valid=(x + 1, np.arange(60) % 3), test=(x - 1, np.arange(60) % 3)
    )
    litert = runtime_named("litert")
    source = FRAMEWORK.export(model, work.signature, tmp_path / "model.tflite", "litert")
    options = Quantize(calibration=60)
    # Nothing may be lost at all: whether that can be had depends on the rows, but each layer is measured.
    result = lower(model, work.signature, source, litert, tmp_path, Context(work, max_drop=-1.0), options)
    assert len(result.sensitivity["layers"]) == 3
    assert all(0 < value < 1 for value in result.sensitivity["layers"].values())
    named = next(iter(result.sensitivity["layers"]))
    kept = lower(
        model, work.signature, source, litert, tmp_path, Context(work), Quantize(calibration=60, keep_float=named)
    )
    session = litert.load(kept.exported.path, Manifest("litert", tuple(work.signature.names)), threads=1)
    layers = {layer.name: layer.weight_dtype for layer in litert.layers(kept.exported.path, session, (x[:1],))}
    assert layers.pop(named) == "float32"
    assert set(layers.values()) == {"int8"}
