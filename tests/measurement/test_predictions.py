from __future__ import annotations

import numpy as np
import pytest

from nbopt.errors import DataError
from nbopt.measurement.predictions import align, prepare
from nbopt.measurement.scores import scores_to_probabilities

LOGITS = np.array([[2.0, 1.0, 0.1], [0.0, 5.0, -1.0]], dtype=np.float32)


def test_logits_become_a_distribution() -> None:
    probabilities = scores_to_probabilities(LOGITS, "logits")
    assert probabilities.dtype == np.float64
    np.testing.assert_allclose(probabilities.sum(-1), 1)
    np.testing.assert_allclose(probabilities, scores_to_probabilities(LOGITS + 1000, "logits"), rtol=1e-3)


def test_log_probabilities_become_probabilities() -> None:
    probabilities = scores_to_probabilities(LOGITS, "logits")
    np.testing.assert_allclose(scores_to_probabilities(np.log(probabilities), "log_probabilities"), probabilities)


def test_a_masked_logit_is_probability_zero() -> None:
    assert scores_to_probabilities([[0.0, -np.inf]], "logits").tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize("raw", [np.array([0.3, -2.0]), np.array([[0.3], [-2.0]]), np.array([[0.0, 0.3], [1.0, -1.0]])])
def test_binary_logits_come_in_one_column_or_two(raw: np.ndarray) -> None:
    np.testing.assert_allclose(scores_to_probabilities(raw, "binary_logits"), 1 / (1 + np.exp([-0.3, 2.0])))


def test_extreme_binary_logits_do_not_overflow() -> None:
    with np.errstate(all="raise", under="ignore"):
        assert scores_to_probabilities([-1e4, 1e4], "binary_logits").tolist() == [0.0, 1.0]


def test_quantized_probabilities_are_clipped_and_renormalized() -> None:
    probabilities = scores_to_probabilities([[1.003, -0.003], [0.5, 0.47], [0.0, 0.0]], "probabilities")
    np.testing.assert_allclose(probabilities.sum(-1), 1)
    assert probabilities[0].tolist() == [1.0, 0.0]
    assert probabilities[2].tolist() == [0.5, 0.5]


def test_multilabel_and_regression_keep_their_shape() -> None:
    assert scores_to_probabilities(LOGITS, "multilabel_logits").shape == (2, 3)
    assert scores_to_probabilities([[1.0], [2.0]], "regression").tolist() == [1.0, 2.0]
    assert scores_to_probabilities([[1.0, 2.0]], "regression").shape == (1, 2)


@pytest.mark.parametrize(
    ("raw", "kind", "came"),
    [
        ([[np.nan, 1.0]], "logits", "NaN or infinity in 1 of 1 rows"),
        ([[np.inf, 1.0]], "logits", "NaN or infinity"),
        ([[-np.inf, 1.0]], "regression", "NaN or infinity"),
        ([[-np.inf, -np.inf]], "logits", "every logit is -infinity"),
        ([[3.0, -1.0]], "probabilities", "outputs from -1 to 3"),
        ([[3.0], [0.5]], "binary_probabilities", "outputs from 0.5 to 3"),
        ([[3.0], [0.5]], "logits", "shape (2, 1)"),
        ([[1.0, 2.0, 3.0]], "binary_logits", "shape (1, 3)"),
        ([["a", "b"]], "logits", "dtype <U1"),
        (1.0, "regression", "a single number"),
    ],
)
def test_bad_outputs_are_named(raw: object, kind: object, came: str) -> None:
    with pytest.raises(DataError) as caught:
        scores_to_probabilities(raw, kind)  # type: ignore[arg-type]
    assert came in caught.value.came
    assert caught.value.expected
    assert caught.value.do


@pytest.mark.parametrize(
    "labels",
    [
        np.array([2, 1]),
        np.array([2, 1], dtype=np.uint8),
        np.array([2.0, 1.0], dtype=np.float32),
        np.array([[2], [1]]),
        np.array([[0, 0, 1], [0, 1, 0]]),
        np.array([[0, 0, 1], [0, 1, 0]], dtype=np.float32),
        np.array([2, 1], dtype=object),
    ],
)
def test_class_labels_in_every_usual_form(labels: np.ndarray) -> None:
    scored = prepare(labels, LOGITS, "logits")
    assert scored.y.tolist() == [2, 1]
    assert scored.y.dtype == np.int64
    assert scored.scores.shape == (2, 3)


@pytest.mark.parametrize("labels", [[True, False], [1.0, 0.0], [[1], [0]], [[0, 1], [1, 0]]])
@pytest.mark.parametrize("raw", [[0.7, 0.2], [[0.7], [0.2]], [[0.3, 0.7], [0.8, 0.2]]])
def test_binary_labels_go_with_one_column_or_two(labels: object, raw: object) -> None:
    scored = prepare(labels, raw, "binary_probabilities")  # type: ignore[arg-type]
    assert scored.y.tolist() == [1, 0]
    np.testing.assert_allclose(scored.scores, [0.7, 0.2])


def test_token_outputs_are_flattened_and_remember_their_sequence() -> None:
    labels = np.array([[0, 1, -100], [2, -100, -100]])
    raw = np.arange(18.0).reshape(2, 3, 3)
    scored = prepare(labels, raw, "logits", weight=[2.0, 1.0])
    assert scored.y.tolist() == [0, 1, 2]
    assert scored.scores.shape == (3, 3)
    assert scored.groups is not None
    assert scored.groups.tolist() == [0, 0, 1]
    assert scored.weight is not None
    assert scored.weight.tolist() == [2.0, 2.0, 1.0]
    assert scored.ignored == 3


def test_the_class_axis_of_images_is_found_by_the_labels() -> None:
    raw = np.zeros((2, 3, 4, 5))
    raw[:, 2] = 1
    scored = prepare(np.full((2, 4, 5), 2), raw, "logits")
    assert scored.scores.argmax(-1).tolist() == [2] * 40


def test_places_with_labels_of_their_own_remember_their_row() -> None:
    labels = np.array([[[1, 0], [1, 1]], [[0, 0], [0, 1]]])
    scored = prepare(labels, np.arange(8.0).reshape(2, 2, 2) - 4, "multilabel_logits", weight=[2.0, 1.0])
    assert scored.y.tolist() == [[1, 0], [1, 1], [0, 0], [0, 1]]
    assert scored.scores.shape == (4, 2)
    assert scored.groups is not None
    assert scored.groups.tolist() == [0, 0, 1, 1]
    assert scored.weight is not None
    assert scored.weight.tolist() == [2.0, 2.0, 1.0, 1.0]


@pytest.mark.parametrize("shape", [(3, 4, 2), (3, 5, 2, 2), (3, 4, 5), (3, 4, 1)])
def test_each_place_of_a_mask_is_a_yes_or_no_however_wide_the_mask_is(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    labels, raw = rng.integers(0, 2, shape), rng.normal(size=shape)
    scored = prepare(labels, raw, "binary_logits")
    assert scored.y.tolist() == labels.reshape(-1).tolist()
    np.testing.assert_allclose(scored.scores, 1 / (1 + np.exp(-raw.reshape(-1))))
    assert scored.groups is not None
    assert scored.groups.tolist() == np.repeat([0, 1, 2], labels[0].size).tolist()


def test_aligning_twice_changes_nothing() -> None:
    once = prepare([[0, 1], [2, -100]], np.random.default_rng(0).normal(size=(2, 2, 3)), "logits")
    twice = align(once.y, once.scores, "logits", once.weight)
    assert twice.y.tolist() == once.y.tolist()
    np.testing.assert_array_equal(twice.scores, once.scores)


def test_regression_targets_do_not_broadcast() -> None:
    assert prepare([[1.0], [2.0]], [1.5, 2.5], "regression").y.tolist() == [1.0, 2.0]
    with pytest.raises(DataError, match="targets of shape"):
        prepare([[1.0, 2.0], [1.0, 2.0]], [1.0, 2.0], "regression")


@pytest.mark.parametrize(
    ("labels", "kind", "expected", "came"),
    [
        ([0, 3], "logits", "labels from 0 to 2 for 3 classes", "label 3 (1 such rows)"),
        ([0, -1], "logits", "labels from 0 to 2", "label -1"),
        ([0.5, 1.0], "logits", "whole numbers", "fractions such as 0.5"),
        ([0.0, np.nan], "logits", "labels without NaN", "NaN in 1 labels"),
        (["cat", "dog"], "logits", "labels as numbers", "such as 'cat'"),
        ([0, 1, 2], "logits", "as many labels as outputs (2)", "shape (3,)"),
        ([-100, -100], "logits", "labelled rows", "2 rows, all with label -100"),
        ([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]], "logits", "one-hot", "shape (2, 3)"),
        ([[0, 2, 1], [0, 0, 0]], "multilabel_logits", "labels 0 or 1", "from 0 to 2"),
        ([[0, 1], [0, 0]], "multilabel_logits", "each of the 3 labels", "shape (2, 2)"),
    ],
)
def test_bad_labels_are_named(labels: object, kind: object, expected: str, came: str) -> None:
    with pytest.raises(DataError) as caught:
        prepare(labels, LOGITS, kind)  # type: ignore[arg-type]
    assert expected in caught.value.expected
    assert came in caught.value.came
    assert caught.value.do


@pytest.mark.parametrize("weight", [[1.0], [1.0, -1.0], [0.0, 0.0], [1.0, np.nan]])
def test_bad_weights_are_named(weight: list[float]) -> None:
    with pytest.raises(DataError, match="weight"):
        prepare([0, 1], LOGITS, "logits", weight=weight)
