"""What a teacher says, in forms that no framework decides."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbopt.errors import OptionError
from nbopt.teaching import (
    Remembered,
    Teacher,
    axis_of,
    family_of,
    in_kind,
    mean_of,
    normal_form,
    pairs_of,
    row_keys,
)

KINDS = [
    "logits",
    "probabilities",
    "log_probabilities",
    "binary_logits",
    "binary_probabilities",
    "multilabel_logits",
    "multilabel_probabilities",
    "regression",
]


def raw_of(kind: str, rng: np.random.Generator, rows: int = 5, columns: int = 4) -> np.ndarray:
    values = rng.normal(size=(rows, 1 if kind.startswith("binary") else columns)).astype(np.float32) * 3
    if kind in ("probabilities", "log_probabilities"):
        exp = np.exp(values)
        values = exp / exp.sum(-1, keepdims=True)
        return np.log(values) if kind == "log_probabilities" else values
    return 1 / (1 + np.exp(-values)) if kind.endswith("probabilities") else values


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 1000))
def test_the_normal_form_says_the_same_as_the_output(kind: str, seed: int) -> None:
    raw = raw_of(kind, np.random.default_rng(seed))
    back = in_kind(normal_form(raw, kind), kind)
    if kind == "logits":  # known up to what is added to all of a row's
        back, raw = (each - each.mean(-1, keepdims=True) for each in (back, raw))
    np.testing.assert_allclose(back, raw, atol=1e-4, rtol=1e-3)


def test_a_softmax_head_is_no_logits() -> None:
    # keras.distillation takes these for logits, and would teach softmax([.98, .01, .01]) = [.57, .21, .21].
    probabilities = np.array([[0.98, 0.01, 0.01]], np.float32)
    np.testing.assert_allclose(np.exp(normal_form(probabilities, "probabilities")), probabilities, rtol=1e-5)


@given(seed=st.integers(0, 1000))
def test_classes_in_the_second_axis_come_last_and_go_back(seed: int) -> None:
    raw = np.random.default_rng(seed).normal(size=(2, 3, 5)).astype(np.float32)
    normal = normal_form(raw, "logits", axis=1)
    assert normal.shape == (2, 5, 3)
    np.testing.assert_allclose(np.exp(normal).sum(-1), 1, rtol=1e-5)
    assert in_kind(normal, "logits", axis=1).argmax(1).tolist() == raw.argmax(1).tolist()


def test_where_classes_are_is_told_from_shapes() -> None:
    labels = np.zeros((2, 8, 8), np.int64)
    assert axis_of("logits", (5, 8, 8), labels) == 1
    assert axis_of("logits", (8, 8, 5), labels) == -1
    assert axis_of("logits", (5, 8, 8), None) == -1
    assert axis_of("regression", (5, 8, 8), labels) == -1


@pytest.mark.parametrize("kind", KINDS)
def test_several_teachers_say_the_mean_of_their_probabilities(kind: str) -> None:
    rng = np.random.default_rng(0)
    one, other = (raw_of(kind, rng) for _ in range(2))
    family = family_of(kind)
    together = mean_of([normal_form(one, kind), normal_form(other, kind)], family)
    as_probabilities = {"classes": "probabilities", "labels": "binary_probabilities", "values": "regression"}[family]
    apart = [in_kind(normal_form(each, kind), as_probabilities) for each in (one, other)]
    np.testing.assert_allclose(in_kind(together, as_probabilities), sum(apart) / 2, atol=1e-5)
    np.testing.assert_array_equal(mean_of([together], family), together)


def test_a_teacher_is_asked_once_for_each_row_in_whatever_batches_it_comes() -> None:
    x, asked = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32), []

    def ask(inputs: tuple[np.ndarray]) -> np.ndarray:
        asked.append(len(inputs[0]))
        return inputs[0].sum(1, keepdims=True)

    teacher = Remembered(ask)
    for rows in np.array_split(np.arange(20), 4):
        teacher((x[rows],))
    order = np.random.default_rng(1).permutation(20)
    np.testing.assert_allclose(teacher((x[order],))[:, 0], x[order].sum(1))
    assert asked == [5, 5, 5, 5]


def test_rows_that_never_come_back_are_not_kept() -> None:
    teacher = Remembered(lambda inputs: inputs[0], most=100_000)
    for seed in range(8):
        teacher((np.random.default_rng(seed).normal(size=(100, 1)),))
    assert not teacher.known


def test_what_is_known_stays_known_once_the_room_is_used_up() -> None:
    asked: list[int] = []
    teacher = Remembered(lambda inputs: asked.append(len(inputs[0])) or inputs[0], most=1000)
    first, second = (np.arange(4.0)[:, None] + shift for shift in (0, 10))
    for rows in (first, first, second, second, first):
        np.testing.assert_array_equal(teacher((rows,)), rows)
    assert asked == [4, 4, 4]


def test_rows_are_known_by_content_and_shape() -> None:
    ids = np.arange(6).reshape(2, 3)
    (one, other) = row_keys({"ids": ids, "mask": np.ones_like(ids)})
    assert one != other
    assert row_keys({"ids": ids[:1], "mask": np.ones_like(ids[:1])}) == [one]
    assert row_keys((np.zeros((1, 2)),)) != row_keys((np.zeros((1, 3)),))


def test_pairs_of_layers() -> None:
    assert pairs_of(("a", "b = c")) == (("a", "a"), ("b", "c"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": 0},
        {"alpha": 0},
        {"alpha": 1.1},
        {"method": "x"},
        {"method": "decoupled", "kind": "regression"},
        {"beta": -1},
    ],
)
def test_values_out_of_range_are_refused(wrong: dict) -> None:
    with pytest.raises(OptionError):
        Teacher(lambda inputs: inputs, **{"kind": "logits", **wrong})
