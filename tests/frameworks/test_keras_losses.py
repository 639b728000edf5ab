"""A loss that a Keras model was compiled with trains here as it does in `fit`."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from nbopt.data import Split
from nbopt.errors import NbOptWarning
from nbopt.frameworks import Fitting, framework_of
from nbopt.frameworks.keras import FRAMEWORK
from nbopt.training import TrainingPlan
from nbopt.workload import Workload

L = keras.layers
RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 6)).astype(np.float32)
Y = (10 * X.sum(1)).round().astype(np.int64)
TOKENS = RNG.integers(0, 3, (8, 5))
TAGS = RNG.integers(0, 3, (8, 5))


def squared(truth, output):
    return keras.ops.mean(keras.ops.square(truth - output), -1)


def scalar(truth, output):
    return keras.ops.mean(keras.ops.abs(truth - output))


def line():
    return keras.Sequential([keras.Input((6,)), L.Dense(1)])


@pytest.mark.parametrize("loss", [squared, scalar, "mse", keras.losses.MeanSquaredError(reduction=None)])
@pytest.mark.parametrize("labels", [Y, Y[:, None]])
@pytest.mark.parametrize("weight", [None, np.linspace(0, 2, 40, dtype=np.float32)])
def test_a_loss_is_what_keras_computes_from_numbers_and_row_weights(loss, labels, weight):
    model = line()
    model.compile("sgd", loss)
    value, _ = FRAMEWORK.loss(model, None, "regression")
    there = float(value(model(X), tf.constant(labels), None if weight is None else tf.constant(weight)))
    np.testing.assert_allclose(
        there, model.evaluate(X, labels, sample_weight=weight, batch_size=40, verbose=0), rtol=1e-5
    )
    data = (X, labels) if weight is None else (X, labels, weight)
    fitting = Fitting(Split(data, "train"), value, valid=Split(data, "valid"))
    record = FRAMEWORK.fit(model, TrainingPlan(epochs=2, patience=2, monitor="loss"), fitting)
    assert record.valid_losses[-1] < record.valid_losses[0]


@pytest.mark.parametrize("name", ["crossentropy", "ce"])
@pytest.mark.parametrize("classes", [1, 3])
def test_the_short_name_of_cross_entropy_is_known(name, classes):
    model = keras.Sequential([keras.Input((6,)), L.Dense(classes, "sigmoid" if classes == 1 else "softmax")])
    model.compile("sgd", name)
    labels = Y % max(classes, 2)
    work = Workload(model, valid=(X, labels))
    there = float(work.loss(model(X), tf.constant(labels), None))
    np.testing.assert_allclose(there, model.evaluate(X, labels, verbose=0), rtol=1e-5)


@pytest.mark.parametrize("room", [keras, tf_keras])
@pytest.mark.parametrize("form", ["name", "function", "object"])
def test_padding_that_the_output_masks_counts_in_no_loss(room, form):
    model = room.Sequential(
        [
            room.layers.Input((5,), dtype="int32"),
            room.layers.Embedding(20, 4, mask_zero=True),
            room.layers.Dense(3, "softmax"),
        ]
    )
    losses = room.losses
    given = {
        "name": "sparse_categorical_crossentropy",
        "function": losses.sparse_categorical_crossentropy,
        "object": losses.SparseCategoricalCrossentropy(),
    }[form]
    framework = framework_of(model)
    value, _ = framework.loss(model, given, "probabilities")
    rows = -np.log(np.take_along_axis(model(TOKENS).numpy(), TAGS[..., None], -1)[..., 0])
    np.testing.assert_allclose(float(value(model(TOKENS), tf.constant(TAGS), None)), rows[TOKENS > 0].mean(), rtol=1e-5)
    fitting = Fitting(Split((TOKENS, TAGS), "train"), value, valid=Split((TOKENS, TAGS), "valid"))
    record = framework.fit(model, TrainingPlan(epochs=1, patience=1, monitor="loss"), fitting)
    np.testing.assert_allclose(record.valid_losses[0], rows[TOKENS > 0].mean(), rtol=1e-5)


@pytest.mark.parametrize("name", ["train_step", "compute_loss"])
def test_a_way_to_train_of_the_models_own_is_said(name):
    def own(self, *given, **named):
        return getattr(keras.Model, name)(self, *given, **named)

    entry = keras.Input((6,))
    model = type("Custom", (keras.Model,), {name: own})(entry, L.Dense(2)(entry))
    loss = FRAMEWORK.loss(model, None, "logits")[0]
    with pytest.warns(NbOptWarning, match=f"Custom has a {name} of its own"):
        FRAMEWORK.fit(model, TrainingPlan(epochs=1), Fitting(Split((X, Y % 2), "train"), loss))
