"""Intervals of quality metrics, and of their differences on the same rows.

Accuracy of unweighted rows has closed forms that hold where only a handful of rows changed: Wilson's interval
for a value, Tango's for a difference, McNemar's exact test. All other named metrics rest on the influence of
each row (`weighted`), paired by subtracting the influences of the two models; simulation found that interval
closer to its promised coverage than a BCa bootstrap, at a thousandth of the cost. A user's own function is
resampled by the paired bootstrap.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nbopt.errors import DataError
from nbopt.large import any_of
from nbopt.measurement.clearance import clearance, units_moved
from nbopt.measurement.distributions import normal_quantile, t_quantile, t_tail
from nbopt.measurement.intervals import Interval, mcnemar_of_counts, paired_proportions, wilson
from nbopt.measurement.metrics import Metric
from nbopt.measurement.predictions import Ints, Scored
from nbopt.measurement.scores import Floats

Method = Literal["identical", "mcnemar", "influence", "bootstrap"]

RESAMPLES = 200
"""Bootstrap resamples of a user's function: its standard error is then known within 5%."""

_ROWS_RESAMPLED = 600_000  # rows times resamples above which resamples are saved
_FEWEST_RESAMPLES = 50
_FEWEST_DEFINED = 20


@dataclass(frozen=True)
class PairedDifference:
    """Hold how a variant's metric differs from its baseline's on the same rows.

    Args:
        interval: Variant minus baseline, in the metric's unit.
        p: Two-sided p-value of no difference.
        method: identical (the scores are the same numbers), mcnemar (interval of Tango, exact p of McNemar),
            influence (infinitesimal jackknife), or bootstrap (a user's function).
    """

    interval: Interval
    p: float
    method: Method


def paired_difference(
    metric: Metric,
    y: ArrayLike,
    scores_base: ArrayLike,
    scores_variant: ArrayLike,
    *,
    weight: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    rng: np.random.Generator | int = 0,
) -> PairedDifference:
    """Return variant minus baseline of a metric, with interval and p-value, from the same rows.

    Args:
        metric: From `metric_of`.
        y: Labels of the rows.
        scores_base: The baseline's scores, as `scores_to_probabilities` gives them.
        scores_variant: The variant's, for the same rows in the same order.
        weight: Row weights, or None.
        groups: Number of the sequence, patient or user that each row belongs to, where rows of one are not
            independent; None where all rows are.
        level: Coverage of the interval.
        resamples: Bootstrap resamples, for a user's function only. Above 3,000 rows they get fewer, so that
            rows times resamples stay below 600,000, but never below 50; Student's t accounts for it.
        rng: Generator or seed of the bootstrap.

    Returns:
        Exactly [0, 0] and p = 1 for identical scores. Where scores of n rows changed, but no row is judged otherwise
        than before, ±3.8/n for metrics in [0, 1], since n unchanged rows prove no more than that; less in proportion
        where the differences could be many times as large before any row is (see `clearance`).

    Raises:
        DataError: As `Metric.__call__`, or fewer than two rows or groups.
    """
    base, variant = metric.align(y, scores_base, weight), metric.align(y, scores_variant, weight)
    if base.scores.shape != variant.scores.shape:
        raise DataError(
            f"the baseline's output shape, {base.scores.shape}",
            f"{variant.scores.shape}",
            "the variant must give the same outputs as the baseline",
        )
    units = _Units.of(base, groups)
    if not any_of(np.not_equal, base.scores, variant.scores):
        metric.of(base)  # a metric that is undefined is an error for identical scores too
        return PairedDifference(Interval(0.0, 0.0, 0.0, level), 1.0, "identical")
    if metric.counts and metric.rows is not None and weight is None and units.index is None:
        right = metric.rows(base.y, base.scores) > 0, metric.rows(variant.y, variant.scores) > 0
        if np.array_equal(*right):
            margin = _unseen_change(metric, base, variant, units, level)
            return PairedDifference(Interval(0.0, -margin, margin, level), 1.0, "mcnemar")
        return _of_counts(*right, level)
    before, after = metric.weighed(base), metric.weighed(variant)
    value = after.value - before.value
    if metric.formula is None:
        errors = _resample(metric, (base, variant), units, resamples, rng)
        spread = Spread.of_resamples(errors[1] - errors[0], units.count)
    else:
        moved = after.influence - before.influence
        if metric.bounded and _is_rounding(moved, before.influence):
            moved = np.zeros_like(moved)
        spread = Spread.of_influences(units.sums(moved))
    if spread.error == 0:
        margin = _unseen_change(metric, base, variant, units, level) if metric.bounded else 0.0
        p = 1.0 if metric.bounded or value == 0 else 0.0
    else:
        margin, p = spread.reach(level), spread.p_value(value)
    outer = 1.0 if metric.bounded else math.inf
    interval = Interval(value, max(value - margin, -outer), min(value + margin, outer), level)
    return PairedDifference(interval, p, "bootstrap" if metric.formula is None else "influence")


def quality_interval(
    metric: Metric,
    y: ArrayLike,
    scores: ArrayLike,
    *,
    weight: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    rng: np.random.Generator | int = 0,
) -> Interval:
    """Return a metric's value with its interval.

    Wilson's for accuracy. Others are symmetric after a transformation that keeps them in range and takes out
    most of their skewness: the logit for what lies in [0, 1], the logarithm for losses and for 1 - r2. A user's
    function keeps its own scale.

    Args:
        metric: From `metric_of`.
        y: Labels of the rows.
        scores: As `scores_to_probabilities` gives them.
        weight: Row weights, or None.
        groups: As in `paired_difference`.
        level: Coverage of the interval.
        resamples: As in `paired_difference`.
        rng: As in `paired_difference`.

    Raises:
        DataError: As `Metric.__call__`, or fewer than two rows or groups.
    """
    scored = metric.align(y, scores, weight)
    units = _Units.of(scored, groups)
    if metric.counts and metric.rows is not None and weight is None and units.index is None:
        return wilson(float(metric.rows(scored.y, scored.scores).sum()), len(scored.y), level=level)
    found = metric.weighed(scored)
    value = found.value
    if metric.formula is None:
        (errors,) = _resample(metric, (scored,), units, resamples, rng)
        reach = Spread.of_resamples(errors, units.count).reach(level)
        return Interval(value, value - reach, value + reach, level)
    spread = Spread.of_influences(units.sums(found.influence))
    reach = spread.reach(level)
    if metric.bounded:
        if spread.error == 0 or not 0 < value < 1:
            margin = _unseen(units.count, level)
            return Interval(value, max(value - margin, 0.0), min(value + margin, 1.0), level)
        return _logit(value, reach, level)
    if metric.greater_is_better:  # r2
        loss = _logarithm(1 - value, reach, level)
        return Interval(value, 1 - loss.high, 1 - loss.low, level)
    return _logarithm(value, reach, level)


@dataclass(frozen=True)
class Spread:
    """Hold how far an estimate may be off.

    Args:
        error: Standard error.
        degrees: Degrees of freedom of Student's t that a multiple of the error is read from.
    """

    error: float
    degrees: float

    @classmethod
    def of_influences(cls, influences: Floats) -> Spread:
        """Return the spread of an estimate from the influences of its independent units.

        The degrees of freedom follow from the influences' kurtosis (Satterthwaite 1946): where all rest on `m`
        of many units, such as the rows on which two models differ, they are about 2m, not n - 1.
        """
        n = len(influences)
        squares = float((influences**2).sum())
        if squares == 0:
            return cls(0.0, n - 1)
        effective = 1 / float(((influences**2 / squares) ** 2).sum())
        degrees = 2 * effective / max(1 - effective / n, 1e-9)
        return cls(math.sqrt(squares * n / (n - 1)), min(max(degrees, 1.0), n - 1))

    @classmethod
    def of_resamples(cls, values: Floats, units: int) -> Spread:
        """Return the spread of an estimate from its bootstrap values (Efron 1979), NaN where undefined."""
        defined = values[~np.isnan(values)]
        if len(defined) < _FEWEST_DEFINED:
            return cls(math.inf, 1.0)
        return cls(float(defined.std(ddof=1)) * math.sqrt(units / (units - 1)), min(units, len(defined)) - 1)

    def reach(self, level: float) -> float:
        """Return half the width of the interval."""
        return 0.0 if self.error == 0 else self.error * t_quantile(0.5 + level / 2, self.degrees)

    def p_value(self, value: float) -> float:
        """Return the smallest 1 - level whose interval leaves out 0."""
        return min(1.0, 2 * t_tail(abs(value) / self.error, self.degrees))


@dataclass(frozen=True)
class _Units:
    """What is independent: rows, or groups of rows."""

    count: int
    index: Ints | None

    @classmethod
    def of(cls, scored: Scored, groups: ArrayLike | None) -> _Units:
        index = scored.groups
        if groups is not None:
            index = np.asarray(groups).reshape(-1)
            if len(index) != len(scored.y):
                raise DataError(f"a group for each of the {len(scored.y):,} rows", f"{len(index):,}", "give one a row")
        count = len(scored.y)
        if index is not None:
            names, index = np.unique(index, return_inverse=True)
            count = len(names)
        if count < 2:
            raise DataError(
                "at least two rows to tell how sure a figure is", f"{count}", "measure quality on more data"
            )
        return cls(count, index)

    def sums(self, influences: Floats) -> Floats:
        """Return the influence of each unit."""
        if self.index is None:
            return influences
        return np.bincount(self.index, influences, self.count).astype(np.float64)

    def draw(self, generator: np.random.Generator) -> Ints:
        """Return the rows of a resample."""
        drawn = generator.integers(0, self.count, self.count)
        if self.index is None:
            return drawn
        order = np.argsort(self.index, kind="stable")
        starts = np.searchsorted(self.index[order], np.arange(self.count + 1))
        return np.concatenate([order[starts[unit] : starts[unit + 1]] for unit in drawn])


def _resample(
    metric: Metric,
    sides: tuple[Scored, ...],
    units: _Units,
    resamples: int,
    rng: np.random.Generator | int,
) -> list[Floats]:
    """Return the metric of each side in the same resamples, NaN where it is undefined."""
    generator = np.random.default_rng(rng)
    resamples = min(resamples, max(_FEWEST_RESAMPLES, _ROWS_RESAMPLED // len(sides[0].y)))
    values = np.full((len(sides), resamples), math.nan)
    for column in range(resamples):
        rows = units.draw(generator)
        try:
            values[:, column] = [metric.of(_take(side, rows)) for side in sides]
        except (DataError, ValueError):
            # The metric was defined for all rows; a resample may lack a class, which such functions refuse.
            continue
    return list(values)


def _take(scored: Scored, rows: Ints) -> Scored:
    weight = None if scored.weight is None else scored.weight[rows]
    return replace(scored, y=scored.y[rows], scores=scored.scores[rows], weight=weight, groups=None)


def _of_counts(right_base: NDArray[Any], right_variant: NDArray[Any], level: float) -> PairedDifference:
    gained, lost = int((right_variant & ~right_base).sum()), int((right_base & ~right_variant).sum())
    interval = paired_proportions(gained, lost, len(right_base), level=level)
    p = mcnemar_of_counts(gained, lost)
    if p > 1 - level and not interval.covers(0.0):
        # The exact test is the stricter one for few changed rows; the two must not contradict each other.
        interval = replace(interval, low=min(interval.low, 0.0), high=max(interval.high, 0.0))
    return PairedDifference(interval, p, "mcnemar")


def _unseen_change(metric: Metric, base: Scored, variant: Scored, units: _Units, level: float) -> float:
    """Return how much a metric in [0, 1] may have changed where no row of these is judged otherwise."""

    def unchanged(scored: Scored) -> bool:
        if metric.rows is not None:
            return np.array_equal(metric.rows(scored.y, scored.scores), metric.rows(base.y, base.scores))
        return _is_rounding(metric.weighed(scored).influence - before, before)

    before = metric.weighed(base).influence
    return _unseen(units_moved(base, variant, units.index), level) / clearance(unchanged, base, variant)


def _is_rounding(difference: Floats, influence: Floats) -> bool:
    """Tell whether influences differ by what sums of as many numbers in another order do, and nothing else.

    Terms of a metric in [0, 1] are of the size of one row's share, also where they add up to zero: of a perfect score.
    """
    size = max(1 / len(influence), float(np.abs(influence).max()))
    return float(np.abs(difference).max()) <= len(influence) * float(np.finfo(np.float64).eps) * size


def _unseen(units: int, level: float) -> float:
    """Return how large a share may be that was not seen once among `units` (Wilson's bound)."""
    z2 = normal_quantile(0.5 + level / 2) ** 2
    return z2 / (units + z2)


def _logit(value: float, reach: float, level: float) -> Interval:
    centre, shift = math.log(value / (1 - value)), reach / (value * (1 - value))

    def back(x: float) -> float:
        return 1 / (1 + math.exp(-x)) if x > -700 else 0.0

    return Interval(value, back(centre - shift), back(centre + shift), level)


def _logarithm(value: float, reach: float, level: float) -> Interval:
    if value <= 0:
        return Interval(value, value, value, level)
    shift = reach / value
    return Interval(value, value * math.exp(-shift), value * math.exp(shift) if shift < 700 else math.inf, level)
