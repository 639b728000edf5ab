"""Half precision in the Keras loop: policies on layers that exist, for the traced step alone."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from nbopt.data import Split
from nbopt.errors import ModelError, TrainingError
from nbopt.frameworks import Fitting
from nbopt.frameworks._keras_precision import kept_in_float32, native_halves, policies
from nbopt.frameworks.keras import FRAMEWORK
from nbopt.training import FRUITLESS, TrainingPlan
from tests.keras_models import ALL, L, digits, rows

PLAN = TrainingPlan(epochs=2, learning_rate=1e-3, batch_size=2)
RNG = np.random.default_rng(0)


def fitting(data: Any, kind: Any, **more: Any) -> Fitting:
    return Fitting(Split(data, "train"), FRAMEWORK.loss(None, None, kind)[0], **more)


def labels_for(model: Any, inputs: Any) -> tuple[Any, str]:
    """Return labels of a sort that goes with a model's output, and what the output is."""
    output = FRAMEWORK.predict(model, inputs)
    if output.shape[-1] == 1:
        return (np.arange(len(output)) % 2).astype(np.float32), "binary_probabilities"
    probabilities = bool(np.allclose(output.sum(-1), 1, atol=1e-3))
    return np.arange(len(output)) % output.shape[-1], "probabilities" if probabilities else "logits"


def policies_of(model: Any) -> list[str]:
    return [layer.dtype_policy.name for layer in (model, *model._flatten_layers(include_self=False))]


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ALL)
def test_any_model_trains_in_half_precision_and_stays_float32(name: str, precision: str) -> None:
    original, inputs = ALL[name]()
    model = FRAMEWORK.clone(original)
    labels, kind = labels_for(model, inputs)
    before, weights = policies_of(model), [v.numpy() for v in model.trainable_variables]
    data = (inputs if isinstance(inputs, dict) or len(inputs) > 1 else inputs[0], labels)
    seen: list[list[str]] = []

    def score(scored: Any) -> float:
        seen.append(policies_of(scored))
        return 0.0

    record = FRAMEWORK.fit(model, PLAN.adjusted(precision=precision), fitting(data, kind, score=score))
    assert record.mixed is not None
    assert record.mixed.steps == 4  # 5 rows by 2: the last one joins the second step, in each of 2 epochs
    assert record.mixed.skipped < 6
    assert policies_of(model) == before
    assert seen == [before] * 3
    assert all(v.dtype == "float32" for v in model.trainable_variables)
    assert any(not np.array_equal(a, v.numpy()) for a, v in zip(weights, model.trainable_variables, strict=True))
    assert all(np.isfinite(record.losses))


def test_the_step_computes_in_half_precision() -> None:
    """Look at the graph that was traced, since policies are back to float32 by then."""
    from nbopt.frameworks._keras_fit import Loop

    model = keras.Sequential([keras.Input((20,)), L.Dense(64, "relu"), L.Dense(64, "relu"), L.Dense(3)])
    labels = np.arange(5) % 3
    for precision, inner in (("bfloat16", tf.bfloat16), ("float16", tf.float16), ("float32", tf.float32)):
        plan = PLAN.adjusted(precision=precision)
        loop = Loop(FRAMEWORK.clone(model), plan, fitting((rows(20), labels), "logits"), 0.0)
        batch = next(iter(Split((rows(20), labels), "train").training_batches(5, RNG)))
        loop.one(batch)
        (graph,) = [concrete.graph for concrete in loop.step._list_all_concrete_functions()]
        products = [op.outputs[0].dtype for op in graph.get_operations() if op.type == "MatMul"]
        forward = products[:3]
        assert forward == [inner, inner, tf.float32]  # the layer that makes the output stays whole


def test_it_learns_as_in_float32() -> None:
    (x, y), (xt, yt) = digits()
    scores = {}
    for precision in ("float32", "bfloat16", "float16"):
        keras.utils.set_random_seed(0)
        body = [L.Conv2D(8, 3), L.BatchNormalization(), L.ReLU(), L.Flatten(), L.Dense(10)]
        model = keras.Sequential([keras.Input((8, 8, 1)), *body])
        plan = TrainingPlan(epochs=5, learning_rate=3e-3, batch_size=64, precision=precision)
        FRAMEWORK.fit(model, plan, fitting((x, y), "logits"))
        scores[precision] = float((FRAMEWORK.predict(model, (xt,)).argmax(1) == yt).mean())
    assert scores["float32"] > 0.85
    assert abs(scores["bfloat16"] - scores["float32"]) < 0.05
    assert abs(scores["float16"] - scores["float32"]) < 0.05


@keras.saving.register_keras_serializable("nbopt-tests")
class Rude(keras.layers.Layer):
    """A layer whose gradient is infinite in the calls that it is told."""

    def __init__(self, bad: tuple[int, ...] = (), **more: Any) -> None:
        super().__init__(**more)
        self.bad = bad

    def build(self, shape: Any) -> None:
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False, dtype="int32", name="calls")

    def call(self, x: Any) -> Any:
        self.calls.assign_add(1)
        infinite = tf.reduce_any(tf.equal(self.calls.value, tf.constant(self.bad)))

        @tf.custom_gradient
        def passed(x: Any) -> Any:
            return tf.identity(x), lambda upstream: tf.where(infinite, tf.constant(np.inf, upstream.dtype), upstream)

        return passed(x)

    def compute_output_shape(self, shape: Any) -> Any:
        return shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "bad": self.bad}


def rude(*bad: int) -> Any:
    model = keras.Sequential([keras.Input((6,)), L.Dense(3), Rude(bad)])
    model.layers[-1].calls.assign(0)
    return model


X = RNG.normal(size=(40, 6)).astype(np.float32)
Y = X[:, :3].argmax(1)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_steps_whose_gradients_are_not_finite_are_skipped_and_counted(precision: str) -> None:
    model = rude(4, 9)
    kept: list[Any] = []
    plan = PLAN.adjusted(batch_size=8, precision=precision)
    record = FRAMEWORK.fit(
        model, plan, fitting((X, Y), "logits", hold=(lambda m: kept.append(m.layers[0].kernel.numpy()),))
    )
    assert record.mixed is not None
    assert record.mixed.steps == 10
    assert (record.mixed.skipped, record.mixed.nonfinite) == (2, 4)
    assert np.array_equal(kept[3], kept[2])
    assert np.array_equal(kept[8], kept[7])
    assert not np.array_equal(kept[4], kept[3])
    assert np.isfinite(kept[-1]).all()
    assert record.mixed.scale == (2.0**15 / 4 if precision == "float16" else None)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_training_that_only_skips_ends_with_what_to_do(precision: str) -> None:
    plan = PLAN.adjusted(batch_size=8, precision=precision, epochs=30)
    with pytest.raises(TrainingError, match=f"{FRUITLESS} steps in a row"):
        FRAMEWORK.fit(rude(*range(1, 500)), plan, fitting((X, Y), "logits"))


def test_what_brings_inputs_to_scale_and_what_makes_outputs_stay_whole() -> None:
    scale = L.Normalization(mean=1e4, variance=1.0)
    norm = L.BatchNormalization()
    entry = keras.Input((6,))
    inner = keras.Sequential([keras.Input((8,)), L.Dense(3), L.Softmax()])
    model = keras.Model(entry, inner(L.Dense(8)(L.Concatenate()([scale(entry), norm(entry)]))))
    kept = kept_in_float32(model)
    assert {id(scale), id(norm), id(inner.layers[-1])} <= kept
    with policies(model, "bfloat16"):
        halves = {layer.name for layer in model._flatten_layers() if layer.compute_dtype == "bfloat16"}
        raw = np.full((1, 6), 10_001, np.float32)
        np.testing.assert_allclose(np.asarray(scale(raw)), 1.0)
    assert {layer.name for layer in (*model.layers, *inner.layers) if type(layer) is L.Dense} <= halves
    assert all(layer.compute_dtype == "float32" for layer in model._flatten_layers())


def test_a_policy_goes_when_tracing_fails() -> None:
    model = keras.Sequential([keras.Input((6,)), L.Dense(3)])
    before = policies_of(model)
    with pytest.raises(RuntimeError), policies(model, "bfloat16"):
        raise RuntimeError
    assert policies_of(model) == before


def test_a_model_in_half_precision_is_refused() -> None:
    model = keras.Sequential([keras.Input((6,)), L.Dense(3, dtype="mixed_bfloat16")])
    with pytest.raises(ModelError, match="mixed_bfloat16"):
        native_halves(model)


def test_steps_are_made_on_a_copy() -> None:
    model, inputs = ALL["cnn"]()
    before = [v.numpy() for v in model.variables]
    labels, kind = labels_for(model, inputs)
    side = FRAMEWORK.stepping(model, PLAN.adjusted(precision="bfloat16"), fitting((inputs[0], labels), kind))
    side.step()
    side.step()
    assert all(np.array_equal(a, v.numpy()) for a, v in zip(before, model.variables, strict=True))
    assert side.memory() is None
    assert "CPU" in side.memory_words
