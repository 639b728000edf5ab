from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from nbopt.data import Split
from nbopt.errors import DataError, ExportError, MissingExtra, ModelError, TrainingError
from nbopt.frameworks import Fitting, framework_of
from nbopt.frameworks.keras import FRAMEWORK
from nbopt.narrowing._keras.rebuild import TracedModel
from nbopt.runtimes import Manifest, all_runtimes, runtime_named
from nbopt.training import TrainingPlan
from nbopt.workload import Workload
from tests.keras_models import ALL, L, cnn, digits, rows, signature, subclassed


def _state(model):
    return [variable.numpy() for variable in model.variables]


def _global_state():
    return np.random.get_state()[1].copy()  # noqa: NPY002 - the very state that must not change


def _same(left, right):
    return all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize("name", ALL)
def test_clone_is_equal_and_independent(name):
    model, inputs = ALL[name]()
    before, flags = _state(model), [v.trainable for v in model.variables]
    compiled, optimizer = model.compiled, getattr(model, "optimizer", None)
    twin = FRAMEWORK.clone(model)
    assert np.array_equal(FRAMEWORK.predict(twin, inputs), FRAMEWORK.predict(model, inputs))
    assert [v.trainable for v in twin.variables] == flags
    assert len(twin.trainable_variables) == len(model.trainable_variables)
    for variable in twin.variables:
        variable.assign(keras.ops.zeros_like(variable))
    assert _same(before, _state(model))
    assert not twin.compiled
    assert model.compiled is compiled
    assert getattr(model, "optimizer", None) is optimizer
    twin.compile("sgd", "mse")


def test_models_that_refuse_made_up_inputs_or_sample_are_copied():
    lookup = L.IntegerLookup(vocabulary=[10, 11, 12], num_oov_indices=0)
    strict = keras.Sequential([keras.Input((4,), dtype="int64"), lookup, L.Embedding(4, 8), L.Flatten(), L.Dense(2)])
    tokens = np.array([[10, 11, 12, 10]])
    assert np.array_equal(FRAMEWORK.predict(FRAMEWORK.clone(strict), (tokens,)), FRAMEWORK.predict(strict, (tokens,)))
    entry = keras.Input((6,))
    noisy = keras.Model(entry, L.Dense(3)(L.Lambda(lambda x: x + tf.random.normal(tf.shape(x)))(entry)))
    assert _same(_state(FRAMEWORK.clone(noisy)), _state(noisy))


def test_a_copy_that_computes_something_else_is_refused():
    class Forgetful(L.Layer):
        def __init__(self, factor=1.0, **more):
            super().__init__(**more)
            self.factor = factor

        def get_config(self):
            return super().get_config()

        def call(self, x):
            return x * self.factor

    entry = keras.Input((6,))
    with pytest.raises(ModelError, match=r"outputs that differ by up to 0\.\d+"):
        FRAMEWORK.clone(keras.Model(entry, Forgetful(2.0)(entry)))


@pytest.mark.parametrize(
    ("form", "name"),
    [
        *(("keras", name) for name in ("cnn", "by_name")),
        *(("litert", name) for name in ("cnn", "lstm", "subclassed")),
        *(("onnx", name) for name in ("lstm", "by_name", "subclassed")),
        *(("openvino", name) for name in ("cnn", "lstm", "embedding")),
    ],
)
def test_exports_give_the_models_outputs(form, name, tmp_path, capfd):
    model, inputs = ALL[name]()
    before, expected = _state(model), FRAMEWORK.predict(model, inputs)
    runtime = next(r for r in all_runtimes().values() if r.form == form and "keras" in r.frameworks)
    described = signature(inputs)
    capfd.readouterr()
    exported = FRAMEWORK.export(model, described, tmp_path / f"model{runtime.suffix}", form)
    assert capfd.readouterr() == ("", "")
    manifest = Manifest(runtime.name, tuple(described.names), described.keyed, exported.batch)
    session = runtime.load(exported.path, manifest, threads=1)
    np.testing.assert_allclose(session.run(inputs), expected, atol=2e-5)
    np.testing.assert_allclose(session.run(described.example), expected[:1], atol=2e-5)
    assert _same(before, _state(model))
    assert np.array_equal(FRAMEWORK.predict(model, inputs), expected)


def test_own_classes_load_in_a_fresh_process(tmp_path):
    model, inputs = subclassed()
    exported = FRAMEWORK.export(model, signature(inputs), tmp_path / "model.keras", "keras")
    assert exported.notes
    np.save(tmp_path / "x.npy", inputs[0])
    code = (
        "import sys, numpy as np; from pathlib import Path; from nbopt.runtimes import Manifest, runtime_named\n"
        "s = runtime_named('keras').load(Path(sys.argv[1]), Manifest('keras', ('input_0',)), threads=1)\n"
        "np.save(sys.argv[3], s.run((np.load(sys.argv[2]),)))"
    )
    paths = [str(exported.path), str(tmp_path / "x.npy"), str(tmp_path / "y.npy")]
    subprocess.run([sys.executable, "-c", code, *paths], check=True, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""})
    np.testing.assert_allclose(np.load(paths[2]), FRAMEWORK.predict(model, inputs), atol=1e-5)


def test_training_keeps_the_best_repeats_and_leaves_global_state():
    (x, y), (xv, yv) = digits()
    model, _ = cnn()
    work = Workload(model, train=(x, y), valid=(xv, yv))

    def score(candidate):
        return float((FRAMEWORK.predict(candidate, (xv,)).argmax(-1) == yv).mean())

    before, seeds, policy = _state(model), _global_state(), keras.config.dtype_policy()
    told, states = [], []
    for _ in range(2):
        twin = FRAMEWORK.clone(model)
        plan = TrainingPlan(epochs=3, batch_size=64, learning_rate=3e-3, weight_decay=0.01, seed=5)
        record = FRAMEWORK.fit(twin, plan, Fitting(work.train, work.loss, score, progress=told.append))
        states.append(_state(twin))
    assert _same(*states)
    assert len(record.losses) == record.epochs == 3
    assert len(record.scores) == 4
    assert record.scores[record.kept_epoch] == max(record.scores) == score(twin) > 0.8
    assert told[-1].done == told[-1].total == 3
    assert _same(before, _state(model))
    assert np.array_equal(_global_state(), seeds)
    assert keras.config.dtype_policy() is policy


def test_the_state_before_training_wins_where_training_harms():
    (x, y), _ = digits()
    model, _ = cnn()
    before = model.get_weights()
    falling = iter([1.0, 0.5, 0.4])
    fitting = Fitting(Split((x, y), "train"), FRAMEWORK.loss(model, None, "logits")[0], lambda _: next(falling))
    record = FRAMEWORK.fit(model, TrainingPlan(epochs=2, batch_size=256), fitting)
    assert record.kept_epoch == 0
    assert _same(before, model.get_weights())


def test_interrupt_leaves_the_best_state():
    (x, y), _ = digits()
    model, _ = cnn()
    before = model.get_weights()

    def interrupt(_):
        raise KeyboardInterrupt

    fitting = Fitting(
        Split((x, y), "train"), FRAMEWORK.loss(model, None, "logits")[0], lambda _: 0.5, hold=(interrupt,)
    )
    with pytest.raises(KeyboardInterrupt):
        FRAMEWORK.fit(model, TrainingPlan(epochs=1), fitting)
    assert _same(before, model.get_weights())


def test_time_limit_stops_within_an_epoch():
    (x, y), _ = digits()
    flat = keras.Sequential([keras.Input((8, 8, 1)), L.Flatten(), L.Dense(10)])
    fitting = Fitting(Split((x, y), "train"), FRAMEWORK.loss(flat, None, "logits")[0])
    record = FRAMEWORK.fit(flat, TrainingPlan(epochs=10_000, max_seconds=0.5), fitting)
    assert record.stopped
    assert record.seconds < 20


@pytest.mark.parametrize("loss", ["sparse", "dense", "compiled", "function"])
@pytest.mark.parametrize("one_hot", [False, True])
def test_losses_take_class_numbers_and_one_hot_labels(loss, one_hot):
    (x, y), (xv, yv) = digits()
    labels = np.eye(10, dtype=np.float32) if one_hot else np.arange(10)
    model = keras.Sequential([keras.Input((8, 8, 1)), L.Flatten(), L.Dense(10, "softmax")])
    given = {
        "sparse": keras.losses.SparseCategoricalCrossentropy(),
        "dense": keras.losses.CategoricalCrossentropy(),
        "function": lambda t, p: keras.ops.mean((p - (t if one_hot else keras.ops.one_hot(t, 10))) ** 2, -1),
    }.get(loss)
    if loss == "compiled":
        model.compile("adam", "categorical_crossentropy")
    work = Workload(model, train=(x, labels[y]), valid=(xv, labels[yv]), loss=given)
    assert work.output == "probabilities"
    twin = FRAMEWORK.clone(model)
    losses = FRAMEWORK.fit(twin, TrainingPlan(epochs=2, learning_rate=1e-2), Fitting(work.train, work.loss)).losses
    assert losses[1] < losses[0]


@pytest.mark.parametrize(
    ("head", "loss", "kind"),
    [
        (lambda: L.Dense(4, "softmax"), None, "probabilities"),
        (lambda: L.Dense(4, "softmax"), keras.losses.SparseCategoricalCrossentropy(from_logits=True), "probabilities"),
        (lambda: L.Dense(4), keras.losses.SparseCategoricalCrossentropy(from_logits=True), "logits"),
        (lambda: L.Dense(1, "sigmoid"), None, "binary_probabilities"),
        (lambda: L.Dense(3, "sigmoid"), "binary_crossentropy", "multilabel_probabilities"),
        (lambda: L.Dense(1), keras.losses.BinaryCrossentropy(from_logits=True), "binary_logits"),
        (lambda: L.Dense(1), "mse", "regression"),
        (lambda: L.Dense(4), None, None),
        (lambda: keras.Sequential([L.Dense(4), L.Softmax()]), None, "probabilities"),
        (lambda: L.Dense(4, "log_softmax"), None, "log_probabilities"),
    ],
)
def test_declared_output(head, loss, kind):
    model = keras.Sequential([keras.Input((6,)), head()])
    assert FRAMEWORK.declared_output(model, loss) == kind


def test_which_of_two_outputs_is_judged_is_on_the_card():
    x, y = np.ones((6, 4), np.float32), np.arange(6) % 3
    entry = keras.Input((4,))
    scores, hidden = L.Dense(3)(entry), L.Dense(5)(entry)
    several = Workload(keras.Model(entry, [scores, hidden]), valid=(x, y))
    assert "the model returns (6, 3) and (6, 5): the first is judged, and exported" in several.notes
    assert not any("is judged" in note for note in Workload(keras.Model(entry, scores), valid=(x, y)).notes)


def test_row_weights_count():
    x, y = rows(6), np.array([0, 1, 0, 1, 0])
    model = keras.Sequential([keras.Input((6,)), L.Dense(2)])
    twin, other = FRAMEWORK.clone(model), FRAMEWORK.clone(model)
    loss = FRAMEWORK.loss(model, None, "logits")[0]
    plan = TrainingPlan(epochs=2, keep_best=False)
    FRAMEWORK.fit(twin, plan, Fitting(Split((x, y, np.array([1.0, 1, 0, 0, 0])), "train"), loss))
    FRAMEWORK.fit(other, plan, Fitting(Split((x[:2], y[:2]), "train"), loss))
    for left, right in zip(_state(twin), _state(other), strict=True):
        np.testing.assert_allclose(left, right, atol=1e-5)


def test_regularizers_of_the_users_layers_count():
    (x, y), _ = digits()
    plain = keras.Sequential([keras.Input((8, 8, 1)), L.Flatten(), L.Dense(10)])
    heavy = keras.Sequential(
        [keras.Input((8, 8, 1)), L.Flatten(), L.Dense(10, kernel_regularizer=keras.regularizers.L2(10.0))]
    )
    heavy.set_weights(plain.get_weights())
    for model in (plain, heavy):
        FRAMEWORK.fit(
            model, TrainingPlan(epochs=2), Fitting(Split((x, y), "train"), FRAMEWORK.loss(model, None, "logits")[0])
        )
    assert np.abs(heavy.get_weights()[0]).sum() < np.abs(plain.get_weights()[0]).sum()


def test_counts_zeros_but_no_statistics():
    model = keras.Sequential([keras.Input((4,)), L.Dense(3, use_bias=False), L.BatchNormalization()])
    model.layers[0].kernel.assign(np.eye(4, 3))
    assert FRAMEWORK.count(model) == (12 + 6, 3 + 3)


def test_bad_models_and_labels():
    with pytest.raises(ModelError):
        framework_of(keras.Sequential([L.Dense(2)]))
    with pytest.raises(ModelError):
        framework_of(keras.Sequential)
    model = keras.Sequential([keras.Input((6,)), L.Dense(3)])
    loss = FRAMEWORK.loss(model, None, "logits")[0]
    for targets in (np.array([0, 1, 3, 0, 0]), np.array([0, -1, 1, 0, 0])):
        with pytest.raises(DataError):
            FRAMEWORK.fit(model, TrainingPlan(epochs=1), Fitting(Split((rows(6), targets), "train"), loss))
    with pytest.raises(ModelError):
        FRAMEWORK.loss(model, "no_such_loss", "logits")
    model.trainable = False
    with pytest.raises(ModelError):
        FRAMEWORK.fit(model, TrainingPlan(epochs=1), Fitting(Split((rows(6), np.zeros(5, int)), "train"), loss))


def test_what_a_model_or_its_loss_raises_in_training_is_told_with_shapes():
    class OnlyEvaluates(L.Dense):
        def call(self, x, training=False):
            if training:
                raise RuntimeError("needs the labels too")
            return super().call(x)

    fit, plan, labels = FRAMEWORK.fit, TrainingPlan(epochs=1), np.zeros(5, int)
    for layer, data, told in (
        (OnlyEvaluates(3), (rows(6), labels), "raised RuntimeError: needs the labels too"),
        (L.Dense(3), (rows(7), labels), r"inputs \(5, 7\) float32, and the model or its loss raised"),
        (L.Dense(3), (rows(6), np.zeros((5, 2, 2))), r"inputs \(5, 6\) float32, and the model or its loss raised"),
    ):
        model = keras.Sequential([keras.Input((6,)), layer])
        with pytest.raises(ModelError, match=told):
            fit(model, plan, Fitting(Split(data, "train"), FRAMEWORK.loss(model, None, "logits")[0]))


PYTHON = {
    "if": lambda y: y * 2 if keras.ops.sum(y) > 0 else y,
    "numpy": lambda y: y * np.sign(y.numpy().sum()),
    "float": lambda y: y * float(keras.ops.sum(y)),
}


@pytest.mark.parametrize("kind", PYTHON)
@pytest.mark.parametrize("eager", [False, True])
def test_python_in_call_predicts_but_does_not_export(kind, eager, tmp_path):
    class Branch(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = L.Dense(4)

        def call(self, x):
            return PYTHON[kind](self.dense(x))

    model = Branch()
    model(rows(8))
    if eager:
        model.compile("sgd", "mse", run_eagerly=True)
    assert FRAMEWORK.predict(FRAMEWORK.clone(model), (rows(8),)).shape == (5, 4)
    for form in ("keras", "litert", "onnx", "openvino"):
        with pytest.raises(ExportError):
            FRAMEWORK.export(model, signature((rows(8),)), Path(tmp_path / "m"), form)


@pytest.mark.parametrize("form", ["litert", "onnx", "openvino"])
def test_an_operation_that_a_form_lacks_is_named_with_its_layer(form, tmp_path):
    class Waves(L.Layer):
        def call(self, x):
            return tf.math.special.bessel_j0(x)

    inputs = keras.Input((8,))
    model = keras.Model(inputs, L.Dense(3)(Waves(name="waves")(L.Dense(4)(inputs))))
    with pytest.raises(ExportError, match=r"no conversion for BesselJ0 \(in \S*waves"):
        FRAMEWORK.export(model, signature((rows(8),)), tmp_path / "m", form)


def test_a_training_that_diverges_says_what_to_try():
    model = keras.Sequential([keras.Input((6,)), L.Dense(16, "elu"), L.Dense(3)])
    x, y = rows(6).repeat(40, 0), np.arange(200) % 3

    def climb(_, output):
        return -keras.ops.mean(output**16, -1)

    before = [weight.copy() for weight in model.get_weights()]
    score = iter([0.5, 0.4, 0.3, 0.2]).__next__
    loss, _ = FRAMEWORK.loss(model, climb, "logits")
    fitting = Fitting(Split((x, y), "train"), loss, score=lambda _: score())
    with pytest.raises(TrainingError, match=r"training diverged: its loss was -?(inf|nan)") as caught:
        FRAMEWORK.fit(model, TrainingPlan(epochs=3, batch_size=20, learning_rate=9.0), fitting)
    assert "--learning-rate 0.9" in str(caught.value)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    late = Fitting(Split((np.where(np.arange(200)[:, None] > 190, np.nan, x), y), "train"), loss)
    with pytest.raises(DataError, match="check train for NaN"):
        FRAMEWORK.fit(model, TrainingPlan(epochs=1, batch_size=20, learning_rate=1e-3), late)


def test_the_keras_file_holds_no_optimizer(tmp_path):
    (x, y), _ = digits()
    model = keras.Sequential([keras.Input(x.shape[1:]), L.Flatten(), L.Dense(512, activation="relu"), L.Dense(10)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x[:64], y[:64], verbose=0)
    work = Workload(model, valid=(x, y))
    exported = FRAMEWORK.export(model, work.signature, tmp_path / "model.keras", "keras")
    weights = 4 * model.count_params()
    assert exported.path.stat().st_size < 1.3 * weights  # with Adam's slots it was three times as large
    assert model.compiled
    assert model.optimizer is not None


@pytest.mark.parametrize("form", ["litert", "keras", "onnx", "openvino"])
def test_inputs_may_have_names_that_are_no_identifiers(form, tmp_path):
    names = ("hours-per-week", "sepal length", "1st", "a-b", "a_b")
    entries = {name: keras.Input((1,), name=name) for name in names}
    model = keras.Model(entries, L.Dense(2)(L.Concatenate()(list(entries.values()))))
    inputs = {name: rows(len(names))[:, [i]] for i, name in enumerate(names)}
    runtime = next(r for r in all_runtimes().values() if r.form == form and "keras" in r.frameworks)
    exported = FRAMEWORK.export(model, signature(inputs), tmp_path / f"m{runtime.suffix}", form)
    session = runtime.load(exported.path, Manifest(runtime.name, names, keyed=True, batch=exported.batch), threads=1)
    np.testing.assert_allclose(session.run(inputs), FRAMEWORK.predict(model, inputs), atol=1e-5)


def test_a_missing_openvino_is_told_with_how_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "openvino", None)
    model = keras.Sequential([keras.Input((6,)), L.Dense(2)])
    with pytest.raises(MissingExtra, match="pip install"):
        FRAMEWORK.export(model, signature((rows(6),)), tmp_path / "m.xml", "openvino")


def test_swish_goes_to_litert(tmp_path):
    layers = [L.Conv2D(4, 3, activation="swish"), L.GlobalAveragePooling2D(), L.Dense(3)]
    model = keras.Sequential([keras.Input((6, 6, 2)), *layers])
    x = rows(6, 6, 2)
    exported = FRAMEWORK.export(model, signature((x,)), tmp_path / "model.tflite", "litert")
    session = runtime_named("litert").load(exported.path, Manifest("litert", ("input_0",)), threads=1)
    np.testing.assert_allclose(session.run((x,)), FRAMEWORK.predict(model, (x,)), atol=1e-5)


@pytest.mark.parametrize("loss", ["named", "lambda"])
def test_a_model_compiled_with_a_loss_of_the_notebooks_is_copied(loss):
    def focal(y, p):
        return keras.ops.mean(p, -1)

    for model, x in (cnn(), ALL["two_inputs"]()):
        model.compile("adam", focal if loss == "named" else lambda y, p: keras.ops.sum(p, -1))
        optimizer = model.optimizer
        copied = FRAMEWORK.clone(model)
        np.testing.assert_allclose(FRAMEWORK.predict(copied, x), FRAMEWORK.predict(model, x), atol=1e-6)
        traced = TracedModel(model)
        smaller = traced.remove(model, {width.name: np.arange(width.size)[1::2] for width in traced.widths})
        assert smaller.count_params() < model.count_params()
        assert model.compiled
        assert model.optimizer is optimizer
        assert not copied.compiled
        assert not smaller.compiled


def normalized(kind):
    """Return a functional model that scales its inputs as `kind` says, and rows far from mean 0 and variance 1."""
    x = rows(4) * 5 + 3
    adapted = L.Normalization()
    adapted.adapt(x)
    scaled = {
        "adapted": adapted,
        "of one number": L.Normalization(axis=None, mean=3.0, variance=25.0),
        "given": L.Normalization(mean=[3.0, 2.0, 1.0, 0.0], variance=[25.0, 4.0, 1.0, 9.0]),
        "inverted": L.Normalization(mean=[3.0, 2.0, 1.0, 0.0], variance=[25.0, 4.0, 1.0, 9.0], invert=True),
    }[kind]
    entry = keras.Input((4,), name="number")
    return keras.Model(entry, L.Dense(3)(L.Dense(8, "relu")(scaled(entry)))), (x,)


@pytest.mark.parametrize("form", ["keras", "onnx", "openvino", "litert"])
@pytest.mark.parametrize("kind", ["adapted", "of one number", "given", "inverted"])
def test_normalization_goes_everywhere(form, kind, tmp_path):
    model, x = normalized(kind)
    expected = FRAMEWORK.predict(model, x)
    runtime = next(r for r in all_runtimes().values() if r.form == form and "keras" in r.frameworks)
    exported = FRAMEWORK.export(model, signature(x), tmp_path / f"model{runtime.suffix}", form)
    session = runtime.load(exported.path, Manifest(runtime.name, ("input_0",)), threads=1)
    np.testing.assert_allclose(session.run(x), expected, rtol=1e-4, atol=1e-4)


class Activated(L.Layer):
    """Is given a function and a layer, as notebooks do, and tells get_config of neither."""

    def __init__(self, inner, function, skip=None, **options):
        super().__init__(**options)
        self.inner, self.function, self.skip = inner, function, skip

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones")

    def call(self, x, training=False):
        y = self.function(self.inner(x * self.scale))
        return y if self.skip is None else y + self.skip(x, training=training)


@pytest.mark.parametrize("shared", [False, True])
def test_layers_without_a_configuration_are_copied_within_a_graph(shared, tmp_path):
    here = keras.Input((6,))
    block = Activated(L.Dense(6), lambda x: keras.ops.relu(x) * 2.0, keras.Sequential([L.Dropout(0.5), L.Dense(6)]))
    other = block if shared else Activated(L.Dense(6), tf.math.tanh)
    model = keras.Model(here, L.Dense(3)(other(L.BatchNormalization()(block(here)))))
    x, before = rows(6), _state(model)
    expected = FRAMEWORK.predict(model, (x,))
    twin = FRAMEWORK.clone(FRAMEWORK.clone(model))
    np.testing.assert_allclose(FRAMEWORK.predict(twin, (x,)), expected, atol=1e-6)
    assert len(twin.trainable_variables) == len(model.trainable_variables)
    kinds = [type(layer) for layer in twin.layers]
    assert kinds == [type(layer) for layer in model.layers]
    loss = FRAMEWORK.loss(twin, None, "logits")[0]
    FRAMEWORK.fit(twin, TrainingPlan(epochs=2, learning_rate=0.1), Fitting(Split((x, np.arange(5) % 3), "train"), loss))
    assert not np.allclose(FRAMEWORK.predict(twin, (x,)), expected)
    assert _same(before, _state(model))
    np.testing.assert_array_equal(FRAMEWORK.predict(model, (x,)), expected)
    exported = FRAMEWORK.export(model, signature((x,)), Path(tmp_path / "m.onnx"), "onnx")
    runtime = runtime_named("onnxruntime")
    session = runtime.load(exported.path, Manifest(runtime.name, ("input_0",)), threads=1)
    np.testing.assert_allclose(session.run((x,)), expected, atol=1e-5)


@pytest.mark.parametrize("mode", ["int", "one_hot", "multi_hot", "count", "tf_idf"])
@pytest.mark.parametrize("learned", [True, False])
def test_copies_of_a_lookup_know_what_it_learned(mode, learned):
    words = np.random.default_rng(0).integers(10, 15, (40, 1 if mode in ("int", "one_hot") else 3))
    given = {} if learned else {"vocabulary": [10, 11, 12, 13, 14]}
    if mode == "tf_idf" and not learned:
        given["idf_weights"] = [0.1, 0.2, 0.3, 0.4, 0.5]
    layer = L.IntegerLookup(output_mode=mode, **given)
    if learned:
        layer.adapt(words)
    after = [L.Embedding(8, 4), L.Flatten()] if mode == "int" else []
    model = keras.Sequential([keras.Input(words.shape[1:], dtype="int64"), layer, *after, L.Dense(2)])
    expected = FRAMEWORK.predict(model, (words,))
    twin = FRAMEWORK.clone(FRAMEWORK.clone(model))
    np.testing.assert_array_equal(FRAMEWORK.predict(twin, (words,)), expected)
    assert np.ptp(expected, axis=0).max() > 0


def test_copies_of_an_adapted_normalization_scale_as_it_does():
    model, x = normalized("adapted")
    for copied in (FRAMEWORK.clone(model), FRAMEWORK.clone(Around(model))):
        np.testing.assert_allclose(FRAMEWORK.predict(copied, x), FRAMEWORK.predict(model, x), atol=1e-5)
    traced = TracedModel(model)
    smaller = traced.remove(model, {width.name: np.arange(width.size)[::4] for width in traced.widths})
    norms = [next(y for y in m.layers if isinstance(y, L.Normalization)) for m in (model, smaller)]
    np.testing.assert_allclose(norms[1](x[0]), norms[0](x[0]), atol=1e-6)


class Around(keras.Model):
    def __init__(self, model):
        super().__init__()
        self.inner = model
        self.build((None, 4))

    def call(self, x):
        return self.inner(x)


class Shifted(L.Layer):
    """A layer of a user's own that holds a tensor which is no weight."""

    def __init__(self):
        super().__init__()
        self.by = tf.constant([1.0, 2.0, 3.0, 4.0])

    def call(self, x):
        return x + self.by


def test_a_constant_of_a_users_layer_goes_to_onnx(tmp_path):
    model = keras.Sequential([keras.Input((4,)), Shifted(), L.Dense(2)])
    x = rows(4)
    exported = FRAMEWORK.export(model, signature((x,)), tmp_path / "model.onnx", "onnx")
    session = runtime_named("onnxruntime").load(exported.path, Manifest("onnxruntime", ("input_0",)), threads=1)
    np.testing.assert_allclose(session.run((x,)), FRAMEWORK.predict(model, (x,)), atol=1e-5)


@pytest.mark.parametrize("form", ["onnx", "openvino", "litert"])
@pytest.mark.parametrize("what", ["gelu", "mixed_float16"])
def test_gelu_and_half_precision_policies_go_everywhere(form, what, tmp_path):
    policy = "float32" if what == "gelu" else what
    layers = [L.Conv1D(8, 3, activation="gelu", dtype=policy), L.BatchNormalization(dtype=policy), L.Flatten()]
    model = keras.Sequential([keras.Input((6, 4)), *layers, L.Dense(3, dtype=policy)])
    x = rows(6, 4)
    runtime = next(r for r in all_runtimes().values() if r.form == form)
    exported = FRAMEWORK.export(model, signature((x,)), tmp_path / f"model{runtime.suffix}", form)
    session = runtime.load(exported.path, Manifest(runtime.name, ("input_0",)), threads=1)
    exact = 1e-5 if what == "gelu" else 2e-2
    np.testing.assert_allclose(session.run((x,)), FRAMEWORK.predict(model, (x,)), atol=exact)
    assert any("float32" in note for note in exported.notes) == (what != "gelu")
    assert model.layers[0].dtype_policy.name == policy
