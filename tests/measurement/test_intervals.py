from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from nbopt.errors import DataError
from nbopt.measurement.distributions import binomial_half_tail, t_quantile, t_tail
from nbopt.measurement.intervals import (
    Interval,
    difference_of,
    mcnemar_exact,
    mcnemar_of_counts,
    paired_proportions,
    round_to_interval,
    wilson,
)


@given(t=st.floats(0, 50), degrees=st.floats(1, 1e7))
def test_t_as_scipy(t: float, degrees: float) -> None:
    assert t_tail(t, degrees) == pytest.approx(stats.t.sf(t, degrees), rel=1e-4, abs=1e-8)


@given(p=st.floats(0.5, 0.9999), degrees=st.floats(1, 1e5))
def test_t_quantile_as_scipy(p: float, degrees: float) -> None:
    assert t_quantile(p, degrees) == pytest.approx(stats.t.ppf(p, degrees), rel=1e-6, abs=1e-7)


@given(n=st.integers(0, 3000), share=st.floats(0, 1))
def test_binomial_as_scipy(n: int, share: float) -> None:
    k = round(share * n)
    assert binomial_half_tail(k, n) == pytest.approx(stats.binom.cdf(k, n, 0.5), rel=1e-8, abs=1e-300)


@given(gained=st.integers(0, 300), lost=st.integers(0, 300))
def test_mcnemar_as_the_exact_binomial_test(gained: int, lost: int) -> None:
    expected = stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert mcnemar_of_counts(gained, lost) == pytest.approx(expected, rel=1e-8)


def test_mcnemar_counts_the_rows_that_differ() -> None:
    a = np.array([1, 1, 1, 1, 1, 1, 0, 0], dtype=bool)
    b = np.array([0, 0, 0, 0, 0, 0, 0, 1], dtype=bool)
    assert mcnemar_exact(a, b) == pytest.approx(2 * 8 / 2**7)
    assert mcnemar_exact(a, a) == 1.0
    with pytest.raises(DataError, match="8 and 2 rows"):
        mcnemar_exact(a, b[:2])


def test_mcnemar_of_a_million_rows() -> None:
    rng = np.random.default_rng(0)
    p = mcnemar_exact(rng.random(1_000_000) < 0.5, rng.random(1_000_000) < 0.5)
    assert 0 < p <= 1
    assert mcnemar_of_counts(600_000, 400_000) == 0.0


@given(total=st.integers(1, 5000), share=st.floats(0, 1), level=st.sampled_from([0.9, 0.95, 0.99]))
def test_wilson_as_scipy(total: int, share: float, level: float) -> None:
    right = round(share * total)
    expected = stats.binomtest(right, total).proportion_ci(level, method="wilson")
    interval = wilson(right, total, level=level)
    assert interval.low == pytest.approx(expected.low, abs=1e-9)
    assert interval.high == pytest.approx(expected.high, abs=1e-9)
    assert interval.covers(interval.value)


def test_wilson_needs_a_row() -> None:
    with pytest.raises(DataError, match="at least one row"):
        wilson(0, 0)


def test_paired_proportions_at_both_ends() -> None:
    z2 = 1.959964**2
    none = paired_proportions(0, 0, 100)
    assert none.high == pytest.approx(z2 / (100 + z2), rel=1e-6)
    assert none.low == pytest.approx(-none.high)
    many = paired_proportions(600, 400, 10_000)
    wald = 1.959964 * math.sqrt(1000 - 200**2 / 10_000) / 10_000
    assert many.low == pytest.approx(0.02 - wald, abs=1e-4)
    assert many.high == pytest.approx(0.02 + wald, abs=1e-4)


def test_paired_proportions_solve_the_score_equation() -> None:
    gained, lost, total = 3, 9, 50
    interval = paired_proportions(gained, lost, total)
    for delta in (interval.low, interval.high):
        # The nuisance parameter by brute force: the value that maximizes the likelihood under this difference.
        q = np.linspace(max(0.0, -delta), (1 - delta) / 2, 200_001)[1:-1]
        with np.errstate(divide="ignore"):
            likelihood = gained * np.log(q + delta) + lost * np.log(q)
            likelihood += (total - gained - lost) * np.log1p(-2 * q - delta)
        best = q[np.argmax(likelihood)]
        z = (gained - lost - total * delta) / math.sqrt(total * (2 * best + delta - delta**2))
        assert abs(z) == pytest.approx(1.959964, abs=1e-3)


@given(gained=st.integers(0, 40), lost=st.integers(0, 40), rest=st.integers(0, 400), level=st.sampled_from([0.8, 0.95]))
def test_paired_proportions_mirror(gained: int, lost: int, rest: int, level: float) -> None:
    total = gained + lost + rest + 1
    one = paired_proportions(gained, lost, total, level=level)
    other = paired_proportions(lost, gained, total, level=level)
    assert one.low <= one.value <= one.high
    assert one.low == pytest.approx(-other.high, abs=1e-9)


@pytest.mark.parametrize(("gain", "loss"), [(0.001, 0.001), (0.01, 0.003), (0.1, 0.1)])
def test_paired_proportions_cover(gain: float, loss: float) -> None:
    rng = np.random.default_rng(4)
    counts = rng.multinomial(1000, [gain, loss, 1 - gain - loss], size=600)
    covered = [paired_proportions(int(g), int(x), 1000).covers(gain - loss) for g, x, _ in counts]
    assert np.mean(covered) >= 0.93


def test_interval_algebra() -> None:
    interval = Interval(2.0, 1.0, 4.0)
    assert interval.covers(1.0)
    assert interval.covers(4.0)
    assert not interval.covers(4.1)
    assert interval.overlaps(Interval(5, 4, 6))
    assert not interval.overlaps(Interval(5, 4.5, 6))
    assert interval.half_width == 1.5
    assert interval.relative_width == 1.5
    assert interval.scaled(-1) == Interval(-2.0, -4.0, -1.0)
    assert Interval(0.0, 0.0, 0.0).exact


@pytest.mark.parametrize(
    ("value", "half_width", "text"),
    [
        (3.1234, 0.15, "3.1"),
        (3.1234, 0.1, "3.1"),
        (3.1234, 0.099, "3.12"),
        (1234.5, 30.0, "1230"),
        (1234.5, 3.0, "1234"),
        (0.00123456, 0.00002, "0.00123"),
        (-0.004, 0.1, "0.0"),
        (3.1234, 0.0, "3.12"),
        (0.0, 0.0, "0"),
        (3.1234, math.inf, "?"),
        (math.nan, 0.1, "?"),
    ],
)
def test_no_more_digits_than_the_interval_supports(value: float, half_width: float, text: str) -> None:
    assert round_to_interval(value, half_width) == text


def test_an_interval_in_words() -> None:
    assert Interval(3.12, 2.97, 3.31).text() == "3.1 [3.0, 3.3]"
    assert Interval(-0.104, -0.31, 0.12).text(sign=True) == "-0.1 [-0.3, +0.1]"
    assert Interval(1.04, 0.5, math.inf).text() == "1.0 [0.5, ∞]"
    assert Interval(70.4, 61.0, math.inf).text() == "70 [61, ∞]"
    assert Interval(70.4, 0.0, 73.0).text() == "70 [0, 70]"


def test_no_digit_of_what_is_wholly_open() -> None:
    for unknown in (Interval(1.04, 0.0, math.inf), Interval(-0.2, -math.inf, math.inf)):
        assert unknown.unknown
        assert unknown.text().startswith("? [")
    assert not Interval(1.04, 0.5, math.inf).unknown
    assert not Interval(1.04, 0.0, 2.0).unknown


@given(value=st.floats(-1e6, 1e6), half=st.floats(1e-6, 1e6))
def test_rounding_stays_within_the_interval(value: float, half: float) -> None:
    assert abs(float(round_to_interval(value, half)) - value) <= 0.5 * half * (1 + 1e-6)


def test_a_difference_of_two_samples_is_newcombes() -> None:
    # Newcombe 1998, table II, method 10: 56/70 and 48/80.
    found = difference_of(wilson(56, 70), wilson(48, 80))
    assert found.value == pytest.approx(0.2)
    assert (found.low, found.high) == (pytest.approx(0.0524, abs=5e-5), pytest.approx(0.3339, abs=5e-5))
    turned = difference_of(wilson(48, 80), wilson(56, 70))
    assert (turned.low, turned.high) == (pytest.approx(-found.high), pytest.approx(-found.low))


def test_a_difference_of_two_samples_covers_as_promised() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(2000):
        one, other = rng.binomial(80, 0.9), rng.binomial(120, 0.7)
        covered += difference_of(wilson(one, 80), wilson(other, 120)).covers(0.2)
    assert 0.935 < covered / 2000 < 0.975
