"""What figures say: ratios of times with an interval, and verdicts.

The one address for statistics: intervals and the bootstrap live in `intervals` and `resampling` and are
public from here too.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from nbopt.errors import DataError
from nbopt.measurement.distributions import binomial_half_tail, normal_cdf, normal_quantile, t_quantile
from nbopt.measurement.intervals import (
    Interval,
    decimals,
    difference_of,
    mcnemar_exact,
    paired_proportions,
    round_to_interval,
    wilson,
)
from nbopt.measurement.resampling import PairedDifference, paired_difference, quality_interval
from nbopt.measurement.scores import Floats

__all__ = [
    "DifferenceVerdict",
    "Interval",
    "PairedDifference",
    "RatioVerdict",
    "decimals",
    "difference_of",
    "doubted",
    "mcnemar_exact",
    "median_interval",
    "median_ratio",
    "paired_difference",
    "paired_proportions",
    "quality_interval",
    "round_to_interval",
    "verdict_of_difference",
    "verdict_of_ratio",
    "wilson",
]

DifferenceVerdict = Literal["identical", "better", "same", "slightly worse", "worse", "inconclusive"]
RatioVerdict = Literal["better", "same", "worse", "inconclusive"]

EQUIVALENCE = 0.02
"""Ratios of times within 2% of 1 are the same: two processes with the same artifact differ by as much through
the layout of their memory alone (Mytkowicz et al. 2009)."""

NARROW = 0.05
"""An interval that stays within 5% of 1 is narrow enough to say "same"."""

QUIET = 1.1
"""Up to this contention a machine counts as quiet: threads waited less than a tenth of what they ran."""

HOPELESS = 3.0
"""Beyond this contention a side's time says nothing but "at most": threads waited twice as long as they ran."""

_FEWEST_FOR_ORDER = 6  # fewer values can't give a 95% interval of order statistics
_FEWEST_FOR_CORRELATION = 8
_BATCHES = 6
_ROUNDING = 1e-12


def median_ratio(baseline_times: ArrayLike, variant_times: ArrayLike, *, level: float = 0.95) -> Interval:
    """Return how many times faster the variant is: the median of paired ratios baseline / variant.

    Args:
        baseline_times: A time for each round, > 0, any unit.
        variant_times: The variant's time in the same rounds.
        level: Coverage.

    Returns:
        Interval of the median; see `median_interval`, applied to the logarithms of the ratios. One round
        gives (0, infinity).

    Raises:
        DataError: The two differ in length, are empty, or hold a time that is not positive.
    """
    base, variant = np.asarray(baseline_times, dtype=np.float64), np.asarray(variant_times, dtype=np.float64)
    if base.shape != variant.shape or base.ndim != 1 or not len(base):
        raise DataError(
            "as many times for both sides, one a round",
            f"{base.shape} and {variant.shape}",
            "pair the rounds",
        )
    if not (np.isfinite(base).all() and np.isfinite(variant).all() and (base > 0).all() and (variant > 0).all()):
        raise DataError("times above zero", "a time that is zero, negative or NaN", "time more calls at once")
    log = median_interval(np.log(base / variant), level=level)
    return Interval(math.exp(log.value), math.exp(log.low), math.exp(log.high) if log.high < 700 else math.inf, level)


def median_interval(values: ArrayLike, *, level: float = 0.95) -> Interval:
    """Return the median of values in the order they came, with an interval that assumes no distribution.

    From six values on it is the interval of order statistics, interpolated between two of them (Hettmansperger
    and Sheather 1986), which heavy tails don't hurt. Where values come in runs (a machine that is busy for a
    while) it is widened by the variance that the correlation adds. Below six values it is the wider of
    Student's interval and the range. A bootstrap of the median covers less than promised for few values.

    Args:
        values: Values (n,) in the order of measuring.
        level: Coverage.

    Raises:
        DataError: There are no values.
    """
    series = np.asarray(values, dtype=np.float64).reshape(-1)
    n = len(series)
    if not n:
        raise DataError("at least one value", "none", "measure at least one round")
    middle = float(np.median(series))
    if n == 1:
        return Interval(middle, -math.inf, math.inf, level)
    ordered = np.sort(series)
    wider = 2 * normal_cdf(normal_quantile(0.5 + level / 2) * math.sqrt(_inflation(series))) - 1
    if n >= _FEWEST_FOR_ORDER and 1 - 2 * binomial_half_tail(0, n) >= wider:
        low, high = _order_bounds(ordered, wider)
        return Interval(middle, low, high, level)
    reach = t_quantile(0.5 + level / 2, n - 1) * float(series.std(ddof=1)) / math.sqrt(n)
    mean = float(series.mean())
    return Interval(middle, min(float(ordered[0]), mean - reach), max(float(ordered[-1]), mean + reach), level)


def _order_bounds(ordered: Floats, level: float) -> tuple[float, float]:
    n = len(ordered)
    d = 1
    while d + 1 <= n // 2 and 1 - 2 * binomial_half_tail(d, n) >= level:
        d += 1
    # The pair (d, n - d + 1) covers at least `level`; the next pair inward covers less.
    outer, inner = 1 - 2 * binomial_half_tail(d - 1, n), 1 - 2 * binomial_half_tail(d, n)
    share = (outer - level) / (outer - inner) if outer > inner else 0.0
    inward = (n - d) * share / (d + (n - 2 * d) * share)
    low = (1 - inward) * ordered[d - 1] + inward * ordered[d]
    high = (1 - inward) * ordered[n - d] + inward * ordered[n - d - 1]
    return float(low), float(high)


def _inflation(series: Floats) -> float:
    """Return by how much correlation in time raises the variance of the median, >= 1.

    Two estimates of it, the larger of which counts. The values' ranks as a first-order autoregression (ranks, so that
    one outlier decides nothing), its coefficient corrected for the bias that it has in short series (Kendall 1954).
    And batches in a row, whose mean ranks scatter more than those of shuffled values would where the machine has
    better and worse seconds (batch means, Schmeiser 1982).
    """
    n = len(series)
    if n < _FEWEST_FOR_CORRELATION:
        return 1.0
    ranks: Floats = np.argsort(np.argsort(series, kind="stable"), kind="stable").astype(np.float64) - (n - 1) / 2
    return max(1.0, _autoregression(ranks), _batches(ranks))


def _autoregression(ranks: Floats) -> float:
    n = len(ranks)
    raw = float((ranks[1:] * ranks[:-1]).sum() / (ranks**2).sum())
    coefficient = min((n * raw + 1) / (n - 3), 0.95)
    if coefficient <= 0:
        return 1.0
    # The median's variance rests on signs, whose correlation at a lag is 2/pi asin of that of the values.
    return 1 + 2 * sum(2 / math.pi * math.asin(coefficient**lag) for lag in range(1, min(n, 60)))


def _batches(ranks: Floats) -> float:
    n = len(ranks)
    if n < _BATCHES * _FEWEST_FOR_ORDER:
        return 1.0
    size = n // _BATCHES
    means = ranks[n - size * _BATCHES :].reshape(_BATCHES, size).mean(axis=1)
    return float(size * means.var(ddof=1) / ranks.var())


def verdict_of_difference(interval: Interval, *, margin: float, greater_is_better: bool = True) -> DifferenceVerdict:
    """Return what a difference of quality says, as a statement of non-inferiority.

    Args:
        interval: Variant minus baseline, from `paired_difference`.
        margin: Largest loss that is still acceptable (`--max-drop`), >= 0, in the metric's unit.
        greater_is_better: Direction of the metric.

    Returns:
        identical: not one row changed. better: the whole interval is a gain. same: it covers zero and at
        worst loses no more than the margin. slightly worse: the whole interval is a loss, within the
        margin. worse: the whole interval is a loss and may exceed the margin. inconclusive: it covers zero
        and may exceed the margin.
    """
    if interval.low == interval.high == 0:
        return "identical"
    worst, best = (interval.low, interval.high) if greater_is_better else (-interval.high, -interval.low)
    within = worst >= -margin - _ROUNDING
    if worst > 0:
        return "better"
    if best < 0:
        return "slightly worse" if within else "worse"
    return "same" if within else "inconclusive"


def verdict_of_ratio(
    interval: Interval,
    *,
    contention: float = 1.0,
    variant_contention: float | None = None,
    equivalence: float = EQUIVALENCE,
    narrow: float = NARROW,
) -> RatioVerdict:
    """Return what a ratio baseline / variant of times (or sizes, or memory) says of the variant.

    Args:
        interval: From `median_ratio`; above 1 the variant is faster.
        contention: How much longer the baseline's threads took than they ran, >= 1, where the interval does not hold
            that yet: see `doubted`.
        variant_contention: The same of the variant; None: as the baseline's.
        equivalence: Relative difference that means nothing, default 2%.
        narrow: How far the interval of "same" may reach from 1, default 5%.

    Returns:
        better or worse: the whole interval lies beyond the equivalence. same: the estimate lies within it and
        the interval is narrow. Else inconclusive.
    """
    held = doubted(interval, contention, contention if variant_contention is None else variant_contention)
    if held.low > 1 + equivalence:
        return "better"
    if held.high < 1 / (1 + equivalence):
        return "worse"
    near = 1 / (1 + equivalence) <= held.value <= 1 + equivalence
    return "same" if near and held.low >= 1 / (1 + narrow) and held.high <= 1 + narrow else "inconclusive"


def doubted(interval: Interval, baseline: float = 1.0, variant: float = 1.0) -> Interval:
    """Return the interval of a ratio baseline / variant of times with what other load may have done in it.

    Contention up to 1.1 is a quiet machine. Above that the interval is widened by it, since waiting may have hit one
    side alone. Waiting only ever lengthens: that of the baseline makes a ratio too large, so that the lower bound
    falls by it, and that of the variant makes it too small. Above 3 a side's bound says nothing: it is 0, or infinity.

    Args:
        interval: From `median_ratio`.
        baseline: How much longer the baseline's threads took than they ran, >= 1.
        variant: The same of the variant.
    """
    return dataclasses.replace(interval, low=interval.low / _doubt(baseline), high=interval.high * _doubt(variant))


def _doubt(contention: float) -> float:
    """Return by which factor a side's time may be too long."""
    if contention > HOPELESS:
        return math.inf
    return contention if contention > QUIET else 1.0
