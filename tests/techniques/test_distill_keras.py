"""Distillation of Keras models: derived and simple students, every kind of output."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

import nbopt
from nbopt.draft import Context, Draft
from nbopt.errors import DataError, ModelError, OptionError
from nbopt.frameworks import framework_of
from nbopt.frozen import Leaf
from nbopt.teaching import family_of
from nbopt.techniques._distill.simple import columns_of, designs
from nbopt.techniques._distill_keras import LOWERING
from nbopt.techniques._distill_keras.students import build
from nbopt.workload import Workload
from tests.conftest import Digits
from tests.techniques.distill_inputs import CASES

L = keras.layers


@pytest.fixture(scope="module")
def work(digits: Digits) -> Workload:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([
        keras.Input((64,)), L.Dense(48, activation="relu", name="inner"), L.Dense(10, activation="softmax", name="last")
    ])  # fmt: skip
    model.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy")
    model.fit(*digits.train, epochs=10, verbose=0)
    return Workload(model, train=digits.train, valid=digits.valid, test=digits.test, name="digits")


def applied(step: Any, work: Workload) -> Draft:
    return step.apply(Draft(work.model), Context(work))


def test_a_narrow_student_learns_from_a_softmax_teacher_and_is_measured(work: Workload) -> None:
    before = [weight.tobytes() for weight in work.model.get_weights()]
    result = nbopt.optimize(work, "distill --epochs 4 --hints inner", runtimes=["onnxruntime"])
    run, plain = result["distill/onnxruntime"], result["distill/onnxruntime#2"]
    assert not run.failed, run.reason
    assert run.params == plain.params < result["baseline/keras"].params
    assert run.quality > 0.75
    assert "labels alone" in plain.label
    assert [weight.tobytes() for weight in work.model.get_weights()] == before


def test_the_best_simple_student_is_chosen(work: Workload) -> None:
    draft = applied(nbopt.Distill(student="simple", epochs=3), work)
    (told,) = [note for note in draft.notes if "surest of the simple students" in note]
    assert "a linear model" in told
    assert "an MLP" in told
    assert framework_of(draft.model).predict(draft.model, work.valid.first().inputs).shape[1:] == (10,)


def test_what_keras_can_not_do_is_said(work: Workload) -> None:
    with pytest.raises(ModelError, match="PyTorch model for --depth"):
        applied(nbopt.Distill(depth=0.5), work)
    with pytest.raises(ModelError, match="PyTorch model for --loss"):
        applied(nbopt.Distill(loss=lambda student, teacher, target: 0.0), work)
    with pytest.raises(OptionError, match="hints") as caught:
        applied(nbopt.Distill(hints=("iner",)), work)
    assert "did you mean 'inner'" in caught.value.do
    logits = keras.Sequential([keras.Input((64,)), L.Dense(10)])
    with pytest.raises(ModelError, match="outputs have the shape"):
        applied(nbopt.Distill(student=keras.Sequential([keras.Input((64,)), L.Dense(3)])), work)
    with pytest.raises(ModelError, match="teacher that takes the inputs"):
        applied(nbopt.Distill(teacher=keras.Sequential([keras.Input((32,)), L.Dense(10)])), work)
    with pytest.raises(DataError, match=r"rows of shape \(rows, 3\)"):
        applied(nbopt.Distill(extra=np.zeros((5, 3), np.float32)), work)
    assert applied(nbopt.Distill(teacher=logits), work).plan.teacher is not None


@pytest.mark.parametrize(("inputs", "outputs", "kind"), CASES)
def test_simple_students_take_the_same_inputs_and_give_the_same_outputs(
    inputs: Any, outputs: tuple[int, ...], kind: str
) -> None:
    keyed = isinstance(inputs, dict)
    named = inputs if keyed else {f"x{i}": array for i, array in enumerate(inputs)}
    leaves = [Leaf(name, str(array.dtype), (None, *array.shape[1:])) for name, array in named.items()]
    columns = columns_of(leaves, list(named.values()), channels_last=True)
    targets = np.random.default_rng(0).normal(100, 5, 12)
    made = designs(columns, keyed=keyed, outputs=outputs, kind=kind, family=family_of(kind), targets=targets)
    assert len(made) > 1
    for design in made:
        model, again = build(design, 0), build(design, 0)
        framework = framework_of(model)
        raw = framework.predict(model, inputs)
        assert raw.shape == (12, *outputs), design.word
        np.testing.assert_array_equal(raw, framework.predict(again, inputs))
        np.testing.assert_allclose(framework.predict(framework.clone(model), inputs), raw, rtol=1e-5)
        if kind == "regression":
            assert 80 < raw.mean() < 120


def test_whole_numbers_are_looked_up_where_the_teacher_does() -> None:
    ids = keras.Input((3,), dtype="int64")
    inner = keras.Sequential([keras.Input((3,)), L.Embedding(70, 4), L.Flatten()])
    looking = keras.Model(ids, L.Dense(2)(inner(ids)))
    plain = keras.Sequential([keras.Input((3,), dtype="int64"), L.Dense(2)])
    counted = keras.Model(ids, L.Dense(2)(L.CategoryEncoding(30, output_mode="multi_hot")(ids)))
    assert [LOWERING.vocabulary(model, ()) for model in (looking, plain, counted)] == [70, 0, 30]
    rng = np.random.default_rng(0)
    x = np.stack([rng.integers(0, 2_000_000_000, 90), rng.integers(0, 2, 90), rng.integers(0, 9, 90)], 1)
    work = Workload(plain, train=(x[:60], x[:60, 1]), valid=(x[60:], x[60:, 1]))
    draft = applied(nbopt.Distill(student="simple", epochs=1), work)
    assert draft.model.count_params() < 1000


def test_rows_of_numbers_of_any_length_have_simple_students() -> None:
    row = keras.Input((None,))
    model = keras.Model(row, L.Dense(2)(L.GlobalMaxPooling1D()(keras.ops.expand_dims(row, -1))))
    rng = np.random.default_rng(0)
    long, short = (rng.normal(size=(40, length)).astype(np.float32) for length in (30, 20))
    work = Workload(model, train=(long, np.arange(40) % 2), valid=(short, np.arange(40) % 2))
    draft = applied(nbopt.Distill(student="simple", epochs=1), work)
    (told,) = [note for note in draft.notes if "surest of the simple students" in note]
    assert "failed" not in told
