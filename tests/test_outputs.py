"""What a model's output means is inferred from its form, its labels and its loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nbopt.errors import DataError
from nbopt.outputs import infer_output

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(8, 3))
SOFTMAX = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
CLASSES = np.array([0, 1, 2, 0, 1, 2, 0, 1])
BINARY = CLASSES % 2
COLUMN = RNG.normal(size=(8, 1)) * 3

CASES: dict[str, tuple[Any, Any, str]] = {
    "logits": (LOGITS, CLASSES, "logits"),
    "logits, int32 labels": (LOGITS, CLASSES.astype(np.int32), "logits"),
    "logits, whole floats as labels": (LOGITS, CLASSES.astype(np.float32), "logits"),
    "logits, labels in a column": (LOGITS, CLASSES[:, None], "logits"),
    "logits, one-hot labels": (LOGITS, np.eye(3)[CLASSES], "logits"),
    "probabilities": (SOFTMAX, CLASSES, "probabilities"),
    "probabilities in half precision": (SOFTMAX.astype(np.float16), CLASSES, "probabilities"),
    "log probabilities": (np.log(SOFTMAX), CLASSES, "log_probabilities"),
    "one logit": (COLUMN, BINARY, "binary_logits"),
    "one logit without an axis": (COLUMN[:, 0], BINARY, "binary_logits"),
    "one logit, float labels in a column": (COLUMN, BINARY[:, None].astype(np.float32), "binary_logits"),
    "one logit, bool labels": (COLUMN, BINARY.astype(bool), "binary_logits"),
    "one logit, a batch without positives": (COLUMN, np.zeros(8), "binary_logits"),
    "one probability": (1 / (1 + np.exp(-COLUMN)), BINARY, "binary_probabilities"),
    "several labels": (LOGITS, np.array([[1, 1, 0]] * 8), "multilabel_logits"),
    "several labels' probabilities": (1 / (1 + np.exp(-LOGITS)), np.array([[1, 1, 0]] * 8), "multilabel_probabilities"),
    "one value": (COLUMN, RNG.normal(size=8), "regression"),
    "one value, labels in a column": (COLUMN, RNG.normal(size=(8, 1)), "regression"),
    "counts": (COLUMN, CLASSES, "regression"),
    "several values": (LOGITS, RNG.normal(size=(8, 3)), "regression"),
    "tokens": (RNG.normal(size=(4, 5, 3)), RNG.integers(0, 3, (4, 5)), "logits"),
    "no labels": (LOGITS, None, "regression"),
    "no labels, probabilities": (SOFTMAX, None, "probabilities"),
}


@pytest.mark.parametrize("case", CASES)
def test_inferred(case: str) -> None:
    raw, labels, kind = CASES[case]
    found, reason = infer_output(raw, labels, None)
    assert found == kind
    assert reason


def test_what_is_declared_is_believed() -> None:
    assert infer_output(COLUMN, CLASSES, "binary_logits")[0] == "binary_logits"


@pytest.mark.parametrize("labels", [CLASSES + 0.5, RNG.normal(size=(8, 2))])
def test_fractions_are_no_classes(labels: Any) -> None:
    with pytest.raises(DataError, match="whole numbers from 0 to 2") as caught:
        infer_output(LOGITS, labels, None)
    assert "float64" in caught.value.came


def test_text_is_no_class() -> None:
    with pytest.raises(DataError, match="encode text"):
        infer_output(LOGITS, ["cat"] * 8, None)


PIXELS = RNG.normal(size=(4, 3, 5, 6))
MASK = (RNG.random((4, 1, 5, 6)) > 0.5).astype(np.float32)

READ: dict[str, tuple[Any, Any, Any, str]] = {
    "classes in the second axis": (PIXELS, RNG.integers(0, 3, (4, 5, 6)), None, "logits"),
    "their probabilities": (
        np.exp(PIXELS) / np.exp(PIXELS).sum(1, keepdims=True),
        RNG.integers(0, 3, (4, 5, 6)),
        None,
        "probabilities",
    ),
    "a mask": (RNG.normal(size=MASK.shape), MASK, None, "binary_logits"),
    "a mask's probabilities": (RNG.random(MASK.shape), MASK, None, "binary_probabilities"),
    "several counts": (LOGITS, RNG.integers(0, 9, (8, 3)).astype(np.float32), None, "regression"),
    "a binary loss over several labels": (LOGITS, np.array([[1, 1, 0]] * 8), "binary_logits", "multilabel_logits"),
    "a binary loss over a mask": (RNG.normal(size=MASK.shape), MASK, "binary_logits", "binary_logits"),
    "a sigmoid over a mask that is five wide": (
        RNG.random((4, 6, 5)),
        (RNG.random((4, 6, 5)) > 0.5).astype(np.float32),
        "multilabel_probabilities",
        "binary_probabilities",
    ),
    "a mask's one channel, labels without it": (RNG.normal(size=MASK.shape), MASK[:, 0], None, "binary_logits"),
    "one-hot labels of places": (
        RNG.random((4, 6, 3)),
        np.eye(3)[RNG.integers(0, 3, (4, 6))],
        "multilabel_probabilities",
        "multilabel_probabilities",
    ),
    "cross-entropy over a softmax": (SOFTMAX, CLASSES, "logits", "probabilities"),
    "a softmax that is not the output": (LOGITS, CLASSES, "probabilities", "logits"),
}


@pytest.mark.parametrize("case", READ)
def test_outputs_and_labels_correct_what_is_declared(case: str) -> None:
    raw, labels, declared, kind = READ[case]
    assert infer_output(raw, labels, declared)[0] == kind
