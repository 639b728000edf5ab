"""When early stopping stops: as Keras does, where Keras can do it."""

from __future__ import annotations

import math
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from nbopt.frameworks._watching import Patience

VALUES = st.lists(st.sampled_from([0.0, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0]), min_size=1, max_size=20)


def stops_at(patience: Patience, *series: list[float]) -> int | None:
    return next((i for i, row in enumerate(zip(*series, strict=True)) if patience.see(*row)), None)


@given(VALUES, st.integers(1, 5), st.sampled_from([0.0, 0.06]))
def test_one_figure_is_watched_as_keras_does(values: list[float], patience: int, least: float) -> None:
    import keras

    callback = keras.callbacks.EarlyStopping("value", least, patience, mode="min")
    model = SimpleNamespace(stop_training=False)
    callback.set_model(model)
    callback.on_train_begin()
    expected = None
    for epoch, value in enumerate(values):
        callback.on_epoch_end(epoch, {"value": value})
        if model.stop_training:
            expected = epoch
            break
    assert stops_at(Patience(patience, least), values) == expected


@given(VALUES, VALUES, st.integers(1, 5))
def test_two_figures_go_on_at_least_as_long_as_either(first: list[float], second: list[float], patience: int) -> None:
    size = min(len(first), len(second))
    first, second = first[:size], second[:size]
    both = stops_at(Patience(patience), first, second)
    alone = [stops_at(Patience(patience), each) for each in (first, second)]
    for end in alone:
        assert both is None or (end is not None and both >= end)


@given(VALUES)
def test_no_patience_never_stops(values: list[float]) -> None:
    assert stops_at(Patience(0), values) is None


def test_what_is_not_a_number_is_no_gain() -> None:
    assert stops_at(Patience(2), [0.5, math.nan, math.nan, 0.1]) == 2
