"""Pruning a Keras model: zeros that hold through training, and units that go step by step."""

from __future__ import annotations

import numpy as np
import pytest

from nbopt.data import Split
from nbopt.frameworks import Fitting
from nbopt.frameworks.keras import FRAMEWORK
from nbopt.narrowing._keras import LOWERING
from nbopt.narrowing._keras.rebuild import TracedModel
from nbopt.narrowing._keras.weights import prunable_weights, tables
from nbopt.narrowing.lowering import Ranking
from nbopt.narrowing.subjects import Units, Weights
from nbopt.techniques._prune.holding import Holding
from nbopt.techniques.prune import magnitude_masks
from nbopt.training import TrainingPlan
from tests.keras_models import ALL, cnn


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
    value = finished.variables[int(table.partition(":")[0])].numpy()
    assert np.mean(value == 0) == pytest.approx(0.5, abs=0.01)
    assert not np.array_equal(FRAMEWORK.predict(finished, inputs), FRAMEWORK.predict(ALL["embedding"]()[0], inputs))


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
