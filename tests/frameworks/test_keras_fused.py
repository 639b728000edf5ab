"""Batch norms by one kernel: the same function, gradients and statistics as Keras's own, and nothing left behind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from nbopt.data import Split
from nbopt.frameworks import Fitting
from nbopt.frameworks._keras_fit import Loop
from nbopt.frameworks._keras_fused import fused_norms
from nbopt.frameworks.keras import FRAMEWORK
from nbopt.training import TrainingPlan
from tests.keras_models import L, keras

RNG = np.random.default_rng(0)
X = RNG.normal(2.0, 3.0, size=(13, 6, 5, 3)).astype(np.float32)


def one_pass(layer: Any, x: Any, *, fused: bool) -> list[np.ndarray]:
    """Return output, gradients and statistics of one training pass, each from the layer's untouched weights."""
    model = keras.Sequential([keras.Input(x.shape[1:]), layer])
    layer.set_weights([RNG.random(weight.shape) + 0.5 for weight in layer.get_weights()])
    before = layer.get_weights()
    given = tf.constant(x)

    @tf.function(autograph=False)
    def run() -> Any:
        with tf.GradientTape() as tape:
            tape.watch(given)
            output = model(given, training=True)
            loss = tf.reduce_sum(tf.cast(output, tf.float32) ** 3)
        return output, tape.gradient(loss, [given, *model.trainable_variables])

    both = []
    for way in (False, True):
        layer.set_weights(before)
        run = tf.function(run.python_function, autograph=False)
        if way:
            with fused_norms(model):
                output, gradients = run()
        else:
            output, gradients = run()
        both.append([np.array(part) for part in (output, *gradients, *layer.non_trainable_variables)])
        names = {each.type for each in run.get_concrete_function().graph.get_operations()} if not way else set()
        assert "FusedBatchNormV3" not in names
    assert "call" not in vars(layer)
    return both[fused]


LAYERS: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "its own momentum and epsilon": {"momentum": 0.7, "epsilon": 0.1},
    "no scale": {"scale": False},
    "no centre": {"center": False},
    "the first channel axis": {"axis": 1},
    "small epsilon": {"epsilon": 1e-6},
    "renorm": {"renorm": True},
}


@pytest.mark.parametrize("name", LAYERS)
def test_it_is_the_same_function(name: str) -> None:
    global RNG
    RNG = np.random.default_rng(1)
    plain = one_pass(L.BatchNormalization(**LAYERS[name]), X, fused=False)
    RNG = np.random.default_rng(1)
    fused = one_pass(L.BatchNormalization(**LAYERS[name]), X, fused=True)
    for one, other in zip(plain, fused, strict=True):
        np.testing.assert_allclose(other, one, rtol=2e-4, atol=2e-4 * np.abs(one).max())


def operations(model: Any, plan: TrainingPlan, x: Any, y: Any) -> set[str]:
    fitting = Fitting(Split((x, y), "train"), FRAMEWORK.loss(model, None, "logits")[0])
    loop = Loop(model, plan, fitting, 0.0)
    loop.one(next(iter(fitting.split)))
    (traced,) = loop.step._list_all_concrete_functions()
    return {each.type for each in traced.graph.get_operations()}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_training_step_of_images_goes_by_it_and_the_model_stays_as_it_was(precision: str) -> None:
    body = [L.Conv2D(4, 3), L.BatchNormalization(), L.ReLU(), L.Flatten(), L.BatchNormalization(), L.Dense(2)]
    model = keras.Sequential([keras.Input((6, 5, 3)), *body])
    plan = TrainingPlan(epochs=1, precision=precision)
    assert {"FusedBatchNormV3", "FusedBatchNormGradV3"} <= operations(model, plan, X, np.arange(13) % 2)
    assert not any("call" in vars(layer) for layer in model.layers)
    frozen = keras.models.clone_model(model)
    frozen.layers[1].trainable = False
    assert "FusedBatchNormV3" not in operations(frozen, plan, X, np.arange(13) % 2)
