"""Pruning a Keras model: zeros that hold through training, and units that go step by step."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from nbopt.data import Split
from nbopt.draft import Context, Draft
from nbopt.frameworks import Fitting
from nbopt.frameworks.keras import FRAMEWORK
from nbopt.narrowing._keras import LOWERING
from nbopt.narrowing._keras.rebuild import TracedModel
from nbopt.narrowing._keras.weights import prunable_weights, tables
from nbopt.narrowing.lowering import Ranking
from nbopt.narrowing.subjects import Units, Weights
from nbopt.techniques._prune.holding import Holding
from nbopt.techniques._regularize.adding import with_dropout, with_norms
from nbopt.techniques.prune import Prune, magnitude_masks
from nbopt.training import TrainingPlan
from nbopt.workload import Workload
from tests.keras_models import ALL, L, cnn, digits


def ranking() -> Ranking:
    return Ranking("magnitude", LOWERING, None)  # magnitude needs no context


@pytest.mark.parametrize("name", ["cnn", "lstm", "subclassed", "embedding"])
def test_masks_hold_while_training(name):
    model, inputs = ALL[name]()
    width = FRAMEWORK.predict(model, inputs).shape[-1]
    labels = np.arange(5) % width
    weights = prunable_weights(model)
    assert all(value.ndim >= 2 for value in weights.values())
    holding = Holding(Weights(model, ranking()), LOWERING, 0.6)
    assert holding.pace(model, 0.0)
    loss = FRAMEWORK.loss(model, "sparse_categorical_crossentropy", "probabilities")[0]
    fitting = Fitting(Split((inputs, labels), "train"), loss, hold=(holding.hold,))
    FRAMEWORK.fit(model, TrainingPlan(epochs=2, keep_best=False), fitting)
    finished = prunable_weights(holding.finish(model))
    masks = magnitude_masks(weights, 0.6)
    for key, mask in masks.items():
        assert not finished[key][~mask].any()
        assert not np.signbit(finished[key][~mask]).any()
    assert sum(int((v == 0).sum()) for v in finished.values()) >= round(0.6 * sum(v.size for v in weights.values()))
    assert any((finished[key] != weights[key] * masks[key]).any() for key in masks)


def test_embedding_tables_keep_their_weights_unless_they_are_named():
    model, inputs = ALL["embedding"]()
    (table,) = tables(model)
    plain = Weights(model, ranking())
    assert table not in plain.sizes
    assert any("embedding tables" in note and "--include" in note for note in plain.notes)
    every = Weights(model, ranking(), ("*",))
    assert set(every.sizes) == {table, *prunable_weights(model)}
    holding = Holding(every, LOWERING, dict.fromkeys(every.sizes, 0.5))
    assert holding.pace(model, 0.0)
    finished = holding.finish(model)
    value = next(layer for layer in finished.layers if isinstance(layer, L.Embedding)).embeddings.numpy()
    assert np.mean(value == 0) == pytest.approx(0.5, abs=0.01)
    assert not np.array_equal(FRAMEWORK.predict(finished, inputs), FRAMEWORK.predict(ALL["embedding"]()[0], inputs))


def test_zeros_hold_where_later_steps_put_layers_in_between():
    (x, y), valid = digits()
    model = keras.Sequential([keras.Input((64,)), L.Dense(32, "relu"), L.Dense(16, "relu"), L.Dense(10)])
    context = Context(Workload(model, train=(x.reshape(len(x), -1), y), valid=(valid[0].reshape(-1, 64), valid[1])))
    draft = Prune(sparsity=0.5, scope="layer").apply(Draft(model), context)
    draft = with_dropout(with_norms(draft, context, "batchnorm", trained=True), context, 0.2)
    assert len(draft.model.layers) > 2 + len(model.layers)
    for variable in draft.model.trainable_variables:
        variable.assign_add(np.ones(variable.shape))
    draft.hold[0](draft.model)
    for layer in (each for each in draft.model.layers if isinstance(each, L.Dense)):
        assert np.mean(layer.kernel.numpy() == 0) == pytest.approx(0.5, abs=0.01)
    units = Prune(structured=True, schedule="cubic").apply(Draft(model), context)
    units = with_dropout(units, context, 0.2)
    assert units.pace[0](units.model, 1.0)
    smaller = units.finish[0](units.model)
    assert [layer.units for layer in smaller.layers if isinstance(layer, L.Dense)] == [16, 8, 10]
    np.testing.assert_allclose(
        FRAMEWORK.predict(smaller, (valid[0][:9].reshape(-1, 64),)),
        FRAMEWORK.predict(units.model, (valid[0][:9].reshape(-1, 64),)),
        atol=1e-4,
    )


class Block(L.Layer):
    """A layer that makes layers and weights without giving them names: Keras numbers those of each copy on."""

    def build(self, shape):
        self.first, self.second = L.Dense(8), L.Dense(8)
        self.mix, self.other = (self.add_weight(shape=(8, 8), initializer="glorot_uniform") for _ in range(2))
        self.first.build(shape)
        self.second.build((None, 8))

    def call(self, x):
        return self.second((self.first(x) @ self.mix) @ self.other)


def test_every_copy_of_a_model_has_the_same_names_and_its_own_zeros():
    model = keras.Sequential([keras.Input((6,)), Block(), L.Dropout(0.1), Block(), L.Dense(3)])
    subject = Weights(model, ranking())
    assert len(subject.sizes) == 9
    holding = Holding(subject, LOWERING, 0.5, "iterative", 2)
    for copy in (FRAMEWORK.clone(model), FRAMEWORK.clone(model)):
        assert set(prunable_weights(copy)) == set(subject.sizes)
        assert holding.pace(copy, 1.0)
        zeros = np.concatenate([value.ravel() == 0 for value in prunable_weights(copy).values()])
        assert zeros.mean() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("structured", [False, True])
def test_a_schedule_prunes_step_by_step(structured):
    model, inputs = cnn()
    subject = Units(TracedModel(model), ranking()) if structured else Weights(model, ranking())
    target = dict.fromkeys(subject.sizes, 0.5) if structured else 0.5
    holding = Holding(subject, LOWERING, target, "iterative", 3)
    zeros = []

    def watched(trained, done):
        ready = holding.pace(trained, done)
        zeros.append(np.mean([(value == 0).mean() for value in prunable_weights(trained).values()]))
        return ready

    loss = FRAMEWORK.loss(model, None, "logits")[0]
    scores = iter([0.9, 0.9, 0.1, 0.2])
    data = Split((np.repeat(inputs[0], 4, 0), np.arange(20) % 10), "train")
    fitting = Fitting(data, loss, score=lambda _: next(scores), hold=(holding.hold,), pace=(watched,))
    record = FRAMEWORK.fit(model, TrainingPlan(epochs=3, batch_size=5), fitting)
    assert zeros == sorted(zeros)
    assert len(set(np.round(zeros, 6))) == 3
    assert record.kept_epoch == 3
    finished = holding.finish(model)
    if structured:
        assert finished.count_params() < model.count_params()
        np.testing.assert_allclose(FRAMEWORK.predict(finished, inputs), FRAMEWORK.predict(model, inputs), atol=1e-5)
