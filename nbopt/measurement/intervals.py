"""An interval, how it is written, and the intervals that have a closed form."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from nbopt.errors import DataError
from nbopt.measurement.distributions import binomial_half_tail, normal_quantile


@dataclass(frozen=True)
class Interval:
    """Hold an estimate and the interval that contains the truth with probability `level`.

    Args:
        value: The estimate.
        low: Lower bound; -infinity where nothing is known.
        high: Upper bound; infinity where nothing is known.
        level: Probability, 0 to 1.
    """

    value: float
    low: float
    high: float
    level: float = 0.95

    def covers(self, x: float) -> bool:
        """Tell whether `x` lies inside, bounds included."""
        return self.low <= x <= self.high

    def overlaps(self, other: Interval) -> bool:
        """Tell whether the two intervals share a point."""
        return self.low <= other.high and other.low <= self.high

    @property
    def half_width(self) -> float:
        """Return half of the distance between the bounds; where the upper one is open, that to the lower one."""
        if math.isinf(self.high) and self.low not in (0, -math.inf):  # a ratio's 0 says nothing
            return self.value - self.low
        return (self.high - self.low) / 2

    @property
    def relative_width(self) -> float:
        """Return the distance between the bounds over the estimate."""
        return (self.high - self.low) / abs(self.value) if self.value else math.inf

    @property
    def exact(self) -> bool:
        """Tell whether the bounds coincide: nothing was estimated."""
        return self.low == self.high

    @property
    def unknown(self) -> bool:
        """Tell whether nothing is known: of a ratio 0 to infinity, of a difference anything."""
        return math.isinf(self.high) and (self.low == 0 or math.isinf(self.low))

    def scaled(self, factor: float) -> Interval:
        """Return the interval of `factor` times the quantity, such as 100 for percentage points."""
        low, high = sorted((self.low * factor, self.high * factor))
        return Interval(self.value * factor, low, high, self.level)

    def text(self, *, sign: bool = False, digits: int = 3) -> str:
        """Write value and bounds with the digits that the interval supports: `3.1 [3.0, 3.3]`, `? [0, ∞]`.

        Args:
            sign: Write a plus before what is above zero.
            digits: Significant digits of an exact value.
        """
        places = decimals(self.value, self.half_width, digits=digits)
        value = "?" if self.unknown else _fixed(self.value, places, sign)
        low, high = (_fixed(x, places, sign) for x in (self.low, self.high))
        return f"{value} [{low}, {high}]"


def decimals(value: float, half_width: float, *, digits: int = 3) -> int:
    """Return how many decimals of `value` the interval supports; negative where tens or hundreds are open.

    The last digit kept is the first digit of the half width, since the next one is noise.

    Args:
        value: The estimate.
        half_width: Half the width of its interval, >= 0; infinite leaves the first digit.
        digits: Significant digits kept where the half width is 0.
    """
    if math.isinf(half_width):
        digits = 1
    elif half_width > 0:
        # 1e-9: a half width of 0.1 that arithmetic left at 0.0999... has one decimal.
        return -math.floor(math.log10(half_width) + 1e-9)
    if value == 0 or not math.isfinite(value):
        return 0
    return digits - 1 - math.floor(math.log10(abs(value)))


def round_to_interval(value: float, half_width: float, *, sign: bool = False, digits: int = 3) -> str:
    """Write `value` with no more digits than its interval supports: (3.1234, 0.15) is "3.1".

    Args:
        value: The estimate.
        half_width: Half the width of its interval, >= 0; infinite where nothing is known, which gives "?".
        sign: Write a plus before what is above zero.
        digits: Significant digits kept where the half width is 0.
    """
    if math.isinf(half_width):
        return "?"
    return _fixed(value, decimals(value, half_width, digits=digits), sign)


def _fixed(value: float, places: int, sign: bool) -> str:
    if math.isnan(value):
        return "?"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    rounded = round(value, places)
    text = f"{rounded:{'+' if sign else ''}.{max(places, 0)}f}"
    # A negative number that rounds to zero reads as a loss that is not there.
    return text.lstrip("+-") if rounded == 0 else text


def wilson(right: float, total: float, *, level: float = 0.95) -> Interval:
    """Return the score interval of a proportion (Wilson 1927).

    Args:
        right: Number of successes, 0 to `total`.
        total: Number of trials, > 0.
        level: Coverage.

    Raises:
        DataError: There are no trials.
    """
    if total <= 0:
        raise DataError("at least one row", "none", "measure on data with labels")
    z2 = normal_quantile(0.5 + level / 2) ** 2
    share = right / total
    centre = (share + z2 / (2 * total)) / (1 + z2 / total)
    spread = math.sqrt(z2 * (share * (1 - share) + z2 / (4 * total)) / total) / (1 + z2 / total)
    # At 0 and 1 the bound is exact; arithmetic leaves it at 1e-17.
    low, high = (0.0 if right == 0 else centre - spread), (1.0 if right == total else centre + spread)
    return Interval(share, low, high, level)


def paired_proportions(gained: int, lost: int, total: int, *, level: float = 0.95) -> Interval:
    """Return the score interval of a difference of two proportions on the same rows (Tango 1998).

    Unlike the bootstrap it stays honest where few rows or none changed: without any change among `n` rows
    it is about ±3.8/n.

    Args:
        gained: Rows that only the second got right.
        lost: Rows that only the first got right.
        total: All rows, > 0.
        level: Coverage.
    """
    z2 = normal_quantile(0.5 + level / 2) ** 2
    value = (gained - lost) / total

    def rejected(delta: float) -> bool:
        # Variance of gained - lost under the difference `delta`, the nuisance at its constrained maximum.
        b = (2 * total - gained + lost) * delta - gained - lost
        root = math.sqrt(max(b * b + 8 * total * lost * delta * (1 - delta), 0.0))
        variance = total * (2 * (root - b) / (4 * total) + delta * (1 - delta))
        distance = gained - lost - total * delta
        return distance * distance > z2 * variance

    def bound(outer: float) -> float:
        inside, outside = value, outer
        for _ in range(60):
            middle = (inside + outside) / 2
            inside, outside = (inside, middle) if rejected(middle) else (middle, outside)
        return inside

    return Interval(value, bound(-1.0), bound(1.0), level)


def mcnemar_exact(correct_a: ArrayLike, correct_b: ArrayLike) -> float:
    """Return the two-sided p-value of the exact McNemar test (McNemar 1947, binomial form).

    Args:
        correct_a: Whether each row was right with the first model, bool or 0/1 (n,).
        correct_b: The same for the second model and the same rows.

    Returns:
        Probability, were the models equally good, of so uneven a split of the rows on which they differ; 1
        where they never differ.

    Raises:
        DataError: The two differ in length.
    """
    a, b = np.asarray(correct_a).astype(bool).reshape(-1), np.asarray(correct_b).astype(bool).reshape(-1)
    if len(a) != len(b):
        raise DataError("the same rows for both", f"{len(a):,} and {len(b):,} rows", "score both on one split")
    lost, gained = int((a & ~b).sum()), int((~a & b).sum())
    return mcnemar_of_counts(gained, lost)


def mcnemar_of_counts(gained: int, lost: int) -> float:
    """Return the p-value of `mcnemar_exact` from the numbers of rows that only one model got right."""
    return min(1.0, 2 * binomial_half_tail(min(gained, lost), gained + lost))


def difference_of(one: Interval, other: Interval) -> Interval:
    """Return one quantity minus another that was estimated from other rows, with an interval.

    From the two intervals alone, asymmetric as they may be (the method of variance estimates recovery, Zou & Donner
    2008, https://doi.org/10.1002/sim.3095; of two proportions with Wilson's intervals it is Newcombe 1998's method 10,
    https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8%3C873::AID-SIM779%3E3.0.CO;2-I).

    Args:
        one: From its own rows.
        other: From rows of its own, at the same level.
    """
    value = one.value - other.value
    below = math.hypot(one.value - one.low, other.high - other.value)
    above = math.hypot(one.high - one.value, other.value - other.low)
    return Interval(value, value - below, value + above, one.level)
