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

X = np.random.default_rng(0).normal(2.0, 3.0, size=(13, 6, 5, 3)).astype(np.float32)


def one_pass(model: Any) -> list[Any]:
    """Return output, gradients and statistics of one training pass, which is traced here."""

    @tf.function(autograph=False)
    def run(x: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            output = model(x, training=True)
            loss = tf.reduce_sum(output**3)
        return output, *tape.gradient(loss, [x, *model.trainable_variables])

    found = [part.numpy() for part in run(tf.constant(X))]
    return [*found, *(variable.numpy() for variable in model.non_trainable_variables)]


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
    rng = np.random.default_rng(0)
    model = keras.Sequential([keras.Input(X.shape[1:]), L.BatchNormalization(**LAYERS[name])])
    before = [rng.random(weight.shape) + 0.5 for weight in model.get_weights()]
    model.set_weights(before)
    plain = one_pass(model)
    model.set_weights(before)
    with fused_norms(model):
        fused = one_pass(model)
    assert "call" not in vars(model.layers[0])
    for one, other in zip(plain, fused, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-3, atol=1e-3 * np.abs(one).max())


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
