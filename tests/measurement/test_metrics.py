from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from nbopt.errors import DataError, OptionError
from nbopt.frameworks import OutputKind
from nbopt.measurement.metrics import METRICS, metric_of

CLASSIFICATION = [name for name, metric in METRICS.items() if metric.needs != "values"]
REGRESSION = [name for name, metric in METRICS.items() if metric.needs == "values"]


@st.composite
def binary(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels of both classes, scores with many ties, weights."""
    n = draw(st.integers(2, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    y = rng.integers(0, 2, n)
    y[:2] = 0, 1
    scores = np.round(rng.random(n), draw(st.sampled_from([1, 2, 8])))
    return y, np.clip(scores, 1e-6, 1 - 1e-6), rng.random(n) + 0.1


@st.composite
def several(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels in which each of 3 to 6 classes occurs, probabilities, weights."""
    classes = draw(st.integers(3, 6))
    n = draw(st.integers(2 * classes, 80))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    y = rng.integers(0, classes, n)
    y[:classes] = np.arange(classes)
    return y, rng.dirichlet(np.ones(classes), n), rng.random(n) + 0.1


BINARY: dict[str, Callable[..., float]] = {
    "accuracy": lambda y, s, w: reference.accuracy_score(y, s > 0.5, sample_weight=w),
    "balanced_accuracy": lambda y, s, w: reference.balanced_accuracy_score(y, s > 0.5, sample_weight=w),
    "auc": lambda y, s, w: reference.roc_auc_score(y, s, sample_weight=w),
    "average_precision": lambda y, s, w: reference.average_precision_score(y, s, sample_weight=w),
    "f1": lambda y, s, w: reference.f1_score(y, s > 0.5, sample_weight=w, zero_division=0),
    "log_loss": lambda y, s, w: reference.log_loss(y, s, sample_weight=w, labels=[0, 1]),
}
SEVERAL: dict[str, Callable[..., float]] = {
    "accuracy": lambda y, s, w: reference.accuracy_score(y, s.argmax(1), sample_weight=w),
    "balanced_accuracy": lambda y, s, w: reference.balanced_accuracy_score(y, s.argmax(1), sample_weight=w),
    "auc": lambda y, s, w: reference.roc_auc_score(y, s, multi_class="ovr", sample_weight=w),
    "average_precision": lambda y, s, w: reference.average_precision_score(np.eye(s.shape[1])[y], s, sample_weight=w),
    "f1": lambda y, s, w: reference.f1_score(y, s.argmax(1), average="macro", sample_weight=w, zero_division=0),
    "log_loss": lambda y, s, w: reference.log_loss(y, s, sample_weight=w),
}
VALUES: dict[str, Callable[..., float]] = {
    "rmse": lambda y, s, w: reference.root_mean_squared_error(y, s, sample_weight=w),
    "mae": lambda y, s, w: reference.mean_absolute_error(y, s, sample_weight=w),
    "r2": lambda y, s, w: reference.r2_score(y, s, sample_weight=w),
}


def test_every_named_metric_has_a_reference() -> None:
    assert set(BINARY) == set(SEVERAL) == set(CLASSIFICATION)
    assert set(VALUES) == set(REGRESSION)


@pytest.mark.parametrize("name", CLASSIFICATION)
@given(case=binary(), weighted=st.booleans())
@settings(max_examples=40)
def test_binary_as_scikit_learn(name: str, case: Any, weighted: bool) -> None:
    y, scores, weight = case
    w = weight if weighted else None
    metric = metric_of(name, output="binary_probabilities")
    assert metric(y, scores, w) == pytest.approx(BINARY[name](y, scores, w), abs=1e-9)
    two_columns = np.stack([1 - scores, scores], axis=1)
    assert metric(y, two_columns, w) == pytest.approx(BINARY[name](y, scores, w), abs=1e-9)


@pytest.mark.parametrize("name", CLASSIFICATION)
@given(case=several(), weighted=st.booleans())
@settings(max_examples=40)
def test_classes_as_scikit_learn(name: str, case: Any, weighted: bool) -> None:
    y, scores, weight = case
    w = weight if weighted else None
    assert metric_of(name, output="probabilities")(y, scores, w) == pytest.approx(SEVERAL[name](y, scores, w), abs=1e-9)


@pytest.mark.parametrize("name", REGRESSION)
@given(seed=st.integers(0, 2**32), n=st.integers(2, 60), weighted=st.booleans())
@settings(max_examples=40)
def test_values_as_scikit_learn(name: str, seed: int, n: int, weighted: bool) -> None:
    rng = np.random.default_rng(seed)
    y, predicted = rng.normal(size=n) * 10 + 100, rng.normal(size=n) * 10 + 100
    w = rng.random(n) + 0.1 if weighted else None
    expected = VALUES[name](y, predicted, w)
    assert metric_of(name, output="regression")(y, predicted, w) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", ["accuracy", "auc", "average_precision", "f1"])
def test_multilabel_as_scikit_learn(name: str) -> None:
    rng = np.random.default_rng(3)
    y, scores = rng.integers(0, 2, (80, 4)), rng.random((80, 4))
    expected = {
        "accuracy": lambda: reference.accuracy_score(y, scores > 0.5),
        "auc": lambda: reference.roc_auc_score(y, scores),
        "average_precision": lambda: reference.average_precision_score(y, scores),
        "f1": lambda: reference.f1_score(y, scores > 0.5, average="macro"),
    }
    assert metric_of(name, output="multilabel_probabilities")(y, scores) == pytest.approx(expected[name]())


@given(case=binary())
@settings(max_examples=40)
def test_auc_is_the_share_of_ordered_pairs(case: Any) -> None:
    y, scores, _ = case
    difference = scores[y == 1][:, None] - scores[y == 0][None, :]
    expected = ((difference > 0) + 0.5 * (difference == 0)).mean()
    assert metric_of("auc", output="binary_probabilities")(y, scores) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", list(METRICS))
def test_influence_is_the_derivative_by_each_weight(name: str) -> None:
    rng = np.random.default_rng(5)
    n, step = 30, 1e-5
    for case in range(3):
        weight = rng.random(n) + 0.2
        if name in REGRESSION:
            y: np.ndarray = rng.normal(size=(n, 2) if case else n)
            scores, kind = y + rng.normal(size=y.shape), "regression"
        elif case == 0:
            y, scores, kind = rng.integers(0, 2, n), np.round(rng.random(n), 1), "binary_probabilities"
        elif case == 1 or name == "balanced_accuracy":
            y, scores, kind = rng.integers(0, 4, n), rng.dirichlet(np.ones(4), n), "probabilities"
        else:
            y, scores, kind = rng.integers(0, 2, (n, 3)), rng.random((n, 3)), "multilabel_probabilities"
        metric = metric_of(name, output=kind)  # type: ignore[arg-type]
        scored = metric.align(y, scores, weight)
        assert metric.formula is not None
        for row in range(n):
            up, down = weight.copy(), weight.copy()
            up[row] += step
            down[row] -= step
            rise = metric.formula(scored.y, scored.scores, up).value
            slope = (rise - metric.formula(scored.y, scored.scores, down).value) / (2 * step)
            assert weight[row] * slope == pytest.approx(metric.weighed(scored).influence[row], abs=1e-8)


@pytest.mark.parametrize("name", list(METRICS))
def test_whole_weights_count_rows_several_times(name: str) -> None:
    rng = np.random.default_rng(8)
    kind: OutputKind = "regression" if name in REGRESSION else "probabilities"
    y: np.ndarray = rng.normal(size=50) if kind == "regression" else rng.integers(0, 3, 50)
    scores = rng.normal(size=50) if kind == "regression" else rng.dirichlet(np.ones(3), 50)
    weight = rng.integers(1, 4, 50)
    metric = metric_of(name, output=kind)
    assert metric(y, scores, weight) == pytest.approx(metric(np.repeat(y, weight), np.repeat(scores, weight, axis=0)))


@pytest.mark.parametrize("name", ["accuracy", "log_loss", "rmse", "mae"])
def test_rows_average_to_the_metric(name: str) -> None:
    rng = np.random.default_rng(2)
    kind: OutputKind = "regression" if name in REGRESSION else "probabilities"
    y: np.ndarray = rng.normal(size=40) if kind == "regression" else rng.integers(0, 3, 40)
    scores = rng.normal(size=40) if kind == "regression" else rng.dirichlet(np.ones(3), 40)
    metric = metric_of(name, output=kind)
    rows = metric.per_row(y, scores)
    assert rows is not None
    mean = rows.mean() ** 0.5 if name == "rmse" else rows.mean()
    assert metric(y, scores) == pytest.approx(mean)


def test_metrics_that_are_no_mean_have_no_rows() -> None:
    assert metric_of("auc", output="binary_probabilities").per_row([0, 1], [0.2, 0.9]) is None


def test_a_class_that_does_not_occur_counts_nowhere() -> None:
    scores = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1]])
    for name in ("auc", "average_precision", "balanced_accuracy", "f1"):
        assert metric_of(name, output="probabilities")([0, 1, 0, 1], scores) == 1.0


def test_inferred_metrics() -> None:
    assert metric_of(None, output="logits").name == "accuracy"
    assert metric_of(None, output="regression").name == "rmse"
    assert not metric_of(None, output="regression").greater_is_better
    assert metric_of(metric_of("f1", output="logits"), output="binary_logits").output == "binary_logits"


def test_a_users_function() -> None:
    def top_half(y_true: np.ndarray, y_score: np.ndarray) -> float:
        return float((y_score[y_true == 1] > 0.5).mean())

    metric = metric_of(top_half, output="binary_probabilities")
    assert (metric.name, metric.greater_is_better, metric.bounded) == ("top_half", True, False)
    assert metric([0, 1, 1], [0.9, 0.9, 0.1]) == 0.5
    with pytest.raises(DataError, match="sample_weight=None"):
        metric([0, 1, 1], [0.9, 0.9, 0.1], [1, 2, 3])


def test_a_users_function_may_take_weights_and_be_a_loss() -> None:
    def loss(y_true: np.ndarray, y_score: np.ndarray, sample_weight: np.ndarray | None = None) -> float:
        return float(np.average((y_true - y_score) ** 2, weights=sample_weight))

    loss.greater_is_better = False  # type: ignore[attr-defined]
    metric = metric_of(loss, output="binary_probabilities")
    assert not metric.greater_is_better
    assert metric([0, 1], [0.5, 0.0], [1.0, 3.0]) == pytest.approx(0.8125)


def a_stickler(y_true: Any, y_score: Any) -> float:
    if y_score.ndim != 1 or (y_score != y_score.round()).any():
        raise ValueError("Classification metrics can't handle a mix of binary and continuous targets")
    return 1.0


@pytest.mark.parametrize(
    ("output", "scores", "told"),
    [
        ("binary_logits", np.array([0.2, 0.8]), "y_score > 0.5 where classes"),
        ("logits", np.array([[0.2, 0.8], [0.6, 0.4]]), "y_score[:, 1] for the probability of class 1"),
        ("logits", np.full((2, 3), 1 / 3), "y_score.argmax(-1)"),
        ("multilabel_logits", np.full((2, 2), 0.3), "y_score > 0.5 where labels"),
        ("regression", np.array([0.2, 0.8]), "the model's values"),
    ],
)
def test_a_users_function_that_raises_is_told_what_scores_are(output: Any, scores: Any, told: str) -> None:
    y = np.eye(2) if output.startswith("multilabel") else np.array([0, 1])
    with pytest.raises(DataError, match="mix of binary") as caught:
        metric_of(a_stickler, output=output)(y, scores)
    assert told in caught.value.do
    assert str(scores.shape) in caught.value.expected


def test_a_users_function_must_give_a_number() -> None:
    with pytest.raises(OptionError, match="one number from"):
        metric_of(lambda y, s: "good", output="logits")([0, 1], [[1.0, 0.0], [0.0, 1.0]])
    with pytest.raises(DataError, match="a number from"):
        metric_of(lambda y, s: float("nan"), output="logits")([0, 1], [[1.0, 0.0], [0.0, 1.0]])


@pytest.mark.parametrize(
    ("spec", "output", "words"),
    [
        ("acuracy", "logits", "did you mean 'accuracy'?"),
        ("rmse", "logits", "taken as logits"),
        ("auc", "regression", "rmse, mae, r2"),
        ("balanced_accuracy", "multilabel_logits", "several labels a row"),
        (3, "logits", "a function f(y_true, y_score)"),
    ],
)
def test_a_metric_that_can_not_be(spec: Any, output: Any, words: str) -> None:
    with pytest.raises(OptionError) as caught:
        metric_of(spec, output=output)
    assert words in str(caught.value)


@pytest.mark.parametrize("name", ["auc", "average_precision"])
def test_one_class_only_is_named(name: str) -> None:
    for y in ([1, 1, 1], [0, 0, 0]):
        with pytest.raises(DataError, match=f"3 rows, all of class {y[0]}"):
            metric_of(name, output="binary_probabilities")(y, [0.1, 0.5, 0.7])
    with pytest.raises(DataError, match="all of class 2"):
        metric_of("auc", output="probabilities")([2, 2], [[0.2, 0.3, 0.5], [0.1, 0.1, 0.8]])


def test_constant_targets_have_no_r2() -> None:
    with pytest.raises(DataError, match="constant targets"):
        metric_of("r2", output="regression")([0.1] * 7, np.arange(7.0))


def test_metrics_need_neither_sklearn_nor_scipy() -> None:
    import subprocess
    import sys

    code = (
        "import sys, nbopt.measurement.metrics, nbopt.measurement.statistics, nbopt.measurement.paired\n"
        "assert not {'sklearn', 'scipy', 'torch', 'tensorflow', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
