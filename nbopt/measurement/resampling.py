"""Intervals of quality metrics: paired bootstrap over rows, and score intervals for accuracy.

Accuracy of unweighted rows has closed forms that hold where only a handful of rows changed: Wilson's interval
for a value, Tango's for a difference, McNemar's exact test. All other metrics take the BCa bootstrap (Efron
1987) with the small-sample correction of Hesterberg (2015), both models weighted by the same resample.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from nbopt.errors import DataError
from nbopt.measurement.distributions import normal_cdf, normal_quantile, t_quantile, t_tail
from nbopt.measurement.intervals import Interval, mcnemar_of_counts, paired_proportions, wilson
from nbopt.measurement.metrics import METRICS, Metric
from nbopt.measurement.predictions import Floats, Scored
from nbopt.measurement.weighted import Statistic

Method = Literal["identical", "mcnemar", "bootstrap"]

RESAMPLES = 1000
_LEAST_RESAMPLES = 100
_WORK = 20_000_000  # weights (rows times resamples) that one interval may cost for a binary metric
_CALLABLE_RESAMPLES = 200
_CHUNK_WEIGHTS = 500_000  # 4 MB: as large as stays in the cache
_JACKKNIFE_GROUPS = 100
_FEWEST_FOR_QUANTILES = 400
_FEWEST_UNITS = 10


@dataclass(frozen=True)
class PairedDifference:
    """Hold how a variant's metric differs from its baseline's on the same rows.

    Args:
        interval: Variant minus baseline, in the metric's unit.
        p: Two-sided p-value of no difference.
        method: identical (the scores are the same numbers), mcnemar (interval of Tango, p of McNemar) or
            bootstrap.
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
        groups: Number of the sequence, patient or user each row belongs to, whose rows are then resampled
            together; None where rows are independent.
        level: Coverage of the interval.
        resamples: Bootstrap resamples. Lowered so that rows times resamples (times classes for auc and
            average_precision) stay below 20 million, and to 200 for a user's function, but never below 100.
            With fewer than 400 the interval comes from the bootstrap's standard error.
        rng: Generator or seed.

    Returns:
        Exactly [0, 0] and p = 1 for identical scores; a difference that no resample changes is ±3.8/n for
        metrics in [0, 1], since unchanged rows prove no more than that.

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
    if np.array_equal(base.scores, variant.scores):
        metric.of(base)  # an undefined metric is an error for identical scores too
        return PairedDifference(Interval(0.0, 0.0, 0.0, level), 1.0, "identical")
    if metric.counts and metric.rows is not None and weight is None and units.index is None:
        right_base, right_variant = metric.rows(base.y, base.scores), metric.rows(variant.y, variant.scores)
        return _accuracy_difference(right_base > 0, right_variant > 0, level)
    value = metric.of(variant) - metric.of(base)
    of_base = metric.statistic(base.y, base.scores)
    of_variant = metric.statistic(variant.y, variant.scores)
    boot = _Bootstrap(
        lambda weights: of_variant(weights) - of_base(weights),
        units,
        _affordable(metric, base, resamples),
        rng,
    )
    bounds = (-1.0, 1.0) if metric.bounded else (-math.inf, math.inf)
    if metric.bounded and boot.spread == 0:
        margin = _unseen(units.count, level)
        return PairedDifference(
            Interval(value, max(value - margin, -1.0), min(value + margin, 1.0), level), 1.0, "bootstrap"
        )
    return PairedDifference(boot.interval(value, level, bounds), boot.p_value(value), "bootstrap")


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
    """Return a metric's value with its interval: Wilson's for accuracy, else the BCa bootstrap over rows.

    Args:
        metric: From `metric_of`.
        y: Labels of the rows.
        scores: As `scores_to_probabilities` gives them.
        weight: Row weights, or None.
        groups: As in `paired_difference`.
        level: Coverage of the interval.
        resamples: As in `paired_difference`.
        rng: Generator or seed.

    Raises:
        DataError: As `Metric.__call__`, or fewer than two rows or groups.
    """
    scored = metric.align(y, scores, weight)
    units = _Units.of(scored, groups)
    value = metric.of(scored)
    if metric.counts and metric.rows is not None and weight is None and units.index is None:
        return wilson(float(metric.rows(scored.y, scored.scores).sum()), len(scored.y), level=level)
    boot = _Bootstrap(
        metric.statistic(scored.y, scored.scores), units, _affordable(metric, scored, resamples), rng
    )
    if metric.bounded and boot.spread == 0:
        margin = _unseen(units.count, level)
        return Interval(value, max(value - margin, 0.0), min(value + margin, 1.0), level)
    return boot.interval(value, level, (0.0, 1.0) if metric.bounded else (-math.inf, math.inf))


def _accuracy_difference(right_base: np.ndarray, right_variant: np.ndarray, level: float) -> PairedDifference:
    gained, lost = int((right_variant & ~right_base).sum()), int((right_base & ~right_variant).sum())
    interval = paired_proportions(gained, lost, len(right_base), level=level)
    p = mcnemar_of_counts(gained, lost)
    if p > 1 - level and not interval.covers(0.0):
        # The exact test is the stricter one for few changed rows; the two must not contradict each other.
        interval = Interval(interval.value, min(interval.low, 0.0), max(interval.high, 0.0), level)
    return PairedDifference(interval, p, "mcnemar")


def _affordable(metric: Metric, scored: Scored, resamples: int) -> int:
    named = METRICS.get(metric.name)
    if named is None or named.statistic is not metric.statistic:  # a user's function, whatever its name
        return min(resamples, _CALLABLE_RESAMPLES)
    sorts = scored.scores.shape[1] if metric.needs == "scores" and scored.scores.ndim > 1 else 1
    columns = sorts if metric.rows is None else 1
    return min(resamples, max(_LEAST_RESAMPLES, _WORK // (len(scored.y) * columns)))


def _unseen(units: int, level: float) -> float:
    """Return how large a share may be that was not seen once among `units`, at Wilson's bound."""
    z2 = normal_quantile(0.5 + level / 2) ** 2
    return z2 / (units + z2)


@dataclass(frozen=True)
class _Units:
    """What is drawn with replacement: rows, or groups of rows that belong together."""

    count: int
    index: np.ndarray | None
    weight: Floats | None

    @classmethod
    def of(cls, scored: Scored, groups: ArrayLike | None) -> _Units:
        index = scored.groups
        if groups is not None:
            index = np.asarray(groups).reshape(-1)
            if len(index) != len(scored.y):
                raise DataError(
                    f"a group for each of the {len(scored.y):,} rows",
                    f"{len(index):,} groups",
                    "give one a row",
                )
        count = len(scored.y)
        if index is not None:
            names, index = np.unique(index, return_inverse=True)
            count = len(names)
        if count < 2:
            raise DataError(
                "at least two rows to tell how sure a figure is", f"{count}", "measure quality on more data"
            )
        return cls(count, index, scored.weight)

    def weights(self, drawn: Floats) -> Floats:
        """Return row weights (resamples, n) from how often each unit was drawn (resamples, units)."""
        rows = drawn if self.index is None else drawn[:, self.index]
        return rows if self.weight is None else rows * self.weight


class _Bootstrap:
    """Values of a statistic over resamples, and what follows from them."""

    def __init__(
        self, statistic: Statistic, units: _Units, resamples: int, rng: np.random.Generator | int
    ) -> None:
        generator = np.random.default_rng(rng)
        self.units = units.count
        n = units.count
        rows = n if units.index is None else len(units.index)

        def draw(start: int, stop: int) -> Floats:
            return np.stack(
                [np.bincount(generator.integers(0, n, n), minlength=n) for _ in range(start, stop)]
            ).astype(np.float64)

        found = _in_chunks(statistic, units, draw, resamples, rows)
        # Undefined where a resample lacks a class; what remains is conditional on the metric being defined.
        self.values = np.sort(found[~np.isnan(found)])
        self.spread = float(self.values.std()) if len(self.values) > 1 else math.inf
        parts = min(n, _JACKKNIFE_GROUPS)
        part_of = generator.permutation(n) % parts

        def leave_out(start: int, stop: int) -> Floats:
            return (part_of[None, :] != np.arange(start, stop)[:, None]).astype(np.float64)

        left_out = _in_chunks(statistic, units, leave_out, parts, rows)
        self.acceleration = _acceleration(left_out[~np.isnan(left_out)])

    def interval(self, value: float, level: float, bounds: tuple[float, float]) -> Interval:
        """Return the BCa interval, or where quantiles can't be had, that of the standard error."""
        if not math.isfinite(self.spread):
            return Interval(value, *bounds, level)
        if self.spread == 0:
            return Interval(value, value, value, level)
        inflate = math.sqrt(self.units / (self.units - 1))
        reach = inflate * t_quantile(0.5 + level / 2, self.units - 1)
        if self.units < _FEWEST_UNITS or len(self.values) < _FEWEST_FOR_QUANTILES:
            low, high = value - reach * self.spread, value + reach * self.spread
        else:
            low, high = np.quantile(
                self.values, [self._adjusted(value, -reach), self._adjusted(value, reach)]
            )
        return Interval(value, max(min(low, value), bounds[0]), min(max(high, value), bounds[1]), level)

    def p_value(self, value: float) -> float:
        """Return the smallest 1 - level whose interval leaves out 0."""
        if not math.isfinite(self.spread):
            return 1.0
        if self.spread == 0:
            return 1.0 if value == 0 else 0.0
        shrink = math.sqrt((self.units - 1) / self.units)
        if self.units < _FEWEST_UNITS or len(self.values) < _FEWEST_FOR_QUANTILES:
            z = value / self.spread
        else:
            bias = self._bias(value)
            w = normal_quantile(self._below(0.0)) - bias
            bent = 1 + self.acceleration * w
            z = w / bent - bias if bent > 0 else math.inf
        return min(1.0, 2 * t_tail(abs(z) * shrink, self.units - 1))

    def _below(self, x: float) -> float:
        # Half of the ties, since few changed rows make a coarse distribution.
        share = 0.5 * (
            np.searchsorted(self.values, x, side="left") + np.searchsorted(self.values, x, side="right")
        )
        count = len(self.values)
        return float(np.clip(share / count, 0.5 / count, 1 - 0.5 / count))

    def _bias(self, value: float) -> float:
        return normal_quantile(self._below(value))

    def _adjusted(self, value: float, z: float) -> float:
        bias = self._bias(value)
        shifted = bias + z
        bent = 1 - self.acceleration * shifted
        return normal_cdf(bias + shifted / bent) if bent > 0 else (1.0 if z > 0 else 0.0)


def _in_chunks(
    statistic: Statistic, units: _Units, drawn: Callable[[int, int], Floats], total: int, rows: int
) -> Floats:
    chunk = max(1, _CHUNK_WEIGHTS // max(rows, 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        parts = [
            statistic(units.weights(drawn(start, min(start + chunk, total))))
            for start in range(0, total, chunk)
        ]
    return np.concatenate(parts)


def _acceleration(left_out: Floats) -> float:
    if len(left_out) < 2:
        return 0.0
    away = left_out.mean() - left_out
    spread = float((away**2).sum())
    return 0.0 if spread == 0 else float((away**3).sum()) / (6 * spread**1.5)
