"""Units taken out of a Keras model: what is left computes what the whole does without them."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from nbopt.batches import Batch
from nbopt.data import Split
from nbopt.errors import ModelError
from nbopt.frameworks import Fitting
from nbopt.frameworks._keras_dialect import symbolic
from nbopt.frameworks.keras import FRAMEWORK
from nbopt.narrowing._keras import LOWERING
from nbopt.narrowing._keras.channels import Channels
from nbopt.narrowing._keras.rebuild import TracedModel, silenced
from nbopt.narrowing.lowering import Ranking
from nbopt.narrowing.subjects import Units
from nbopt.narrowing.widths import least, unit_masks
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


def both_ways():
    layers = [L.Bidirectional(L.LSTM(8, return_sequences=True)), L.Bidirectional(L.GRU(6), merge_mode="sum")]
    return keras.Sequential([keras.Input((7, 5)), L.Dense(6), *layers, L.Dense(3)])


def layer_shared_attention():
    entry = keras.Input((6, 8))
    attend, norm = L.MultiHeadAttention(4, 5, output_shape=12), L.LayerNormalization()
    x = L.Dense(12)(entry)
    x = norm(attend(x, x) + attend(x, x, x))
    return keras.Model(entry, L.Dense(4)(L.Flatten()(x)))


def masked_attention():
    """A mask that is a tensor, over more keys than there are channels."""
    entry = keras.Input((20,), dtype="int32")
    mask = keras.ops.expand_dims(keras.ops.not_equal(entry, 0), 1)
    x = L.Embedding(50, 8)(entry)
    x = x + L.MultiHeadAttention(2, 4)(x, x, attention_mask=mask)
    return keras.Model(entry, L.Dense(3)(L.Dense(16, "relu")(L.GlobalAveragePooling1D()(x))))


def attention_by_name():
    """Sides that are given by name, in another order than the layer's own, and of different widths."""
    entry, beside = keras.Input((6, 8)), keras.Input((5, 4))
    x, y = L.Dense(12)(entry), L.Dense(10)(beside)
    x = L.MultiHeadAttention(2, 8)(value=y, query=x, key=L.Dense(14)(beside))
    return keras.Model([entry, beside], L.Dense(4)(L.GlobalAveragePooling1D()(x)))


def weighed_steps():
    """Attention over steps, which are one number for all units, and the last step by its place."""
    entry = keras.Input((7, 5))
    x = L.Bidirectional(L.GRU(8, return_sequences=True))(L.Dense(6)(entry))
    mean = keras.ops.sum(x * L.Softmax(axis=1)(L.Dense(1)(x)), axis=1)
    return keras.Model(entry, L.Dense(3)(L.Concatenate()([mean, x[:, -1]])))


MODELS = {
    "weighed_steps": weighed_steps,
    "both_ways": both_ways,
    "masked_attention": masked_attention,
    "attention_by_name": attention_by_name,
    "shared_attention": layer_shared_attention,
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


def ranking(importance: str = "magnitude") -> Ranking:
    return Ranking(importance, LOWERING, None)  # magnitude needs no context


def narrower(model, fraction, **more):
    units = Units(TracedModel(model), ranking(), **more)
    choice = units.choose(units.model, dict.fromkeys(units.sizes, fraction))
    return units.finished(units.model, choice), units.notes


@pytest.mark.parametrize(("name", "fraction"), [*((name, 0.4) for name in MODELS), ("residual", 0.99)])
def test_a_narrower_model_equals_the_silenced_one_and_the_one_with_zeros(name, fraction):
    model = _shaken(MODELS[name]())
    before, inputs = [v.numpy() for v in model.variables], _inputs(model)
    traced = TracedModel(model)
    rng = np.random.default_rng(0)
    going = {}
    for width in traced.widths:
        if not width.normed:
            going[width.name] = least(width, rng.random(width.size), round(fraction * width.size))
    assert any(len(units) for units in going.values())
    keep = traced.trace.keep(traced.widths, going)
    smaller = traced.remove(model, going)
    assert all(np.array_equal(a, b.numpy()) for a, b in zip(before, model.variables, strict=True))
    assert smaller.count_params() < model.count_params()
    assert all(min(v.shape, default=1) > 0 for v in smaller.variables)
    whole, ours = _outputs(model, inputs), _outputs(smaller, inputs)
    zeros = FRAMEWORK.clone(model)
    LOWERING.put_zeros(zeros, unit_masks(traced.widths, going, LOWERING.shapes(model)), {})
    silenced(model, traced.trace, keep)
    for theirs in (_outputs(model, inputs), _outputs(zeros, inputs)):
        for mine, yours, original in zip(ours, theirs, whole, strict=True):
            assert mine.shape == original.shape
            np.testing.assert_allclose(mine, yours, atol=2e-5 * max(1.0, np.abs(yours).max()))


def test_heads_and_hidden_sizes_go_and_the_stream_stays_unless_it_is_included():
    smaller, notes = narrower(attention(), 0.5)
    attend = next(layer for layer in smaller.layers if isinstance(layer, L.MultiHeadAttention))
    assert attend.num_heads == 1
    assert any("LayerNorm" in note and "--include" in note for note in notes)
    widths = [layer.units for layer in smaller.layers if isinstance(layer, L.Dense)]
    assert widths == [16, 16, 16, 4]
    whole, _ = narrower(attention(), 0.5, include=("*",))
    assert [layer.units for layer in whole.layers if isinstance(layer, L.Dense)] == [8, 16, 8, 4]


def test_a_removal_copy_may_be_of_a_trained_copy():
    model = cnn()[0]
    units = Units(TracedModel(model), ranking())
    choice = units.choose(model, dict.fromkeys(units.sizes, 0.5))
    other = FRAMEWORK.clone(model)
    for variable in other.variables:
        variable.assign(variable.value * 2 if "float" in str(variable.dtype) else variable.value)
    assert units.finished(other, choice).layers[0].kernel.shape == (3, 3, 1, 4)
    assert (
        np.abs(units.finished(other, choice).layers[0].kernel.numpy()).max()
        > np.abs(model.layers[0].kernel.numpy()).max()
    )


def test_the_least_important_channels_go():
    model = keras.Sequential([keras.Input((4,)), L.Dense(4, "relu"), L.Dense(2)])
    model.layers[0].kernel.assign(np.ones((4, 4)) * [1.0, 0.01, 2.0, 0.02])
    model.layers[1].kernel.assign(np.ones((4, 2)))
    smaller, notes = narrower(model, 0.5)
    assert notes == []
    np.testing.assert_allclose(smaller.layers[0].kernel.numpy()[0], [1.0, 2.0])


def test_layers_that_can_not_be_followed_are_named():
    entry = keras.Input((6, 8))
    x = L.Dense(16)(L.GroupNormalization(4)(L.Dense(16)(entry)))
    model = keras.Model(entry, L.Dense(2)(L.Dense(12)(L.GlobalAveragePooling1D()(x))))
    _, notes = narrower(model, 0.5)
    assert "GroupNormalization" in notes[0]


def test_models_with_nothing_to_take_out_are_told():
    with pytest.raises(ModelError):
        TracedModel(keras.Sequential([keras.Input((4,)), L.Dense(2)]))
    with pytest.raises(ModelError):
        TracedModel(subclassed()[0])


def test_half_of_a_trained_cnn_recovers():
    (x, y), (xv, yv) = digits()
    layers = [L.Conv2D(32, 3, activation="relu"), L.Conv2D(32, 3), L.BatchNormalization(momentum=0.8), L.ReLU()]
    model = keras.Sequential([keras.Input((8, 8, 1)), *layers, L.Flatten(), L.Dropout(0.2), L.Dense(10)])
    fitting = Fitting(Split((x, y), "train"), FRAMEWORK.loss(model, None, "logits")[0])
    FRAMEWORK.fit(model, TrainingPlan(epochs=5, batch_size=64), fitting)
    smaller, _ = narrower(model, 0.5)

    def accuracy(m):
        return (FRAMEWORK.predict(m, (xv,)).argmax(-1) == yv).mean()

    cut = accuracy(smaller)
    assert LOWERING.recalibrate(smaller, iter(Split((x, y), "train"))) == 1
    assert smaller.layers[2].momentum == 0.8
    assert smaller.layers[5].rate == 0.2
    assert accuracy(smaller) >= cut - 0.02
    FRAMEWORK.fit(smaller, TrainingPlan(epochs=3, batch_size=64), fitting)
    assert FRAMEWORK.count(smaller)[0] < 0.5 * FRAMEWORK.count(model)[0]
    assert accuracy(smaller) > accuracy(model) - 0.03


def test_gradient_times_weight_is_what_a_difference_says():
    model, inputs = ALL["mlp"]()
    labels = np.array([0, 1, 0, 1, 1], np.float32)
    loss = FRAMEWORK.loss(model, None, "binary_probabilities")[0]
    scores = LOWERING.taylor(model, loss, iter([Batch(inputs, labels)]))
    kernel = model.layers[-1].kernel
    name = next(name for name in scores if name.endswith(f"{model.layers[-1].name}/kernel"))
    value, step = kernel.numpy(), 1e-3

    def at(delta):
        shifted = value.copy()
        shifted[3, 0] += delta
        kernel.assign(shifted)
        return float(loss(model(inputs[0]), labels[:, None], None))

    slope = (at(step) - at(-step)) / (2 * step)
    np.testing.assert_allclose(scores[name][3, 0], (slope * value[3, 0]) ** 2, rtol=0.05, atol=1e-9)


def test_channels_keep_one_of_each_layer_and_spare_what_is_frozen():
    channels = Channels()
    first, second, fixed = channels.new(4, "a"), channels.new(4, "b"), channels.new(4, "c", frozen=True)
    channels.tie(first, second)
    (group,) = channels.groups()
    assert group.layers == ("a", "b")
    assert group.roots.tolist() == first.tolist()
    assert [maker.tolist() for maker in group.makers] == [[0, 1, 2, 3]] * 2
    assert not set(fixed) & set(group.roots)
    channels.freeze(second[3:])
    (group,) = channels.groups()
    assert group.roots.tolist() == first[:3].tolist()
    assert group.makers == ()  # both keep the frozen one
