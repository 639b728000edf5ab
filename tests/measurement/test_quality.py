"""Quality of outputs, their difference from the baseline's, and outputs that collapsed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nbopt.errors import DataError
from nbopt.frozen import join_ragged
from nbopt.measurement.metrics import metric_of
from nbopt.measurement.predictions import prepare
from nbopt.measurement.quality import classes_of, judge

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


def test_nan_in_outputs_of_a_variant_is_a_finding_and_of_the_baseline_an_error() -> None:
    broken = GOOD.copy()
    broken[7, 1] = np.nan
    broken[9] = np.inf
    quality = judge(ACCURACY, broken, Y, None, GOOD)
    assert quality.value is quality.difference is quality.max_error is None
    assert quality.warning == "collapsed: NaN or infinity in 2 of 300 rows"
    assert quality.agreement == pytest.approx(298 / 300), "a row that is no number agrees with nothing"
    assert judge(ACCURACY, broken * np.nan, Y, None, GOOD).warning == "collapsed: NaN or infinity in all 300 rows"
    assert judge(ACCURACY, broken, None, None, GOOD).warning == "collapsed: NaN or infinity in 2 of 300 rows"
    with pytest.raises(DataError, match="2 of 300 rows"):
        judge(ACCURACY, broken, Y, None, None)


def test_a_mask_of_minus_infinity_is_no_collapse_and_no_error() -> None:
    masked = np.c_[GOOD, np.full(300, -np.inf)]
    quality = judge(ACCURACY, masked + 0.5, Y, None, masked)
    assert quality.warning == ""
    assert quality.max_error == pytest.approx(0.5)
    assert judge(ACCURACY, GOOD, Y, None, masked[:, :3]).max_error == 0


@pytest.mark.parametrize(
    ("raw", "warning"),
    [
        (np.ones((300, 3)), "every row gets the same output"),
        (np.ones((300, 3)) + 1e-9 * GOOD, "every row gets the same output"),
        (np.c_[np.full(300, 9.0), RNG.random((300, 2))], "every row is predicted as class 0"),
        (GOOD[RNG.permutation(300)], "is no better than one guess for every row"),
        (GOOD, ""),
    ],
)
@pytest.mark.parametrize("labels", [Y, None])
def test_outputs_that_no_longer_depend_on_the_input_are_a_collapse(raw: Any, warning: str, labels: Any) -> None:
    found = judge(ACCURACY, raw, labels, None, GOOD).warning
    if labels is None and "guess" in warning:
        assert found == "", "without labels nobody knows"
    else:
        assert warning in found
        assert bool(found) == bool(warning)


def test_what_the_baseline_does_itself_is_no_collapse() -> None:
    constant = np.ones((300, 3))
    assert judge(ACCURACY, constant, Y, None, constant).warning == ""
    assert judge(ACCURACY, constant, Y, None, None).warning == ""
    assert judge(ACCURACY, GOOD[:2], None, None, GOOD[:2]).warning == ""


def test_all_on_one_side_of_a_half_is_a_collapse_only_where_something_is_lost() -> None:
    y = (RNG.random(600) < 0.1).astype(np.int64)
    base = np.where(y == 1, 1.0, -2.0)[:, None] + RNG.normal(size=(600, 1))
    shifted = base - 9
    assert judge(metric_of("auc", output="binary_logits"), shifted, y, None, base).warning == ""
    assert "class 0" in judge(metric_of("accuracy", output="binary_logits"), shifted, y, None, base).warning


@pytest.mark.parametrize("name", ["auc", "average_precision"])
@pytest.mark.parametrize("columns", [1, 2])
def test_a_rare_class_that_is_ranked_a_little_worse_is_no_collapse(name: str, columns: int) -> None:
    y = (RNG.random(4000) < 0.02).astype(np.int64)
    base = np.where(y == 1, 1.0, -3.0) + RNG.normal(size=4000)
    worse = base - 9 + RNG.normal(scale=1.5, size=4000)
    raw, before = (np.c_[np.zeros(4000), z][:, -columns:] for z in (worse, base))
    metric = metric_of(name, output="binary_logits" if columns == 1 else "logits")
    found = judge(metric, raw, y, None, before)
    assert found.difference is not None
    assert found.difference.interval.high < 0, "it is worse, and is told so"
    assert found.warning == ""
    lost = RNG.normal(size=raw.shape) - 9 * np.arange(columns, 0, -1)
    assert "no better than one guess" in judge(metric, lost, y, None, before).warning


def test_a_users_metric_may_ask_for_classes_and_one_class_alone_is_told() -> None:
    y = (RNG.random(600) < 0.3).astype(np.int64)
    base = np.where(y == 1, 2.0, -2.0)[:, None] + RNG.normal(size=(600, 1))

    def hits(labels: Any, scores: Any) -> float:
        return float(np.mean(labels == (scores > 0.5)))

    assert "class 0" in judge(metric_of(hits, output="binary_logits"), base - 19, y, None, base).warning


def test_classes_in_the_second_axis_are_found_by_the_labels() -> None:
    y = RNG.integers(0, 3, (40, 5))
    raw = np.moveaxis(np.eye(3)[y] * 3, -1, 1) + RNG.normal(size=(40, 3, 5))
    quality = judge(ACCURACY, raw + 1, y, None, raw)
    assert quality.agreement == 1
    assert judge(ACCURACY, np.zeros((40, 3, 5)), y, None, raw).warning == "collapsed: every row gets the same output"


def test_a_class_for_each_row_or_a_word_for_each_label() -> None:
    assert classes_of(np.array([[0.1, 2.0], [3.0, 1.0]]), "logits").tolist() == [1, 0]
    assert classes_of(np.array([[-1.0], [1.0]]), "binary_logits").ravel().tolist() == [0, 1]
    assert classes_of(np.array([[-1.0, 1.0]]), "multilabel_logits").tolist() == [[0, 1]]


@pytest.mark.parametrize("labels", [Y, None])
def test_another_number_of_rows_than_the_baseline_s_is_told(labels: Any) -> None:
    for raw in (GOOD[:7], GOOD[:1], np.concatenate([GOOD, GOOD]), np.array(1.0)):
        with pytest.raises(DataError, match=r"expected: an output row for each reporting row \(300\)") as caught:
            judge(ACCURACY, raw, labels, None, GOOD)
        assert f"outputs of shape {raw.shape}" in caught.value.one_line
    with pytest.raises(DataError, match="for each reporting row"):
        judge(ACCURACY, GOOD[:7], Y, None, None)


def test_another_number_of_outputs_than_the_baseline_s_is_told() -> None:
    for labels in (Y, None):
        with pytest.raises(DataError, match=r"in the shape of the untouched model's, \(300, 3\)"):
            judge(ACCURACY, GOOD[:, :2], labels, None, GOOD)
    y = RNG.normal(size=50)
    flat = judge(metric_of("rmse", output="regression"), y, y, None, y[:, None])
    assert flat.max_error == 0, "an axis of one value is none: 50 rows against 50 columns would be 2,500 differences"


@pytest.mark.parametrize("name", ["accuracy", "auc", "average_precision", "f1", "log_loss"])
@pytest.mark.parametrize(("kind", "shape"), [("multilabel_logits", (90, 4, 3)), ("binary_logits", (90, 4, 2))])
def test_places_of_a_row_are_measured_by_row(name: str, kind: Any, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(3)
    metric, repeated = metric_of(name, output=kind), (1, shape[1], 1)
    once, noise = rng.normal(size=(2, shape[0], 1, shape[2]))
    y = (once + noise > 0).astype(np.int64)
    one = judge(metric, once + 0.5 * noise, y, None, once)
    many = judge(metric, np.tile(once + 0.5 * noise, repeated), np.tile(y, repeated), None, np.tile(once, repeated))
    assert one.value is not None
    assert one.difference is not None
    assert many.value is not None
    assert many.difference is not None
    assert many.value.value == pytest.approx(one.value.value)
    # Places that repeat each other prove no more than one of them.
    assert many.value.half_width == pytest.approx(one.value.half_width, rel=0.1)
    assert many.difference.interval.half_width == pytest.approx(one.difference.interval.half_width, rel=0.1)


def padded(values: np.ndarray, lengths: list[int], fill: int = 0) -> np.ndarray:
    """Return rows that came in two batches, each padded to a length of its own."""
    half = len(values) // 2
    return join_ragged([values[:half, : lengths[0]], values[half:, : lengths[1]]], fill)


LENGTHS = [2, 5]
KINDS: list[tuple[Any, str, int]] = [
    ("logits", "accuracy", 3),
    ("probabilities", "log_loss", 3),
    ("log_probabilities", "balanced_accuracy", 3),
    ("binary_logits", "auc", 1),
    ("binary_probabilities", "log_loss", 1),
    ("multilabel_logits", "f1", 3),
    ("multilabel_probabilities", "accuracy", 0),
    ("regression", "rmse", 0),
    ("regression", "r2", 0),
    ("regression", "mae", 1),
]


@pytest.mark.parametrize("weighted", [None, "rows", "places"])
@pytest.mark.parametrize(("kind", "name", "outputs"), KINDS)
def test_what_is_padded_counts_nowhere(kind: Any, name: str, outputs: int, weighted: str | None) -> None:
    rng = np.random.default_rng(5)
    rows, most = 40, max(LENGTHS)
    raw, noise = rng.normal(size=(2, rows, most, *([outputs] if outputs else [])))
    if kind == "regression":
        y: np.ndarray = raw + noise
    elif kind.startswith(("multilabel", "binary")):
        y = (raw + noise > 0).astype(np.int64)
    else:
        y = (raw + noise).argmax(-1)
    if kind.endswith("probabilities"):
        raw = 1 / (1 + np.exp(-raw))
        raw = raw if kind.startswith(("multi", "binary")) else raw / raw.sum(-1, keepdims=True)
        raw = np.log(raw) if kind == "log_probabilities" else raw
    base = raw[::-1].copy()
    weight = {"rows": rng.random(rows), "places": rng.random((rows, most)), None: None}[weighted]
    metric = metric_of(name, output=kind)
    real = np.arange(most) < np.repeat(LENGTHS, rows // 2)[:, None]
    found = judge(
        metric, padded(raw, LENGTHS), padded(y, LENGTHS, -100),
        padded(weight, LENGTHS) if weight is not None and weight.ndim > 1 else weight, padded(base, LENGTHS),
    )  # fmt: skip
    flat = None if weight is None else np.broadcast_to(weight.reshape(rows, -1), real.shape)[real]
    known = judge(metric, raw[real], y[real], flat, base[real])
    assert found.value is not None
    assert known.value is not None
    assert found.value.value == pytest.approx(known.value.value, rel=1e-12)
    assert found.difference is not None
    assert known.difference is not None
    assert found.difference.interval.value == pytest.approx(known.difference.interval.value, rel=1e-9)
    assert (found.agreement, found.max_error) == (known.agreement, known.max_error)
    # Places of one row are not independent, whatever is padded.
    scored = prepare(padded(y, LENGTHS, -100), padded(raw, LENGTHS), kind)
    assert scored.groups is not None
    assert scored.groups.tolist() == np.nonzero(real)[0].tolist()


def test_the_first_rows_of_padded_ones_are_judged_at_their_own_length() -> None:
    y = padded(RNG.integers(0, 3, (8, 5)), LENGTHS, -100)[:4]
    raw = RNG.normal(size=(4, 2, 3))
    assert len(prepare(y, raw, "logits").y) == 8
    assert len(prepare(y, np.moveaxis(raw, -1, 1), "logits").y) == 8


def test_padded_outputs_that_are_all_one_value_are_a_collapse_without_labels_too() -> None:
    base, flat = padded(RNG.normal(size=(8, 5, 3)), LENGTHS), padded(np.ones((8, 5, 3)), LENGTHS)
    assert "every row gets the same output" in judge(ACCURACY, flat, None, None, base).warning
    assert judge(ACCURACY, base, None, None, base).agreement == 1


def test_labels_that_are_not_padded_as_the_outputs_are_told() -> None:
    with pytest.raises(DataError, match="a label for each place"):
        judge(ACCURACY, padded(np.ones((8, 5, 3)), LENGTHS), np.zeros(8, int), None, None)
