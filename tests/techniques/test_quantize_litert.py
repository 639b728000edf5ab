from __future__ import annotations

import keras
import numpy as np
import pytest

from nbopt.data import leaves
from nbopt.errors import ExportError
from nbopt.frameworks import Fitting
from nbopt.frameworks.keras import FRAMEWORK
from nbopt.runtimes import Manifest, runtime_named
from nbopt.technique import Context
from nbopt.techniques._quantize_litert import lower
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
