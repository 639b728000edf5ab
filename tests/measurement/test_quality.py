"""Quality of outputs, their difference from the baseline's, and outputs that collapsed."""

from __future__ import annotations

import numpy as np
import pytest

from nbopt.errors import DataError
from nbopt.measurement.metrics import metric_of
from nbopt.measurement.quality import classes_of, collapse, judge

RNG = np.random.default_rng(0)
Y = RNG.integers(0, 3, 300)
GOOD = np.eye(3)[Y] * 2 + RNG.normal(size=(300, 3))
ACCURACY = metric_of("accuracy", output="logits")


def test_a_baseline_has_a_value_and_no_difference() -> None:
    quality = judge(ACCURACY, GOOD, Y, None, None)
    assert quality.value is not None
    assert quality.value.value == (GOOD.argmax(1) == Y).mean()
    assert quality.value.low < quality.value.value < quality.value.high
    assert quality.difference is quality.agreement is quality.max_error is None
    assert quality.warning == ""


def test_the_same_outputs_differ_by_nothing() -> None:
    quality = judge(ACCURACY, GOOD, Y, None, GOOD.copy())
    assert quality.difference is not None
    assert quality.difference.interval.value == 0
    assert quality.agreement == 1
    assert quality.max_error == 0


def test_what_changed_is_counted_on_the_same_rows() -> None:
    worse = GOOD.copy()
    right = np.flatnonzero(GOOD.argmax(1) == Y)[:30]
    worse[right] = np.eye(3)[(Y[right] + 1) % 3] * 9
    quality = judge(ACCURACY, worse, Y, None, GOOD)
    assert quality.difference is not None
    assert quality.difference.interval.value == pytest.approx(-30 / 300)
    assert quality.difference.interval.high < 0
    assert quality.difference.p < 1e-6
    assert quality.agreement == pytest.approx(270 / 300)
    assert quality.max_error == pytest.approx(np.abs(worse - GOOD).max())


def test_without_labels_outputs_are_compared_alone() -> None:
    quality = judge(ACCURACY, GOOD + 1e-3, None, None, GOOD)
    assert quality.value is quality.difference is None
    assert quality.agreement == 1
    assert quality.max_error == pytest.approx(1e-3)


def test_values_have_an_error_and_no_agreement() -> None:
    y = RNG.normal(size=200)
    quality = judge(metric_of("rmse", output="regression"), (y + 0.5)[:, None], y, None, y[:, None])
    assert quality.agreement is None
    assert quality.value is not None
    assert quality.value.value == pytest.approx(0.5)
    assert quality.max_error == pytest.approx(0.5)


def test_nan_in_outputs_is_told_with_how_many_rows() -> None:
    broken = GOOD.copy()
    broken[7, 1] = np.nan
    with pytest.raises(DataError, match="1 of 300 rows"):
        judge(ACCURACY, broken, Y, None, GOOD)


@pytest.mark.parametrize(
    ("raw", "warning"),
    [
        (np.ones((300, 3)), "every row gets the same output"),
        (np.c_[np.full(300, 9.0), RNG.random((300, 2))], "every row is predicted as class 0"),
        (GOOD, ""),
    ],
)
def test_outputs_that_no_longer_depend_on_the_input_are_a_collapse(raw: np.ndarray, warning: str) -> None:  # type: ignore[type-arg]
    found = collapse(raw, GOOD, "logits")
    assert warning in found
    assert bool(found) == bool(warning)


def test_what_the_baseline_does_itself_is_no_collapse() -> None:
    constant = np.ones((300, 3))
    assert collapse(constant, constant, "logits") == ""
    assert collapse(constant, None, "logits") == ""
    assert collapse(GOOD[:1], GOOD[:1], "logits") == ""


def test_a_class_for_each_row_or_a_word_for_each_label() -> None:
    assert classes_of(np.array([[0.1, 2.0], [3.0, 1.0]]), "logits").tolist() == [1, 0]
    assert classes_of(np.array([[-1.0], [1.0]]), "binary_logits").ravel().tolist() == [0, 1]
    assert classes_of(np.array([[-1.0, 1.0]]), "multilabel_logits").tolist() == [[0, 1]]
