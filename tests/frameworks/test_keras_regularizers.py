"""Smoothed labels, mixed rows and averaged weights in Keras' training loop."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from nbopt.data import Split
from nbopt.errors import DataError, ModelError
from nbopt.frameworks import Fitting
from nbopt.frameworks._keras_losses import loss_for
from nbopt.frameworks._keras_mixing import mixed, mixed_loss
from nbopt.frameworks._mixing import Mixing
from nbopt.frameworks.keras import FRAMEWORK
from nbopt.training import TrainingPlan
from tests.conftest import Digits

L = keras.layers
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(6, 4)).astype(np.float32)
LABELS = np.array([0, 1, 3, 2, 2, 1])
ONE_HOT = np.eye(4, dtype=np.float32)[LABELS]
WEIGHT = RNG.random(6).astype(np.float32)


def dense(outputs: int = 4) -> Any:
    return keras.Sequential([keras.Input((5,)), L.Dense(outputs)])


def cross_entropy(logits: Any, labels: Any) -> Any:
    return tf.nn.softmax_cross_entropy_with_logits(labels, logits).numpy()


@pytest.mark.parametrize(
    "user",
    [
        None,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        keras.losses.CategoricalCrossentropy(from_logits=True),
    ],
)
@pytest.mark.parametrize("labels", [LABELS, ONE_HOT], ids=["numbers", "columns"])
def test_smoothed_classes_are_those_of_keras(user: Any, labels: Any) -> None:
    loss = loss_for(dense(), user, "logits")[0].smoothed(0.2)
    rows = cross_entropy(LOGITS, 0.8 * ONE_HOT + 0.05)
    np.testing.assert_allclose(loss(tf.constant(LOGITS), tf.constant(labels), None), rows.mean(), rtol=1e-5)
    if user is None:
        weighted = loss(tf.constant(LOGITS), tf.constant(labels), tf.constant(WEIGHT))
        np.testing.assert_allclose(weighted, (rows * WEIGHT).sum() / WEIGHT.sum(), rtol=1e-5)


@pytest.mark.parametrize("user", [None, "sparse_categorical_crossentropy", "categorical_crossentropy"])
def test_smoothed_probabilities(user: Any) -> None:
    outputs = tf.nn.softmax(LOGITS)
    loss = loss_for(dense(), user, "probabilities")[0].smoothed(0.2)
    rows = cross_entropy(LOGITS, 0.8 * ONE_HOT + 0.05)
    np.testing.assert_allclose(loss(outputs, tf.constant(LABELS), None), rows.mean(), rtol=1e-4)


def test_tokens_that_are_ignored_stay_so() -> None:
    tokens, labels = tf.constant(LOGITS.reshape(2, 3, 4)), tf.constant([[0, 1, -100], [2, 2, -100]])
    loss = loss_for(dense(), None, "logits")[0].smoothed(0.2)
    rows = cross_entropy(LOGITS, 0.8 * ONE_HOT + 0.05)[[0, 1, 3, 4]]
    np.testing.assert_allclose(loss(tokens, labels, None), rows.mean(), rtol=1e-5)


@pytest.mark.parametrize("user", [None, "binary_crossentropy", keras.losses.BinaryCrossentropy()])
@pytest.mark.parametrize("kind", ["binary_probabilities", "multilabel_probabilities"])
def test_yes_or_no_is_smoothed_to_both(user: Any, kind: Any) -> None:
    outputs = tf.sigmoid(LOGITS if kind.startswith("multi") else LOGITS[:, :1])
    labels = (outputs.numpy() > 0.6).astype(np.float32)
    wanted = keras.losses.BinaryCrossentropy(label_smoothing=0.2)(labels, outputs).numpy()
    loss = loss_for(dense(), user, kind)[0].smoothed(0.2)
    np.testing.assert_allclose(loss(outputs, tf.constant(labels), None), wanted, rtol=1e-4)


@pytest.mark.parametrize(
    ("user", "kind", "words"),
    [
        (None, "regression", "values"),
        ("mse", "regression", "values"),
        (keras.losses.CategoricalCrossentropy(label_smoothing=0.1), "probabilities", "already"),
        (lambda y_true, y_pred: keras.ops.mean(y_true - y_pred, -1), "logits", "your own"),
        (keras.losses.SparseCategoricalCrossentropy(ignore_class=0), "probabilities", "your own"),
    ],
)
def test_what_can_not_be_smoothed_is_told(user: Any, kind: Any, words: str) -> None:
    with pytest.raises(ModelError) as caught:
        loss_for(dense(), user, kind)[0].smoothed(0.1)
    assert words in caught.value.came


@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_mixed_losses_are_the_loss_of_the_mixed_label(weight: Any) -> None:
    mixing = Mixing(TrainingPlan(mixup=0.5))
    x = {"image": tf.constant(RNG.random((6, 8, 8, 1)).astype(np.float32))}
    weights = None if weight is None else tf.constant(weight)
    inputs, targets, weights = mixed(mixing, x, tf.constant(LABELS), weights)
    _, partners, shares = targets
    share = float(shares[0])
    order = Mixing(TrainingPlan(mixup=0.5)).draw(6, [("float32", (6, 8, 8, 1))]).order
    blended = share * x["image"] + (1 - share) * tf.gather(x["image"], order)
    np.testing.assert_allclose(inputs["image"], blended, rtol=1e-5)
    np.testing.assert_array_equal(partners, LABELS[order])
    got = mixed_loss(loss_for(dense(), None, "logits")[0])(tf.constant(LOGITS), targets, weights)
    one, other = cross_entropy(LOGITS, ONE_HOT), cross_entropy(LOGITS, ONE_HOT[order])
    w, v = (np.ones(6), np.ones(6)) if weight is None else (weight, weight[order])
    wanted = share * (one * w).sum() / w.sum() + (1 - share) * (other * v).sum() / v.sum()
    np.testing.assert_allclose(got, wanted, rtol=1e-5)


def test_a_box_comes_from_the_partner() -> None:
    mixing = Mixing(TrainingPlan(cutmix=1.0, seed=3))
    x = tf.constant(np.arange(6, dtype=np.float32)[:, None, None, None] * np.ones((6, 8, 8, 2), np.float32))
    inputs, (_, _, shares), _ = mixed(mixing, x, tf.constant(LABELS), None)
    moved = (inputs.numpy() != x.numpy())[..., 0]
    rows = moved.reshape(6, -1).any(1)
    assert rows.any()
    np.testing.assert_allclose(moved[rows].mean((1, 2)), 1 - float(shares[0]), rtol=1e-5)


def states_of(model: Any, plan: TrainingPlan, data: Any) -> list[list[Any]]:
    seen = [FRAMEWORK.state(model)]
    loss = loss_for(model, None, "logits")[0]
    FRAMEWORK.fit(model, plan, Fitting(Split(data, "train"), loss, hold=(lambda m: seen.append(FRAMEWORK.state(m)),)))
    return [*seen, FRAMEWORK.state(model)]


def test_a_moving_average_is_what_a_training_leaves(digits: Digits) -> None:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((64,)), L.Dense(16, "relu"), L.Dense(10)])
    plan = TrainingPlan(epochs=2, batch_size=250, averaging="ema", ema_decay=0.6, learning_rate=1e-2)
    states = states_of(model, plan, digits.train)
    for index, value in enumerate(states[0]):
        mean = value
        for step, state in enumerate([*states[1:5], *states[6:10]], start=1):
            decay = min(0.6, (1 + step) / (10 + step))
            mean = decay * mean + (1 - decay) * state[index]
        np.testing.assert_allclose(states[-1][index], mean, rtol=1e-3, atol=1e-5)


def test_swa_is_the_mean_of_the_last_epochs_with_new_statistics(digits: Digits) -> None:
    keras.utils.set_random_seed(0)
    body = [L.Conv2D(4, 3), L.BatchNormalization(), L.ReLU(), L.Flatten(), L.Dense(10)]
    model = keras.Sequential([keras.Input((8, 8, 1)), *body])
    images = digits.x[:500].reshape(-1, 8, 8, 1), digits.y[:500]
    plan = TrainingPlan(epochs=4, batch_size=250, averaging="swa", swa_start=0.5, learning_rate=1e-2)
    states = states_of(model, plan, images)
    for variable, one, two in zip(model.variables, states[6], states[9], strict=True):
        if variable.trainable and "float" in str(variable.dtype):
            np.testing.assert_allclose(variable.numpy(), (one + two) / 2, rtol=1e-3, atol=1e-5)
    first = model.layers[0](images[0]).numpy()
    np.testing.assert_allclose(model.layers[1].moving_mean.numpy(), first.mean((0, 1, 2)), rtol=1e-2, atol=1e-3)


def test_the_average_is_what_validation_judges(digits: Digits) -> None:
    model, judged = keras.Sequential([keras.Input((64,)), L.Dense(10)]), []

    def score(module: Any) -> float:
        judged.append(FRAMEWORK.predict(module, (digits.valid[0],)))
        return float(len(judged))

    fitting = Fitting(Split(digits.train, "train"), loss_for(model, None, "logits")[0], score)
    record = FRAMEWORK.fit(model, TrainingPlan(epochs=2, learning_rate=1e-2, averaging="ema"), fitting)
    assert record.kept_epoch == 2
    np.testing.assert_allclose(FRAMEWORK.predict(model, (digits.valid[0],)), judged[-1], rtol=1e-5)


def test_images_train_by_all_of_it_and_repeat(digits: Digits) -> None:
    images = digits.x[:630].reshape(-1, 8, 8, 1), digits.y[:630], np.ones(630, np.float32)
    changes: dict[str, Any] = {"mixup": 0.2, "cutmix": 1.0, "label_smoothing": 0.1, "averaging": "ema"}
    plan = TrainingPlan(epochs=6, batch_size=50, learning_rate=1e-2, ema_decay=0.9, **changes)
    outputs = []
    for _ in range(2):
        keras.utils.set_random_seed(0)
        body = [L.Conv2D(8, 3, activation="relu"), L.Flatten(), L.Dense(10)]
        model = keras.Sequential([keras.Input((8, 8, 1)), *body])
        record = FRAMEWORK.fit(model, plan, Fitting(Split(images, "train"), loss_for(model, None, "logits")[0]))
        assert np.isfinite(record.losses).all()
        outputs.append(FRAMEWORK.predict(model, (digits.x[1000:].reshape(-1, 8, 8, 1),)))
    np.testing.assert_array_equal(*outputs)
    assert (outputs[0].argmax(-1) == digits.y[1000:]).mean() > 0.8


def test_tokens_are_refused() -> None:
    model = keras.Sequential([keras.Input((9,), dtype="int32"), L.Embedding(50, 8), L.Flatten(), L.Dense(4)])
    data = RNG.integers(0, 50, (20, 9)).astype(np.int32), RNG.integers(0, 4, 20)
    fitting = Fitting(Split(data, "train"), loss_for(model, None, "logits")[0])
    with pytest.raises(DataError, match="token"):
        FRAMEWORK.fit(model, TrainingPlan(epochs=1, mixup=0.2), fitting)
