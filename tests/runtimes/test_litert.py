from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from nbopt.errors import ArtifactError, DataError
from nbopt.frameworks._keras_export import convert_litert
from nbopt.frameworks.keras import FRAMEWORK
from nbopt.runtimes import Manifest, runtime_named
from tests.keras_models import cnn, signature, two_inputs


def _session(path, inputs, batch=None):
    described = signature(inputs)
    manifest = Manifest("litert", tuple(described.names), described.keyed, batch)
    return runtime_named("litert").load(path, manifest, threads=1)


def test_any_number_of_rows_in_any_order(tmp_path):
    model, inputs = two_inputs()
    exported = FRAMEWORK.export(model, signature(inputs), tmp_path / "m.tflite", "litert")
    session = _session(exported.path, inputs)
    expected = FRAMEWORK.predict(model, inputs)
    for count in (1, 3, 5, 2):
        part = tuple(leaf[:count] for leaf in inputs)
        np.testing.assert_allclose(session.run(part), expected[:count], atol=1e-5)
    with pytest.raises(DataError):
        session.run((inputs[0][:, :4], inputs[1]))
    np.testing.assert_allclose(session.run(inputs), expected, atol=1e-5)


def test_int8_inputs_and_outputs_take_and_give_floats(tmp_path):
    model, inputs = cnn()

    def integer(converter):
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ({"input_0": inputs[0][i : i + 1]} for i in range(5))
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8

    path = tmp_path / "m.tflite"
    path.write_bytes(convert_litert(model, signature(inputs), None, integer))
    given = _session(path, inputs).run(inputs)
    expected = FRAMEWORK.predict(model, inputs)
    assert given.dtype == np.float32
    assert np.abs(given - expected).max() < 0.1 * np.abs(expected).max()


def test_a_damaged_file_is_told(tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(b"not a model at all")
    with pytest.raises(ArtifactError):
        _session(path, (np.zeros((1, 2), np.float32),))


def test_torch_models_need_a_converter():
    assert runtime_named("litert").unavailable("keras") == ""
    assert "pip install" in runtime_named("litert").unavailable("torch")
