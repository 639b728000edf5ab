"""A Keras model's architecture is searched through the loop, as a PyTorch model's is."""

from __future__ import annotations

import keras
import numpy as np

import nbopt
from tests.conftest import Digits


def test_what_was_found_is_measured_beside_its_rivals(digits: Digits) -> None:
    layers = keras.layers
    x = digits.x.reshape(-1, 8, 8, 1)
    y = digits.y
    image = keras.Input((8, 8, 1))
    first = layers.Conv2D(24, 3, padding="same", activation="relu")(image)
    block = layers.Conv2D(24, 3, padding="same", activation="relu")(first)
    rest = layers.Conv2D(64, 3, strides=2, activation="relu")(layers.Add()([first, block]))
    model = keras.Model(image, layers.Dense(10)(layers.GlobalAveragePooling2D()(rest)))
    model.compile(keras.optimizers.Adam(1e-2), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x[:1200], y[:1200], epochs=5, verbose=0)
    before = [weight.copy() for weight in model.get_weights()]
    work = nbopt.Workload(model, train=(x[:1200], y[:1200]), valid=(x[1200:], y[1200:]))
    line = "nas --controller tpe --trials 8 --timed 8 --shared-epochs 1 --epochs 1 --finalists 1"
    result = nbopt.optimize(work, line, runtimes=["onnxruntime"], threads=1, max_latency=50.0)
    assert all(np.array_equal(one, other) for one, other in zip(before, model.get_weights(), strict=True))
    searched, *rivals = [run for run in result if run.recipe.startswith("nas")]
    assert not searched.failed, searched.reason
    # Where timings of so small a network say that nothing is as fast as the choice, a rival says so.
    assert all(not run.failed or "none that runs" in run.reason for run in rivals), [run.reason for run in rivals]
    assert {"random", "uniform"} == {word for run in rivals for word in ("random", "uniform") if word in run.recipe}
    assert searched.search["trials"]
    assert any("learned together for 1 epoch" in note for note in searched.notes)
    assert np.mean(searched.predict(x[1200:]).argmax(1) == y[1200:]) == searched.quality
