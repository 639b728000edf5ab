"""The learning-rate range test: on curves whose answer is known, and on real models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nbopt
from nbopt.errors import DataError, OptionError
from nbopt.rates import FEWEST, lr_range, smoothed, suggest
from nbopt.workload import Workload
from tests.conftest import Digits
from tests.models import mlp
from tests.runtimes.keras_models import model as keras_model

RATES = np.geomspace(1e-6, 1, 100)


def test_a_valley_gives_a_rate_on_its_slope() -> None:
    logs = np.log10(RATES)
    curve = 2.3 - 1.5 / (1 + np.exp(-4 * (logs + 3))) + np.exp(6 * (logs + 0.5))
    found, reason = suggest(RATES, curve)
    assert found is not None
    assert 3e-4 < found < 3e-3
    assert "falls fastest" in reason


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_a_flat_curve_gives_none(noise: float) -> None:
    rng = np.random.default_rng(0)
    found, reason = suggest(RATES, 0.3 + noise * rng.normal(size=100) + np.where(RATES > 0.1, 2.0, 0.0))
    assert found is None
    assert "trained already" in reason


def test_few_or_broken_losses_give_none() -> None:
    assert suggest(RATES[:5], [1.0] * 5)[0] is None
    assert suggest(RATES, [float("nan")] * 100)[0] is None


@settings(max_examples=50)
@given(st.lists(st.floats(0.01, 10), min_size=FEWEST, max_size=60))
def test_a_suggestion_lies_below_the_rate_of_the_least_loss(losses: list[float]) -> None:
    rates = np.geomspace(1e-5, 1, len(losses))
    found, reason = suggest(rates, losses)
    assert reason
    assert len(smoothed(losses)) == len(losses)
    assert found is None or 0 < found <= rates[int(smoothed(losses).argmin())]


@pytest.mark.parametrize("kind", ["torch", "keras"])
def test_a_fresh_model_gets_a_rate_that_trains_it(kind: str, digits: Digits) -> None:
    model: Any = mlp() if kind == "torch" else keras_model("mlp")
    work = Workload(model, train=digits.train, valid=digits.valid)
    before = {name: value.copy() for name, value in work.framework.weights(model)}
    found = lr_range(work, steps=60, batch_size=100)
    assert found.suggested is not None
    assert 1e-4 < found.suggested < 0.1
    assert list(found.rates) == sorted(found.rates)
    assert found.rates[0] == pytest.approx(1e-6, rel=1e-3)
    assert 10 <= len(found.rates) <= 60
    if len(found.rates) == 60:
        assert found.rates[-1] == pytest.approx(1.0, rel=0.05)
    for name, value in work.framework.weights(model):
        np.testing.assert_array_equal(value, before[name])


def test_a_long_pass_is_tested_in_its_first_steps(digits: Digits) -> None:
    x, y = digits.train
    work = Workload(mlp(), train=(x, y), valid=digits.valid)
    long = lr_range(work, low=1e-12, high=1.0, steps=10, batch_size=1)
    assert long.rates == pytest.approx(list(np.geomspace(1e-12, 1, 10)), rel=1e-6)


def test_a_source_of_unknown_length_is_tested_too(digits: Digits) -> None:
    def batches() -> Any:
        x, y = digits.train
        for start in range(0, len(x), 50):
            yield x[start : start + 50], y[start : start + 50]

    work = Workload(mlp(), train=batches, valid=digits.valid)
    found = lr_range(work, steps=30)
    assert len(found.rates) > 10
    assert found.rates[5] / found.rates[4] == pytest.approx(1e6 ** (1 / 29), rel=0.05)


def test_it_shows_itself_with_a_picture(digits: Digits) -> None:
    found = nbopt.lr_range(Workload(mlp(), train=digits.train, valid=digits.valid), steps=20)
    shown = found._repr_mimebundle_()
    assert "range test, " in shown["text/plain"]
    assert "data:image/svg+xml;base64," in shown["text/html"]
    assert "<script" not in shown["text/html"]


def test_what_it_refuses(digits: Digits) -> None:
    with pytest.raises(DataError, match="train data"):
        lr_range(Workload(mlp(), valid=digits.valid))
    work = Workload(mlp(), train=digits.train, valid=digits.valid)
    with pytest.raises(OptionError):
        lr_range(work, steps=3)
    with pytest.raises(OptionError):
        lr_range(work, low=1.0, high=0.1)
