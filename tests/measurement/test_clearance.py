"""What rows that are all judged alike prove, given how far their scores moved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nbopt.measurement.clearance import MOST, clearance, units_moved
from nbopt.measurement.metrics import METRICS, metric_of
from nbopt.measurement.predictions import Scored
from nbopt.measurement.resampling import paired_difference

ROWS = 200
BOUNDED = [name for name, metric in METRICS.items() if metric.bounded]


def probabilities(odds: Any) -> Any:
    return 1 / (1 + np.exp(-np.asarray(odds)))


def judged_as(base: Scored) -> Callable[[Scored], bool]:
    return lambda scored: np.array_equal(scored.scores > 0.5, base.scores > 0.5)


@pytest.mark.parametrize(("shift", "wanted"), [(1.0, 1), (0.4, 1), (0.1, 10), (0.01, 100), (1e-9, MOST)])
@pytest.mark.parametrize("sign", [1, -1])
def test_differences_are_enlarged_until_a_row_is_judged_otherwise(shift: float, wanted: float, sign: int) -> None:
    # The nearest row is 1 from the decision; enlarged about the middle, half the differences go either way.
    odds = sign * np.array([1.0, 2.0, -3.0])
    base, variant = (Scored(np.array([1, 0, 1]), probabilities(x)) for x in (odds, odds + shift))
    assert clearance(judged_as(base), base, variant) == wanted


def test_rows_that_moved_away_from_the_decision_prove_nothing() -> None:
    odds = np.array([1.0, -1.0, 2.0])
    base, variant = (Scored(np.array([1, 0, 1]), probabilities(x)) for x in (odds, 3 * odds))
    assert clearance(judged_as(base), base, variant) == 1


def test_scores_that_did_not_move_show_nothing() -> None:
    base = Scored(np.zeros(4, dtype=int), np.array([0.1, 0.2, 0.3, 0.4]))
    variant = Scored(base.y, np.array([0.1, 0.2, 0.31, 0.41]))
    assert units_moved(base, variant, None) == 2
    assert units_moved(base, variant, np.array([0, 0, 1, 1])) == 1


@pytest.mark.parametrize("name", BOUNDED)
@pytest.mark.parametrize("kind", ["binary_logits", "logits", "multilabel_logits"])
def test_the_sixth_digit_is_no_loss_and_the_first_may_be(name: str, kind: Any) -> None:
    if name == "balanced_accuracy" and kind == "multilabel_logits":
        return  # not defined
    rng = np.random.default_rng(0)
    metric, width = metric_of(name, output=kind), 1 if kind == "binary_logits" else 3
    y = rng.integers(0, 2, (ROWS, width)) if "multi" in kind else rng.integers(0, max(2, width), ROWS)
    near = y * 6.0 - 3 if "multi" in kind else np.eye(3)[y] * 9 if width == 3 else y[:, None] * 6.0 - 3
    odds = near + rng.normal(size=(ROWS, width))
    noise = rng.normal(size=(ROWS, width))
    base, tiny, large = (probabilities(x) for x in (odds, odds + 1e-6 * noise, odds + 0.2 * noise))
    same = paired_difference(metric, y, base, tiny).interval
    assert same.value == 0
    assert 0 < same.high == -same.low < 1e-3
    apart = paired_difference(metric, y, base, large).interval
    assert apart.high - apart.low > 5 * same.high


@pytest.mark.parametrize("spread", [1.0, 4.0])
@pytest.mark.parametrize("shift", [0.001, 0.005, 0.02])
def test_the_bound_covers_the_true_change(spread: float, shift: float) -> None:
    """The variant's scores are all lower by one amount, so every row between loses; most of 200 rows see none."""
    rng = np.random.default_rng(1)
    large = spread * rng.normal(size=2_000_000)
    truth = -float(((large > 0) & (large <= shift)).mean())
    metric = metric_of("accuracy", output="binary_probabilities")
    missed = unchanged = 0
    for _ in range(400):
        odds = spread * rng.normal(size=ROWS)
        y = (odds > 0).astype(int)
        interval = paired_difference(metric, y, probabilities(odds), probabilities(odds - shift)).interval
        unchanged += interval.value == 0
        missed += not interval.covers(truth)
    assert missed <= 0.05 * 400
    assert unchanged > 0.05 * 400
