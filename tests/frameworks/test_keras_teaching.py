"""A Keras model that learns from a teacher in the one training."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from nbopt.data import Split
from nbopt.errors import ModelError
from nbopt.frameworks import Fitting, framework_of
from nbopt.frameworks._keras_teaching import _with_layers, hint_loss, layer_names, soft_loss
from nbopt.teaching import Teacher, normal_form
from nbopt.training import TrainingPlan
from tests.conftest import Digits
from tests.frameworks.teaching import expected
from tests.test_teaching import KINDS, raw_of

L = keras.layers


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_soft_loss_is_that_of_the_paper(kind: str, weighted: bool) -> None:
    rng = np.random.default_rng(0)
    student, taught = raw_of(kind, rng), normal_form(raw_of(kind, rng), kind)
    weight = rng.uniform(0.1, 2, len(student)).astype(np.float32) if weighted else None
    for method in ("kl", "decoupled") if kind in ("logits", "probabilities") else ("kl",):
        teacher = Teacher(lambda inputs: inputs, kind, temperature=3.0, method=method)
        target = tf.zeros([len(student)], tf.int64)
        given = None if weight is None else tf.constant(weight)
        value = float(soft_loss(teacher, tf.constant(student), tf.constant(taught), target, given))
        assert value == pytest.approx(expected(teacher, student, taught, weight), rel=1e-3, abs=1e-5)


def test_padding_teaches_nothing() -> None:
    rng = np.random.default_rng(0)
    student, taught = (rng.normal(size=(2, 4, 3)).astype(np.float32) for _ in range(2))
    target = np.array([[0, 1, -100, -100], [2, 0, 1, -100]])
    teacher = Teacher(lambda inputs: inputs, "logits")
    value = float(soft_loss(teacher, tf.constant(student), tf.constant(taught), tf.constant(target), None))
    kept = target != -100
    assert value == pytest.approx(expected(teacher, student[kept], taught[kept]), rel=1e-4)


def test_hints_of_two_widths_are_compared_by_how_alike_rows_are() -> None:
    x = tf.constant(np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32))
    assert float(hint_loss(x, x)) == 0
    assert float(hint_loss(x, tf.concat([x, x], 1))) == pytest.approx(0, abs=1e-6)
    assert float(hint_loss(x, tf.reverse(tf.concat([x, x], 1), [0]))) > 0.1


def classifier(width: int, head: str | None = None) -> Any:
    first = L.Dense(width, activation="relu", kernel_initializer=keras.initializers.GlorotUniform(1), name="first")
    last = L.Dense(10, activation=head, kernel_initializer=keras.initializers.GlorotUniform(2), name="last")
    return keras.Sequential([keras.Input((64,)), first, L.Dropout(0.1, seed=0), last])


def fitted(model: Any, digits: Digits, teacher: Teacher | None, epochs: int, kind: str = "logits") -> Any:
    framework = framework_of(model)
    fitting = Fitting(Split(digits.train, "train"), framework.loss(model, None, kind)[0])
    return framework.fit(model, TrainingPlan(epochs, 5e-3, keep_best=False, teacher=teacher), fitting)


@pytest.fixture(scope="module")
def trained(digits: Digits) -> Any:
    model = classifier(64, "softmax")
    fitted(model, digits, None, 8, "probabilities")
    return model


def outputs_of(model: Any, kind: str) -> Any:
    framework = framework_of(model)
    return lambda inputs: normal_form(framework.predict(model, inputs), kind)


def test_a_softmax_teacher_alone_teaches_a_student_of_logits(trained: Any, digits: Digits) -> None:
    before = [weight.tobytes() for weight in trained.get_weights()]
    student = classifier(16)
    fitted(student, digits, Teacher(outputs_of(trained, "probabilities"), "logits", alpha=1.0), 30)
    x, _ = digits.valid
    alike = np.mean(np.argmax(student(x), -1) == np.argmax(trained(x), -1))
    assert alike > 0.92
    assert [weight.tobytes() for weight in trained.get_weights()] == before


def test_hints_extra_rows_and_decoupling_go_together_and_repeat(trained: Any, digits: Digits) -> None:
    teacher = Teacher(
        outputs_of(trained, "probabilities"),
        "logits",
        method="decoupled",
        hints=(("first", "first"),),
        model=trained,
        extra=Split(digits.valid[0], "extra"),
    )
    records = [fitted(classifier(16), digits, teacher, 2) for _ in range(2)]
    assert records[0].losses == records[1].losses
    assert records[0].losses[1] < records[0].losses[0]


def test_layers_that_python_calls_can_not_be_hints() -> None:
    class Own(keras.Model):
        def call(self, x: Any) -> Any:
            return x

    assert {"first", "last"} <= set(layer_names(classifier(4)))
    with pytest.raises(ModelError, match="functional"):
        layer_names(Own())


def test_hints_of_layers_that_another_model_called_first_are_those_of_this_one() -> None:
    shared = L.Dense(4, name="shared")
    keras.Sequential([keras.Input((3,)), shared])
    inputs = keras.Input((3,), name="own")
    model = keras.Model(inputs, L.Dense(2, name="last")(shared(inputs * 2)))
    assert layer_names(model)[-2:] == ["shared", "last"]
    x = np.ones((5, 3), np.float32)
    _, (given,) = _with_layers(model, ["shared"])(x)
    np.testing.assert_allclose(given, shared(2 * x), rtol=1e-6)
