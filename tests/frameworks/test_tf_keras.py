"""Models of tf_keras beside models of Keras 3, in one process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tf_keras

import nbopt
from nbopt.errors import ModelError
from nbopt.frameworks import Fitting, framework_of
from nbopt.frameworks.tf_keras import FRAMEWORK
from nbopt.runtimes import Manifest, runtime_named
from nbopt.training import TrainingPlan
from tests.tf_keras_models import L, cnn, halves, lstm, nested, subclassed, two_inputs

ROW = np.random.default_rng(0).normal(size=(5, 20)).astype(np.float32)
INPUTS: dict[str, tuple[Callable[[], Any], tuple[Any, ...]]] = {
    "cnn": (cnn, (np.random.default_rng(0).normal(size=(5, 8, 8, 1)).astype(np.float32),)),
    "two_inputs": (two_inputs, (ROW[:, :8], np.random.default_rng(0).integers(0, 7, (5, 3)).astype(np.int32))),
    "lstm": (lstm, (np.random.default_rng(0).normal(size=(5, 12, 6)).astype(np.float32),)),
    "nested": (nested, (ROW,)),
    "subclassed": (subclassed, (ROW,)),
}


def test_each_keras_owns_its_models() -> None:
    other = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    assert framework_of(cnn()).name == "tf_keras"
    assert framework_of(other).name == "keras"
    with pytest.raises(ModelError, match="not been built"):
        framework_of(tf_keras.Sequential([L.Dense(3)]))


@pytest.mark.parametrize("kind", INPUTS)
def test_a_copy_is_equal_and_independent(kind: str) -> None:
    make, inputs = INPUTS[kind]
    model = make()
    twin = FRAMEWORK.clone(model)
    before = FRAMEWORK.predict(model, inputs)
    np.testing.assert_allclose(FRAMEWORK.predict(twin, inputs), before, atol=1e-6)
    for variable in twin.trainable_variables:
        variable.assign(variable * 0 + 3)
    np.testing.assert_array_equal(FRAMEWORK.predict(model, inputs), before)
    assert FRAMEWORK.count(model)[0] == sum(np.prod(v.shape) for v in model.trainable_variables)


def test_token_models_with_inputs_of_floats_are_copied() -> None:
    model = tf_keras.Sequential([L.Input((20,)), L.Embedding(50, 8), L.Flatten(), L.Dense(2, "softmax")])
    tokens = (np.random.default_rng(0).integers(0, 50, (5, 20)),)
    np.testing.assert_array_equal(FRAMEWORK.predict(FRAMEWORK.clone(model), tokens), FRAMEWORK.predict(model, tokens))


@pytest.mark.parametrize(
    ("form", "kind"),
    [("keras", k) for k in INPUTS]
    + [("litert", k) for k in INPUTS]
    + [("onnx", "cnn"), ("openvino", "cnn"), ("onnx", "two_inputs")],
)
def test_an_exported_file_computes_the_same(form: str, kind: str, tmp_path: Path) -> None:
    make, inputs = INPUTS[kind]
    model = make()
    labels = np.zeros(5, np.int64)
    work = nbopt.Workload(model, test=(inputs if len(inputs) > 1 else inputs[0], labels), loss=None)
    runtime = runtime_named({"onnx": "onnxruntime"}.get(form, form))
    exported = FRAMEWORK.export(model, work.signature, tmp_path / f"model{runtime.suffix}", form)
    manifest = Manifest(runtime.name, tuple(work.signature.names), batch=exported.batch)
    session = runtime.load(exported.path, manifest, threads=1)
    np.testing.assert_allclose(session.run(inputs), FRAMEWORK.predict(model, inputs), atol=1e-4)
    layers = runtime.layers(exported.path, session, tuple(x[:1] for x in inputs))
    assert sum(layer.weights for layer in layers) > 0


def test_output_and_loss_are_inferred_from_the_head() -> None:
    x, y = halves()
    work = nbopt.Workload(cnn(), valid=(x, y))
    assert work.output == "probabilities"
    assert "inferred" in work.loss_name or "cross" in work.loss_name
    compiled = cnn()
    compiled.compile("adam", "sparse_categorical_crossentropy")
    assert nbopt.Workload(compiled, valid=(x, y)).loss_name == "sparse_categorical_crossentropy (as compiled)"


@pytest.mark.parametrize(
    "changes", [{}, {"schedule": "one_cycle"}, {"schedule": "plateau"},
                {"optimizer": "sgd", "schedule": "cosine", "learning_rate": 0.05},
                {"weight_decay": 0.01, "label_smoothing": 0.1}, {"averaging": "ema"}]
)  # fmt: skip
def test_a_training_learns(changes: dict[str, Any]) -> None:
    x, y = halves()
    work = nbopt.Workload(cnn(), train=(x[:500], y[:500]), valid=(x[500:], y[500:]))
    model = FRAMEWORK.clone(work.model)

    def score(model: Any) -> float:
        return float((FRAMEWORK.predict(model, (x[500:],)).argmax(-1) == y[500:]).mean())

    assert work.train is not None
    plan = TrainingPlan(epochs=6, learning_rate=0.01, batch_size=50).adjusted(**changes)
    record = FRAMEWORK.fit(model, plan, Fitting(work.train, work.loss, score, valid=work.select))
    assert record.epochs == 6
    assert max(record.scores) > 0.75
    assert score(model) == max(record.scores)


def test_a_training_repeats_with_its_seed() -> None:
    x, y = halves()
    work = nbopt.Workload(cnn(), train=(x[:200], y[:200]), valid=(x[500:], y[500:]))
    assert work.train is not None
    ends = []
    for _ in range(2):
        model = FRAMEWORK.clone(work.model)
        FRAMEWORK.fit(model, TrainingPlan(epochs=1, seed=3), Fitting(work.train, work.loss))
        ends.append(FRAMEWORK.state(model))
    assert all(np.array_equal(one, other) for one, other in zip(*ends, strict=True))


def test_weights_are_drawn_anew_by_the_layers_own_initialisers() -> None:
    model = cnn()
    before = FRAMEWORK.state(model)
    FRAMEWORK.initialise(model, 1)
    first = FRAMEWORK.state(model)
    assert not np.array_equal(before[0], first[0])
    FRAMEWORK.initialise(model, 1)
    assert all(np.array_equal(one, other) for one, other in zip(first, FRAMEWORK.state(model), strict=True))


@pytest.mark.parametrize("recipe", ["amp", "regularize --anyway --dropout 0.2", "prune --structured", "distill", "nas"])
def test_what_it_does_not_get_is_refused_with_a_way_out(recipe: str) -> None:
    x, y = halves()
    work = nbopt.Workload(cnn(), train=(x[:100], y[:100]), valid=(x[500:], y[500:]))
    with pytest.raises(ModelError, match=r"keras\.layers"):
        nbopt.optimize(work, recipe, runtimes="litert")


def test_tf_mot_leaves_the_settings_of_the_process_as_they_are() -> None:
    code = (
        "import os, tensorflow as tf\n"
        "from nbopt.frameworks._tf_keras_tfmot import tfmot\n"
        "tfmot('a test')\n"
        "assert 'TF_USE_LEGACY_KERAS' not in os.environ\n"
        "assert tf.keras.__version__.startswith('3.'), tf.keras.__version__\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
