from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nbopt.errors import DataError
from nbopt.measurement.metrics import METRICS, metric_of
from nbopt.measurement.resampling import Spread, paired_difference, quality_interval

Case = tuple[np.ndarray, np.ndarray, np.ndarray]


def _classes(rng: np.random.Generator, n: int) -> Case:
    """A model of four uneven classes, and another whose logits carry noise."""
    y = rng.choice(4, n, p=[0.4, 0.3, 0.2, 0.1])
    logits = rng.normal(size=(n, 4))
    logits[np.arange(n), y] += 1.5

    def softmax(z: np.ndarray) -> np.ndarray:
        return np.exp(z) / np.exp(z).sum(1, keepdims=True)

    return y, softmax(logits), softmax(logits + 0.3 * rng.normal(size=(n, 4)))


def _two(rng: np.random.Generator, n: int) -> Case:
    y = (rng.random(n) < 0.3).astype(np.int64)
    z = rng.normal(size=n) + 1.5 * y - 1
    return y, 1 / (1 + np.exp(-z)), 1 / (1 + np.exp(-z - 0.3 * rng.normal(size=n)))


def _values(rng: np.random.Generator, n: int) -> Case:
    y, error = rng.normal(size=n), 0.5 * rng.standard_t(5, size=n)
    return y, y + error, y + 1.02 * error + 0.1 * rng.normal(size=n)


MODELS: dict[str, tuple[Callable[[np.random.Generator, int], Case], Any]] = {
    "classes": (_classes, "probabilities"),
    "two": (_two, "binary_probabilities"),
    "values": (_values, "regression"),
}
CASES = [
    (model, name)
    for name, metric in METRICS.items()
    for model in MODELS
    if (metric.needs == "values") == (model == "values")
]


@pytest.mark.parametrize(("model", "name"), CASES)
def test_intervals_cover_the_truth(model: str, name: str) -> None:
    draw, kind = MODELS[model]
    rng = np.random.default_rng(9)
    metric = metric_of(name, output=kind)
    y, base, variant = draw(rng, 200_000)
    value = metric(y, base)
    difference = metric(y, variant) - value
    trials, covered = 300, np.zeros(2)
    for _ in range(trials):
        y, base, variant = draw(rng, 400)
        covered += (
            quality_interval(metric, y, base).covers(value),
            paired_difference(metric, y, base, variant).interval.covers(difference),
        )
    # 93% is promised; less than 91% of 300 trials would be luck once in two hundred.
    assert (covered / trials >= 0.91).all(), covered / trials


@pytest.mark.parametrize("name", ["accuracy", "balanced_accuracy", "f1", "auc", "log_loss"])
def test_equally_good_models_are_rarely_called_different(name: str) -> None:
    rng = np.random.default_rng(10)
    metric = metric_of(name, output="probabilities")
    trials, different = 200, 0
    for _ in range(trials):
        y, scores, _ = _classes(rng, 500)
        # The same model with two independent, equally large errors on few rows.
        noisy = [scores.copy(), scores.copy()]
        for one in noisy:
            rows = rng.choice(500, 10, replace=False)
            one[rows] = np.roll(one[rows], 1, axis=1)
        found = paired_difference(metric, y, *noisy)
        different += not found.interval.covers(0)
        assert (found.p < 0.05) == (not found.interval.covers(0)) or name == "accuracy"
    assert different <= 0.07 * trials


@pytest.mark.parametrize(("model", "name"), CASES)
def test_identical_scores_differ_by_exactly_nothing(model: str, name: str) -> None:
    draw, kind = MODELS[model]
    y, scores, _ = draw(np.random.default_rng(1), 100)
    found = paired_difference(metric_of(name, output=kind), y, scores, scores.copy())
    assert (found.interval.value, found.interval.low, found.interval.high, found.p) == (0, 0, 0, 1)
    assert found.method == "identical"


@pytest.mark.parametrize(("model", "name"), CASES)
def test_swapping_the_models_mirrors(model: str, name: str) -> None:
    draw, kind = MODELS[model]
    y, base, variant = draw(np.random.default_rng(1), 300)
    metric = metric_of(name, output=kind)
    there, back = paired_difference(metric, y, base, variant), paired_difference(metric, y, variant, base)
    assert there.interval.value == pytest.approx(metric(y, variant) - metric(y, base))
    assert there.interval.low == pytest.approx(-back.interval.high, abs=1e-9)
    assert there.p == pytest.approx(back.p)


@pytest.mark.parametrize("name", ["auc", "f1", "balanced_accuracy", "average_precision", "log_loss"])
def test_the_influence_agrees_with_the_bootstrap(name: str) -> None:
    rng = np.random.default_rng(4)
    y, base, variant = _classes(rng, 1000)
    metric = metric_of(name, output="probabilities")
    resampled = []
    for _ in range(300):
        rows = rng.integers(0, 1000, 1000)
        resampled.append(metric(y[rows], variant[rows]) - metric(y[rows], base[rows]))
    influence = metric.weighed(metric.align(y, variant)).influence - metric.weighed(metric.align(y, base)).influence
    assert Spread.of_influences(influence).error == pytest.approx(np.std(resampled), rel=0.15)


def test_accuracy_is_judged_by_mcnemar() -> None:
    y = np.zeros(200, dtype=int)
    base, variant = np.full(200, 0.2), np.full(200, 0.2)
    variant[:6] = 0.9
    found = paired_difference(metric_of("accuracy", output="binary_probabilities"), y, base, variant)
    assert found.method == "mcnemar"
    assert found.p == pytest.approx(2 / 2**6)
    assert found.interval.high < 0
    five = variant.copy()
    five[5] = 0.2
    found = paired_difference(metric_of("accuracy", output="binary_probabilities"), y, base, five)
    assert found.p > 0.05
    assert found.interval.covers(0), "the interval never contradicts the exact test"


@pytest.mark.parametrize("name", ["accuracy", "f1", "balanced_accuracy"])
def test_unchanged_labels_prove_only_so_much(name: str) -> None:
    y, base, _ = _two(np.random.default_rng(0), 1000)
    odds = np.log(base / (1 - base))
    variant = 1 / (1 + np.exp(-odds / 2))
    found = paired_difference(metric_of(name, output="binary_probabilities"), y, base, variant)
    assert found.interval.value == 0
    assert found.interval.high == pytest.approx(3.84 / 1003.84, rel=1e-3)
    assert found.interval.low == -found.interval.high
    assert found.p == 1


def test_a_perfect_score_is_not_certain() -> None:
    y = np.arange(50) % 2
    for name in ("accuracy", "auc", "f1", "average_precision", "balanced_accuracy"):
        interval = quality_interval(metric_of(name, output="binary_probabilities"), y, 0.1 + 0.8 * y)
        assert interval.value == interval.high == 1
        assert 0.9 < interval.low < 0.95


def test_bounded_metrics_stay_in_bounds() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        y, base, variant = _two(rng, 12)
        y[:2] = 0, 1
        for name in ("accuracy", "auc", "f1", "average_precision", "balanced_accuracy"):
            metric = metric_of(name, output="binary_probabilities")
            interval = quality_interval(metric, y, base)
            assert 0 <= interval.low <= interval.value <= interval.high <= 1
            difference = paired_difference(metric, y, base, variant).interval
            assert -1 <= difference.low <= difference.value <= difference.high <= 1


def test_tokens_of_one_sequence_are_not_independent() -> None:
    y, base, variant = _classes(np.random.default_rng(2), 400)
    metric = metric_of("accuracy", output="probabilities")
    y, base, variant = np.repeat(y, 5), np.repeat(base, 5, axis=0), np.repeat(variant, 5, axis=0)
    groups = np.repeat(np.arange(400), 5)
    naive = paired_difference(metric, y, base, variant).interval
    grouped = paired_difference(metric, y, base, variant, groups=groups).interval
    assert grouped.half_width == pytest.approx(naive.half_width * math.sqrt(5), rel=0.1)
    wide = quality_interval(metric, y, base, groups=groups)
    assert wide.half_width > 1.8 * quality_interval(metric, y, base).half_width


def test_weights_are_used() -> None:
    y, base, variant = _two(np.random.default_rng(5), 200)
    metric = metric_of("accuracy", output="binary_probabilities")
    weight = np.r_[np.ones(100), np.full(100, 1e-9)]
    half = paired_difference(metric, y[:100], base[:100], variant[:100]).interval
    assert paired_difference(metric, y, base, variant, weight=weight).interval.value == pytest.approx(half.value)


def test_a_users_function_is_resampled_the_same_way_each_time() -> None:
    def rmse(y: np.ndarray, values: np.ndarray) -> float:
        return float(np.sqrt(np.mean((y - values) ** 2)))

    y, base, variant = _values(np.random.default_rng(5), 300)
    own, named = metric_of(rmse, output="regression"), metric_of("rmse", output="regression")
    found = paired_difference(own, y, base, variant, rng=3)
    assert found == paired_difference(own, y, base, variant, rng=3)
    assert found.method == "bootstrap"
    expected = paired_difference(named, y, base, variant)
    assert found.interval.half_width == pytest.approx(expected.interval.half_width, rel=0.3)
    assert quality_interval(own, y, base).value == pytest.approx(named(y, base))


def test_a_users_function_may_refuse_some_resamples() -> None:
    def strict(y: np.ndarray, scores: np.ndarray) -> float:
        if len(np.unique(y)) < 2:
            raise ValueError("one class")
        return float(scores[y == 1].mean())

    y = np.r_[1, np.zeros(20, dtype=int)]
    scores = np.linspace(0.1, 0.9, 21)
    interval = quality_interval(metric_of(strict, output="binary_probabilities"), y, scores)
    assert interval.value == pytest.approx(0.1)


def test_impossible_comparisons_are_named() -> None:
    metric = metric_of("accuracy", output="probabilities")
    with pytest.raises(DataError, match="the baseline's output shape"):
        paired_difference(metric, [0, 1], np.eye(2), np.eye(3)[:2])
    with pytest.raises(DataError, match="at least two rows"):
        quality_interval(metric, [0], np.eye(2)[:1])
    with pytest.raises(DataError, match="a group for each"):
        quality_interval(metric, [0, 1], np.eye(2), groups=[1])
    with pytest.raises(DataError, match="all of class 1"):
        paired_difference(metric_of("auc", output="binary_probabilities"), [1, 1], [0.1, 0.2], [0.1, 0.2])
