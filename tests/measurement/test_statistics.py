from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbopt.errors import DataError
from nbopt.measurement.statistics import (
    Interval,
    median_interval,
    median_ratio,
    verdict_of_difference,
    verdict_of_ratio,
)

Noise = Callable[[np.random.Generator, int], np.ndarray]


def _runs(coefficient: float) -> Noise:
    def noise(rng: np.random.Generator, n: int) -> np.ndarray:
        shocks, series = rng.normal(size=n + 30), np.zeros(n + 30)
        for i in range(1, n + 30):
            series[i] = coefficient * series[i - 1] + shocks[i]
        return series[30:]

    return noise


NOISES: dict[str, Noise] = {
    "normal": lambda rng, n: rng.normal(size=n),
    "heavy tails": lambda rng, n: rng.standard_t(2, size=n),
    "cauchy": lambda rng, n: rng.standard_cauchy(size=n),
    "skewed": lambda rng, n: np.exp(rng.normal(size=n)) - 1,
    "runs": _runs(0.4),
}


@pytest.mark.parametrize(
    ("noise", "rounds"),
    [(name, n) for name in NOISES for n in (3, 5, 6, 8, 12, 20, 50, 200) if name != "runs" or n >= 20],
)
def test_the_median_ratio_is_covered(noise: str, rounds: int) -> None:
    rng = np.random.default_rng(11)
    truth, covered, trials = 1.3, 0, 400
    for _ in range(trials):
        variant = np.exp(0.3 * np.cumsum(rng.normal(size=rounds)))  # the machine drifts, for both alike
        baseline = truth * variant * np.exp(0.02 * NOISES[noise](rng, rounds))
        covered += median_ratio(baseline, variant).covers(truth)
    # Three standard errors of 400 trials at 95% are 3.3 points; runs are estimated from the same few rounds.
    assert covered / trials >= (0.89 if noise == "runs" else 0.917)


def test_an_interval_of_independent_rounds_is_not_wide() -> None:
    rng = np.random.default_rng(2)
    widths = [2 * median_interval(rng.normal(size=50)).half_width for _ in range(200)]
    ideal = 2 * 1.96 * math.sqrt(math.pi / 2 / 50)
    assert np.mean(widths) < 1.15 * ideal


def test_few_rounds_say_little() -> None:
    assert median_ratio([2.0], [1.0]) == Interval(2.0, 0.0, math.inf)
    two = median_ratio([2.0, 2.2], [1.0, 1.0])
    assert two.low < 1.6
    assert two.high > 2.7


@given(
    seed=st.integers(0, 2**32),
    rounds=st.integers(1, 60),
    scale=st.floats(1e-3, 1e6),
    level=st.sampled_from([0.8, 0.95]),
)
def test_ratios_mirror_and_know_no_units(seed: int, rounds: int, scale: float, level: float) -> None:
    rng = np.random.default_rng(seed)
    base, variant = rng.lognormal(size=rounds), rng.lognormal(size=rounds)
    one = median_ratio(base, variant, level=level)
    other = median_ratio(variant * scale, base * scale, level=level)
    assert one.low <= one.value <= one.high
    assert one.value * other.value == pytest.approx(1, rel=1e-9)
    if math.isfinite(one.high):
        assert one.low * other.high == pytest.approx(1, rel=1e-9)


def test_equal_times_are_exactly_one() -> None:
    assert median_ratio([3.0] * 9, [3.0] * 9) == Interval(1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("base", "variant"), [([], []), ([1.0, 2.0], [1.0]), ([0.0, 1.0], [1.0, 1.0]), ([math.nan], [1.0])]
)
def test_times_that_are_none(base: list[float], variant: list[float]) -> None:
    with pytest.raises(DataError):
        median_ratio(base, variant)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.0, 0.0, "identical"),
        (0.001, 0.02, "better"),
        (-0.005, 0.002, "same"),
        (-0.01, 0.0, "same"),
        (-0.009, -0.001, "slightly worse"),
        (-0.02, -0.001, "worse"),
        (-0.02, 0.002, "inconclusive"),
    ],
)
def test_verdict_of_difference(low: float, high: float, verdict: str) -> None:
    interval = Interval((low + high) / 2, low, high)
    assert verdict_of_difference(interval, margin=0.01) == verdict
    assert verdict_of_difference(interval.scaled(-1), margin=0.01, greater_is_better=False) == verdict


@given(value=st.floats(-1, 1), below=st.floats(0, 1), above=st.floats(0, 1), margin=st.floats(0, 0.5))
def test_no_loss_is_claimed_only_within_the_margin(value: float, below: float, above: float, margin: float) -> None:
    interval = Interval(value, value - below, value + above)
    verdict = verdict_of_difference(interval, margin=margin)
    if verdict in {"same", "slightly worse"}:
        assert interval.low >= -margin - 1e-9
    if verdict in {"same", "inconclusive", "identical"}:
        assert interval.covers(0)


@pytest.mark.parametrize(
    ("value", "low", "high", "contention", "verdict"),
    [
        (1.05, 1.03, 1.07, 1.0, "better"),
        (0.95, 0.93, 0.97, 1.0, "worse"),
        (1.0, 0.98, 1.02, 1.0, "same"),
        (1.015, 1.005, 1.03, 1.0, "same"),
        (1.035, 1.018, 1.05, 1.0, "inconclusive"),
        (1.0, 0.8, 1.3, 1.0, "inconclusive"),
        (1.3, 1.25, 1.35, 1.05, "better"),
        (1.3, 1.25, 1.35, 1.4, "inconclusive"),
        (3.0, 2.9, 3.1, 1.4, "better"),
        (3.0, 2.9, 3.1, 3.5, "inconclusive"),
        (1.0, 0.99, 1.01, 1.4, "inconclusive"),
        (2.0, 0.0, math.inf, 1.0, "inconclusive"),
    ],
)
def test_verdict_of_ratio(value: float, low: float, high: float, contention: float, verdict: str) -> None:
    assert verdict_of_ratio(Interval(value, low, high), contention=contention) == verdict


@pytest.mark.parametrize(
    ("value", "baseline", "variant", "verdict"),
    [
        (3.0, 1.0, 9.0, "better"),  # what waited was the faster side: it is faster still
        (3.0, 9.0, 1.0, "inconclusive"),
        (0.3, 9.0, 1.0, "worse"),
        (0.3, 1.0, 9.0, "inconclusive"),
        (1.3, 1.0, 1.4, "better"),
        (1.3, 1.4, 1.0, "inconclusive"),
        (1.0, 1.0, 1.2, "inconclusive"),
        (3.0, 1.0, math.inf, "better"),
        (3.0, math.inf, 1.0, "inconclusive"),
    ],
)
def test_waiting_makes_a_side_slower_and_never_faster(
    value: float, baseline: float, variant: float, verdict: str
) -> None:
    interval = Interval(value, value / 1.02, value * 1.02)
    assert verdict_of_ratio(interval, contention=baseline, variant_contention=variant) == verdict


@given(value=st.floats(0.2, 5), spread=st.floats(1, 2), contention=st.floats(1, 4))
def test_verdicts_of_ratios_mirror(value: float, spread: float, contention: float) -> None:
    opposite = {"better": "worse", "worse": "better", "same": "same", "inconclusive": "inconclusive"}
    there = Interval(value, value / spread, value * spread)
    back = Interval(1 / value, 1 / there.high, 1 / there.low)
    if all(abs(math.log(x) - math.log(edge)) > 1e-9 for x in (there.low, there.high) for edge in (0.95, 1.05)):
        assert verdict_of_ratio(back, contention=contention) == opposite[verdict_of_ratio(there, contention=contention)]


def test_a_small_real_gain_is_found_and_none_is_not() -> None:
    rng = np.random.default_rng(6)
    found = false = 0
    for _ in range(150):
        for truth in (1.05, 1.0):
            # As in a full measurement: rounds with 4% noise until the interval is 2% wide.
            ratios = truth * np.exp(0.04 * rng.standard_t(3, size=300))
            n = next((n for n in range(30, 300, 30) if median_ratio(ratios[:n], np.ones(n)).relative_width < 0.02), 300)
            verdict = verdict_of_ratio(median_ratio(ratios[:n], np.ones(n)))
            found += truth > 1 and verdict == "better"
            false += truth == 1 and verdict in {"better", "worse"}
    assert found >= 0.8 * 150
    assert false <= 0.05 * 150
