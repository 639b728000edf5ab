from __future__ import annotations

import keras
import numpy as np
import pytest

from nbopt.data import Split
from nbopt.errors import ModelError
from nbopt.frameworks import Fitting
from nbopt.frameworks._keras_copy import symbolic
from nbopt.frameworks.keras import FRAMEWORK
from nbopt.techniques._prune_keras import prunable_weights, rebuild, remove_channels, silenced, with_masks
from nbopt.techniques._prune_keras.channels import Channels
from nbopt.techniques._prune_keras.trace import Trace
from nbopt.techniques.prune import magnitude_masks
from nbopt.training import TrainingPlan
from tests.keras_models import ALL, L, cnn, digits, subclassed


def residual():
    entry = keras.Input((8, 8, 3))
    x = L.Conv2D(16, 3, padding="same")(entry)
    y = L.ReLU()(L.BatchNormalization()(L.Conv2D(12, 3, padding="same", use_bias=False)(x)))
    y = L.BatchNormalization()(L.Conv2D(16, 3, padding="same")(y))
    x = L.Activation("relu")(L.Add()([x, y]))
    gate = L.Dense(16, "sigmoid")(L.Dense(4, "relu")(L.GlobalAveragePooling2D()(x)))
    x = x * L.Reshape((1, 1, 16))(gate)
    x = L.SeparableConv2D(10, 3, padding="same", depth_multiplier=2)(x)
    z = L.DepthwiseConv2D(3, padding="same", depth_multiplier=2)(x)
    x = keras.ops.relu(L.Conv2DTranspose(8, 3)(L.Concatenate()([x, z])))
    x = L.Flatten()(L.MaxPooling2D()(x))
    return keras.Model(entry, [L.Dense(5, "softmax")(x), L.Dense(2)(x)])


def recurrent():
    layers = [L.Conv1D(10, 3, activation="relu"), L.LSTM(12, return_sequences=True), L.GRU(9), L.Dense(6, "tanh")]
    return keras.Sequential([keras.Input((12, 6)), *layers, L.Dense(3)])


def attention():
    entry = keras.Input((6, 8))
    x = L.Dense(16)(entry)
    x = L.LayerNormalization()(x + L.MultiHeadAttention(2, 8)(x, x))
    x = L.LayerNormalization()(x + L.Dense(16)(L.Dense(32, "gelu")(x)))
    return keras.Model(entry, L.Dense(4)(L.GlobalAveragePooling1D()(x)))


def shared():
    dense, left, right = L.Dense(16, "relu"), keras.Input((8,)), keras.Input((8,))
    inner = keras.Sequential([keras.Input((16,)), L.Dense(12, "relu"), L.Dense(16)])
    joined = L.Concatenate()([inner(dense(left)), inner(dense(right))])
    return keras.Model([left, right], L.Dense(2)(joined))


def mobile():
    return keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, weights=None, classes=5)


MODELS = {
    "residual": residual,
    "recurrent": recurrent,
    "attention": attention,
    "shared": shared,
    "mobile": mobile,
    "cnn": lambda: cnn()[0],
    "by_name": lambda: ALL["by_name"]()[0],
}


def _shaken(model):
    """Give every weight a value of its own, so that no wrong slice goes unseen."""
    rng = np.random.default_rng(1)
    for variable in model.weights:
        value = rng.normal(size=variable.shape) * 0.3
        variable.assign(np.abs(value) + 0.2 if "variance" in variable.name else value)
    return model


def _outputs(model, inputs):
    return [np.asarray(part) for part in keras.tree.flatten(model(inputs, training=False))]


def _inputs(model):
    rng = np.random.default_rng(2)
    return keras.tree.map_structure(
        lambda t: (
            rng.normal(size=(3, *t.shape[1:])).astype(np.float32)
            if "float" in t.dtype
            else np.ones((3, *t.shape[1:]), t.dtype)
        ),
        symbolic(model, "_inputs_struct"),
    )


@pytest.mark.parametrize(("name", "fraction"), [*((name, 0.4) for name in MODELS), ("residual", 0.99)])
def test_a_narrower_model_equals_the_silenced_one(name, fraction):
    model = _shaken(MODELS[name]())
    before, inputs = [v.numpy() for v in model.variables], _inputs(model)
    trace = Trace(model)
    keep = trace.channels.keep(fraction)
    smaller = rebuild(model, trace, keep)
    assert all(np.array_equal(a, b.numpy()) for a, b in zip(before, model.variables, strict=True))
    assert smaller.count_params() < model.count_params()
    assert all(min(v.shape, default=1) > 0 for v in smaller.variables)
    whole = _outputs(model, inputs)
    silenced(model, trace, keep)
    for ours, theirs, original in zip(_outputs(smaller, inputs), _outputs(model, inputs), whole, strict=True):
        assert ours.shape == original.shape
        np.testing.assert_allclose(ours, theirs, atol=2e-5 * max(1.0, np.abs(theirs).max()))


def test_the_least_important_channels_go():
    model = keras.Sequential([keras.Input((4,)), L.Dense(4, "relu"), L.Dense(2)])
    model.layers[0].kernel.assign(np.ones((4, 4)) * [1.0, 0.01, 2.0, 0.02])
    model.layers[1].kernel.assign(np.ones((4, 2)))
    smaller, notes = remove_channels(model, 0.5, (np.zeros((1, 4), np.float32),))
    assert notes == []
    np.testing.assert_allclose(smaller.layers[0].kernel.numpy()[0], [1.0, 2.0])


def test_layers_that_can_not_be_followed_are_named():
    _, notes = remove_channels(attention(), 0.5, ())
    assert "LayerNormalization" in notes[0]


def test_models_with_nothing_to_take_out_are_told():
    with pytest.raises(ModelError):
        remove_channels(keras.Sequential([keras.Input((4,)), L.Dense(2)]), 0.5, ())
    with pytest.raises(ModelError):
        remove_channels(subclassed()[0], 0.5, ())


def test_half_of_a_trained_cnn_recovers():
    (x, y), (xv, yv) = digits()
    layers = [L.Conv2D(32, 3, activation="relu"), L.Conv2D(32, 3), L.BatchNormalization(momentum=0.8), L.ReLU()]
    model = keras.Sequential([keras.Input((8, 8, 1)), *layers, L.Flatten(), L.Dropout(0.2), L.Dense(10)])
    fitting = Fitting(Split((x, y), "train"), FRAMEWORK.loss(model, None, "logits")[0])
    FRAMEWORK.fit(model, TrainingPlan(epochs=5, batch_size=64), fitting)
    smaller, _ = remove_channels(model, 0.5, (x[:1],))
    FRAMEWORK.fit(smaller, TrainingPlan(epochs=3, batch_size=64), fitting)
    accuracy = [(FRAMEWORK.predict(m, (xv,)).argmax(-1) == yv).mean() for m in (model, smaller)]
    assert FRAMEWORK.count(smaller)[0] < 0.5 * FRAMEWORK.count(model)[0]
    assert accuracy[1] > accuracy[0] - 0.03


@pytest.mark.parametrize("name", ["cnn", "lstm", "subclassed", "embedding"])
def test_masks_hold_while_training(name):
    model, inputs = ALL[name]()
    width = FRAMEWORK.predict(model, inputs).shape[-1]
    labels = np.arange(5) % width
    weights = prunable_weights(model)
    assert all(value.ndim >= 2 for value in weights.values())
    masks = magnitude_masks(weights, 0.6)
    hold, finish = with_masks(model, masks)
    loss = FRAMEWORK.loss(model, "sparse_categorical_crossentropy", "probabilities")[0]
    fitting = Fitting(Split((inputs, labels), "train"), loss, hold=(hold,))
    FRAMEWORK.fit(model, TrainingPlan(epochs=2, keep_best=False), fitting)
    finished = prunable_weights(finish(model))
    for key, mask in masks.items():
        assert not finished[key][~mask].any()
    assert sum(int((v == 0).sum()) for v in finished.values()) >= round(0.6 * sum(v.size for v in weights.values()))
    assert any((finished[key] != weights[key] * masks[key]).any() for key in masks)


def test_channels_keep_one_of_each_layer_and_spare_what_is_frozen():
    channels = Channels()
    first, second, fixed = channels.new(4), channels.new(4), channels.new(4, frozen=True)
    channels.tie(first, second)
    channels.weigh(first, np.array([4.0, 3.0, 2.0, 1.0]))
    keep = channels.keep(0.99)
    assert keep[first].tolist() == keep[second].tolist() == [True, False, False, False]
    assert keep[fixed].all()
    assert channels.keep(0.5)[first].tolist() == [True, True, False, False]
    channels.freeze(second[3:])
    assert channels.keep(0.5)[first].tolist() == [True, False, False, True]
