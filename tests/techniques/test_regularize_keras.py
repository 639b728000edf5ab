"""Dropout and norms in Keras models of every shape: put in, trained, and taken out."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

import nbopt
from nbopt.batches import Batch, Inputs, take_rows
from nbopt.data import Split
from nbopt.errors import ModelError
from nbopt.frameworks import Fitting
from nbopt.frameworks._keras_dialect import layers_of
from nbopt.frameworks._keras_losses import loss_for
from nbopt.frameworks.keras import FRAMEWORK
from nbopt.techniques._regularize.places import Site, dropout_sites, norm_places
from nbopt.techniques._regularize_keras import LOWERING
from nbopt.techniques._regularize_keras.places import DROPOUT
from nbopt.techniques.regularize import Regularize
from nbopt.training import TrainingPlan
from tests import keras_models
from tests.conftest import Digits

L = keras.layers
RNG = np.random.default_rng(0)


def stages() -> tuple[Any, Inputs]:
    body = [L.Conv2D(6, 3, padding="same", use_bias=False), L.BatchNormalization(), L.ReLU(), L.MaxPooling2D()]
    body += [L.DepthwiseConv2D(3, padding="same"), L.BatchNormalization(), L.ReLU(), L.Conv2D(8, 3), L.Flatten()]
    model = keras.Sequential([keras.Input((8, 8, 1)), *body, L.Dense(12, "relu"), L.Dense(10)])
    for layer in model.layers:
        if isinstance(layer, L.BatchNormalization):
            layer.moving_mean.assign(RNG.normal(size=layer.moving_mean.shape))
            layer.moving_variance.assign(RNG.uniform(0.5, 2, layer.moving_variance.shape))
            layer.gamma.assign(RNG.uniform(0.5, 2, layer.gamma.shape))
    return model, (RNG.normal(size=(12, 8, 8, 1)).astype(np.float32),)


def stacked() -> tuple[Any, Inputs]:
    body = [L.LSTM(8, return_sequences=True), L.Bidirectional(L.GRU(6)), L.Dense(3)]
    return keras.Sequential([keras.Input((7, 5)), *body]), (RNG.normal(size=(12, 7, 5)).astype(np.float32),)


def transformer() -> tuple[Any, Inputs]:
    ids, mask = keras.Input((6,), name="ids", dtype="int32"), keras.Input((6,), name="mask")
    x = L.Embedding(50, 16)(ids)
    y = L.Dropout(0.1)(L.MultiHeadAttention(2, 8, dropout=0.2)(x, x))
    x = L.LayerNormalization()(x + y)
    y = L.Dense(16)(L.Dense(32, "gelu")(x))
    x = L.LayerNormalization()(x + y) * keras.ops.expand_dims(mask, -1)
    model = keras.Model({"ids": ids, "mask": mask}, L.Dense(3, name="head")(L.GlobalAveragePooling1D()(x)))
    return model, {"ids": RNG.integers(0, 50, (12, 6)).astype(np.int32), "mask": np.ones((12, 6), np.float32)}


def residual() -> tuple[Any, Inputs]:
    entry = keras.Input((8, 8, 2))
    x = L.Conv2D(4, 3, padding="same", name="used_twice")(entry)
    y = L.Add()([L.BatchNormalization()(x), x])
    y = L.BatchNormalization()(L.Conv2DTranspose(5, 2, strides=2, use_bias=False, name="up")(L.ReLU()(y)))
    model = keras.Model(entry, L.Dense(3)(L.GlobalAveragePooling2D()(L.ReLU()(y))))
    for layer in model.layers:
        if isinstance(layer, L.BatchNormalization):
            layer.moving_mean.assign(RNG.normal(size=layer.moving_mean.shape))
            layer.moving_variance.assign(RNG.uniform(0.5, 2, layer.moving_variance.shape))
    return model, (RNG.normal(size=(12, 8, 8, 2)).astype(np.float32),)


CASES = {
    "stages": (stages, [("conv2d_1", "channels"), ("dense", "before"), ("dense_1", "before")], 2),
    "stacked": (stacked, [("bidirectional", "before"), ("dense", "before")], 0),
    "transformer": (
        transformer,
        [("multi_head_attention", "existing"), ("dropout", "existing"), ("head", "before")],
        0,
    ),
    "residual": (residual, [("dense", "before")], 1),
    "two_inputs": (keras_models.two_inputs, [("dense_1", "before"), ("dense_2", "before")], 0),
    "by_name": (keras_models.by_name, [("dense_1", "before"), ("dense_3", "before")], 0),
    "nested": (keras_models.nested, [("dense_1", "before")], 0),
    "cnn": (keras_models.cnn, [("dropout", "existing")], 1),
}


def dropouts(model: Any) -> list[Any]:
    """Return the Dropout layers of a graph and of those nested in it; those inside of attention are parts of it."""
    inner = [found for layer in model.layers if isinstance(layer, keras.Model) for found in dropouts(layer)]
    return inner + [layer for layer in model.layers if isinstance(layer, DROPOUT)]


def unnumbered(name: str) -> str:
    return name.rstrip("0123456789").rstrip("_")


@pytest.mark.parametrize("case", CASES)
def test_dropout_acts_in_training_alone_and_goes_with_batchnorm(case: str) -> None:
    make, wanted, norms = CASES[case]
    model, inputs = make()
    example = take_rows(inputs, slice(0, 1))
    plain = FRAMEWORK.predict(model, inputs)
    sites = dropout_sites(LOWERING.places(model, example), 0.4)
    # Keras numbers layers over the whole session.
    assert [(unnumbered(s.name), s.how) for s in sites] == [(unnumbered(name), how) for name, how in wanted]
    made = LOWERING.with_dropout(FRAMEWORK.clone(model), sites)
    assert not {id(v) for v in made.variables} & {id(v) for v in model.variables}
    np.testing.assert_allclose(FRAMEWORK.predict(made, inputs), plain, rtol=1e-4, atol=1e-5)
    twin = FRAMEWORK.clone(made)
    arguments = inputs if isinstance(inputs, dict) else list(inputs) if len(inputs) > 1 else inputs[0]
    # Of a copy: BatchNorm's statistics move in training.
    live = FRAMEWORK.clone(made)
    one, two = (keras.tree.flatten(live(arguments, training=True))[-1].numpy() for _ in range(2))
    assert not np.array_equal(one, two)
    out, dropped, folded = LOWERING.deployed(twin, example)
    assert folded == norms
    assert dropped == len(dropouts(twin))
    assert not dropouts(out)
    np.testing.assert_allclose(FRAMEWORK.predict(out, inputs), plain, rtol=1e-3, atol=1e-4)


def test_rates_change_in_the_authors_proportions() -> None:
    model, inputs = transformer()
    sites = dropout_sites(LOWERING.places(model, take_rows(inputs, slice(0, 1))), 0.4)
    made = LOWERING.with_dropout(FRAMEWORK.clone(model), sites)
    rates = [layer.rate for layer in layers_of(made) if isinstance(layer, L.Dropout)]
    assert {round(rate, 6) for rate in rates} == {0.2, 0.4}
    attention = next(layer for layer in made.layers if isinstance(layer, L.MultiHeadAttention))
    assert attention.get_config()["dropout"] == pytest.approx(0.4)


def test_a_subclassed_model_changes_rates_and_takes_no_layers() -> None:
    model, inputs = keras_models.subclassed()
    sites = dropout_sites(LOWERING.places(model, inputs), 0.6)
    assert {site.how for site in sites} == {"existing"}
    before = FRAMEWORK.predict(model, inputs)
    made = LOWERING.with_dropout(FRAMEWORK.clone(model), sites)
    assert max(layer.rate for layer in layers_of(made) if isinstance(layer, L.Dropout)) == pytest.approx(0.6)
    assert max(layer.rate for layer in layers_of(model) if isinstance(layer, L.Dropout)) == pytest.approx(0.4)
    np.testing.assert_allclose(FRAMEWORK.predict(made, inputs), before, rtol=1e-5)
    with pytest.raises(ModelError, match="subclassed"):
        LOWERING.with_dropout(FRAMEWORK.clone(model), [Site("head", "before", 0.5)])
    assert LOWERING.deployed(made, inputs) == (made, 0, 0)


@pytest.mark.parametrize("case", ["mlp", "conv"])
def test_batchnorm_keeps_the_function_trains_and_folds(case: str) -> None:
    keras.utils.set_random_seed(0)
    shape = {"mlp": (9,), "conv": (8, 8, 1)}[case]
    body = {
        "mlp": [L.Dense(12, "relu"), L.Dense(8, "tanh")],
        "conv": [L.Conv2D(6, 3, activation="relu"), L.Conv2D(4, 3), L.Flatten()],
    }[case]
    model = keras.Sequential([keras.Input(shape), *body, L.Dense(4)])
    x, y = RNG.normal(2, 3, (64, *shape)).astype(np.float32), RNG.integers(0, 4, 64)
    plain = FRAMEWORK.predict(model, (x,))
    places = norm_places(LOWERING.places(model, (x[:1],)))
    assert len(places) == 2
    made = LOWERING.with_norms(FRAMEWORK.clone(model), "batchnorm", places, [Batch((x[:32],)), Batch((x[32:],))])
    np.testing.assert_allclose(FRAMEWORK.predict(made, (x,)), plain, rtol=1e-3, atol=1e-4)
    fitting = Fitting(Split((x, y), "train"), loss_for(made, None, "logits")[0])
    assert np.isfinite(FRAMEWORK.fit(made, TrainingPlan(epochs=2, batch_size=32), fitting).losses).all()
    trained = FRAMEWORK.predict(made, (x,))
    out, _, folded = LOWERING.deployed(FRAMEWORK.clone(made), (x[:1],))
    assert folded == 2
    np.testing.assert_allclose(FRAMEWORK.predict(out, (x,)), trained, rtol=1e-3, atol=1e-4)
    assert not any(isinstance(layer, L.BatchNormalization) for layer in layers_of(out))


@pytest.mark.slow
def test_an_overfitted_network_goes_through_the_loop(digits: Digits) -> None:
    keras.utils.set_random_seed(0)
    x, y = digits.x.reshape(-1, 8, 8, 1), digits.y
    body = [L.Conv2D(16, 3), L.BatchNormalization(), L.ReLU(), L.MaxPooling2D(), L.Flatten(), L.Dense(32, "relu")]
    model = keras.Sequential([keras.Input((8, 8, 1)), *body, L.Dense(10)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x[:150], y[:150], epochs=40, verbose=0)
    work = nbopt.Workload(model, train=(x[:150], y[:150]), valid=(x[150:600], y[150:600]), test=(x[600:], y[600:]))
    step = Regularize(dropout=0.3, mixup=0.2, cutmix=1.0, label_smoothing=0.1, averaging="ema", epochs=6)
    result = nbopt.optimize(work, step, runtimes=["litert"], threads=1)
    run, control = result["regularize/litert"], result["control/litert"]
    assert not run.failed, run.reason
    assert run.epochs == control.epochs == 6
    assert any("BatchNorm of 1 layer folded and Dropout taken out of 2 places" in note for note in run.notes)
    assert any(note.startswith("overfitted: accuracy") for note in run.notes)
