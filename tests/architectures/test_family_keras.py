"""Candidates of Keras models: alone and in the shared weights they compute the same, and they learn together."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from nbopt.architectures._keras.lessons import Lessons, Shared, mixture
from nbopt.architectures._keras.parts import blocks_of, kernels_of
from nbopt.architectures.family import Family
from nbopt.architectures.lowering import whole_as_teacher
from nbopt.architectures.sandwich import Pace, Sandwich
from nbopt.batches import Batch
from nbopt.controllers.relaxed import softmax
from nbopt.draft import Context
from nbopt.frameworks._keras_copy import copy_model
from nbopt.narrowing._keras.weights import put_zeros
from nbopt.training import TrainingPlan
from nbopt.workload import Workload
from tests.conftest import Digits

Array = np.ndarray[Any, Any]
L = keras.layers


def block(x: Any, inside: int, *, normed: bool = False, act: bool = True) -> Any:
    width = x.shape[-1]
    y = L.Conv2D(inside, 3, padding="same", use_bias=False)(x)
    y = L.ReLU()(L.BatchNormalization()(y))
    y = L.Conv2D(width, 3, padding="same")(y)
    y = L.BatchNormalization()(y) if normed else L.Dropout(0.1)(y)
    y = L.Add()([x, y])
    return L.ReLU()(y) if act else y


def residual() -> Any:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    x = L.ReLU()(L.BatchNormalization()(L.Conv2D(16, 5, padding="same")(inputs)))
    x = L.MaxPooling2D()(block(x, 16, normed=True))
    short = L.Conv2D(24, 1)(x)  # of another width: no branch of the block after it starts where it does
    x = L.Add()([short, L.Conv2D(24, 3, padding="same")(x)])
    x = block(x, 8)
    return keras.Model(inputs, L.Dense(10)(L.GlobalAveragePooling2D()(x)))


@pytest.fixture(scope="module")
def family(digits: Digits) -> Family:
    x, y = digits.x.reshape(-1, 8, 8, 1), digits.y
    model = residual()
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x[:1000], y[:1000], epochs=4, verbose=0)
    work = Workload(model, train=(x[:1000], y[:1000]), valid=(x[1000:1250], y[1000:1250]), metric="accuracy")
    return Family.of(model, Context(work))


def some(family: Family, count: int) -> Array:
    return family.space.grid.draw(np.random.default_rng(0), count)


def inputs_of(family: Family) -> tuple[Array, ...]:
    return tuple(next(iter(family.context.workload.select_rows.batches())))


def test_branches_that_start_where_they_end_are_blocks() -> None:
    model = residual()
    found = blocks_of(model, ())
    assert len(found) == 2
    assert ["gamma" in found[0].ends[0], "kernel" in found[1].ends[0]] == [True, True]
    assert {len(each.ends) for each in found} == {2}
    assert len(kernels_of(model)) == 6


def test_a_candidate_alone_and_in_the_shared_weights_computes_the_same(family: Family) -> None:
    framework, x = family.context.workload.framework, inputs_of(family)
    for setting in some(family, 5).tolist():
        alone = framework.predict(family.built(setting), x)
        silent = copy_model(family.model)
        put_zeros(silent, family.factors.masks(setting), {})
        assert alone == pytest.approx(framework.predict(silent, x), abs=1e-4)


def test_shared_weights_are_those_of_the_candidate(family: Family) -> None:
    setting = some(family, 1)[0].tolist()
    shared, x = Shared(family.model, family.factors), tf.constant(inputs_of(family)[0])
    silent = copy_model(family.model)
    for layer in (*family.model.layers, *silent.layers):
        if isinstance(layer, L.Dropout):
            layer.rate = 0.0
    before = [variable.numpy() for variable in family.model.non_trainable_variables]
    together = shared.call(x, shared.lines(family.factors.one_hot(setting)))
    put_zeros(silent, family.factors.masks(setting), {})
    assert np.asarray(together) == pytest.approx(np.asarray(silent(x, training=True)), abs=1e-3)
    after = [variable.numpy() for variable in family.model.non_trainable_variables]
    assert all(np.array_equal(one, other) for one, other in zip(before, after, strict=True))


def test_candidates_learn_together_and_the_users_model_stays(digits: Digits) -> None:
    x, y = digits.x.reshape(-1, 8, 8, 1), digits.y
    model = residual()
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x[:1000], y[:1000], epochs=4, verbose=0)
    work = Workload(model, train=(x[:1000], y[:1000]), valid=(x[1000:1250], y[1000:1250]), metric="accuracy")
    family = Family.of(model, Context(work))
    untouched = [variable.numpy() for variable in model.variables]
    settings = some(family, 6)
    # Of widths alone: what has no kernel and no block left takes longer than a test.
    for at, choice in enumerate(family.space.choices):
        settings[:, at] = settings[:, at] if choice.kind == "width" else len(choice.options) - 1
    before = [family.judged(setting)[1] for setting in settings]
    plan = TrainingPlan(epochs=10, learning_rate=3e-3, schedule="cosine", keep_best=False)
    assert work.train is not None
    steps = plan.epochs * (work.train.steps(plan.batch_size) or 1)
    pace, teacher = Pace(steps), whole_as_teacher(work.output)
    lessons = Lessons(Shared(family.model, family.factors), Sandwich(family.space.grid), teacher, pace)
    work.framework.fit(family.model, plan, family.context.fitting(teach=lessons, score=None))
    assert pace.step == steps
    assert np.mean([family.judged(setting)[1] for setting in settings]) > np.mean(before) + 0.1
    now = [variable.numpy() for variable in model.variables]
    assert all(np.array_equal(one, other) for one, other in zip(untouched, now, strict=True))


def test_the_gradient_of_a_mixture_is_that_of_differences(family: Family) -> None:
    workload = family.context.workload
    for layer in family.model.layers:
        if isinstance(layer, L.Dropout):
            layer.rate = 0.0
    rng = np.random.default_rng(0)
    weights = [softmax(rng.normal(size=size)) for size in family.space.grid.sizes]
    labels = workload.select_rows.targets
    assert labels is not None
    batch = Batch(tuple(x[:64] for x in inputs_of(family)), labels[:64], None)

    def value(mixed: list[Array]) -> float:
        return mixture(family.model, family.factors, workload.loss, batch, mixed)[0]

    _, slopes = mixture(family.model, family.factors, workload.loss, batch, weights)
    for at, row in enumerate(weights):
        up, down = [[*map(np.copy, weights)] for _ in range(2)]
        step = rng.normal(size=len(row))
        # Small: over a step of 1e-2 the kinks of ReLU and of pooling move the difference by 7%, here by 1%.
        up[at] += 1e-3 * step
        down[at] -= 1e-3 * step
        assert slopes[at] @ step == pytest.approx((value(up) - value(down)) / 2e-3, rel=0.03, abs=1e-3)
