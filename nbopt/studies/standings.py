"""What the best settings are worth over fresh seeds, beside the setting that the search began with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nbopt.measurement.distributions import t_quantile
from nbopt.measurement.intervals import Interval
from nbopt.studies.repeating import Repeats

FIRST, FINALIST, RANDOM = "first", "finalist", "random"


@dataclass(frozen=True)
class Candidate:
    """Name a setting that is repeated.

    Args:
        name: "start", "trial 17", "random, trial 3".
        kind: "first" for what the others are compared with, "finalist", or "random" for the best of the random search.
        trial: Number of its trial.
        params: The setting.
        found: What its trial in the search gave: the best of many, and so likely too good.
        allowed: It keeps the constraints; one that does not is compared with, and never chosen.
    """

    name: str
    kind: str
    trial: int
    params: Mapping[str, Any]
    found: tuple[float, ...]
    allowed: bool = True


@dataclass(frozen=True)
class Standing(Candidate):
    """Hold one setting's figures, one for each objective.

    Args:
        repeats: What each fresh seed gave, an array (seeds, objectives).
        means: Mean over fresh seeds with a 95% interval.
        changes: Mean less that of the first, paired by seed; its interval is wide enough for all finalists together.
        verdicts: "better", "worse", "inconclusive", "same" (no difference at all), "" for the first itself.
        failures: Why repeats failed.
    """

    repeats: Any = field(default_factory=lambda: np.empty((0, 1)))
    means: tuple[Interval, ...] = ()
    changes: tuple[Interval, ...] = ()
    verdicts: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()

    @property
    def won(self) -> bool:
        """Tell whether it is better than the first in one objective and worse in none."""
        return "better" in self.verdicts and "worse" not in self.verdicts


def mean_interval(values: Sequence[float] | Any, level: float = 0.95) -> Interval:
    """Return the mean of independent values with Student's interval; one value gives an infinite one."""
    series = np.asarray(values, dtype=np.float64)
    mean = float(series.mean())
    if len(series) < 2:
        return Interval(mean, -math.inf, math.inf, level)
    reach = t_quantile(0.5 + level / 2, len(series) - 1) * float(series.std(ddof=1)) / math.sqrt(len(series))
    return Interval(mean, mean - reach, mean + reach, level)


def standings_of(
    candidates: Sequence[Candidate], repeated: Sequence[Repeats], maximize: Sequence[bool]
) -> tuple[Standing, ...]:
    """Return the settings with their figures, in the order of the candidates.

    Differences from the first are taken within a seed, and their intervals are those of Bonferroni for the number of
    finalists: the best of three is not better because it is the luckiest of three.

    Args:
        candidates: The settings, the first of which is what the others are compared with.
        repeated: Their repeats, in the same order.
        maximize: Whether larger is better, for each objective.
    """
    finalists = max(1, sum(each.kind == FINALIST for each in candidates))
    level = 1 - 0.05 / finalists
    first: dict[int, Any] = {}
    found = []
    for place, (candidate, repeats) in enumerate(zip(candidates, repeated, strict=True)):
        good = {i: each.values for i, each in enumerate(repeats.outcomes) if each.state == "complete"}
        values = np.asarray(list(good.values()), dtype=np.float64).reshape(len(good), len(maximize))
        if place == 0:
            first = good
        both = sorted(good.keys() & first.keys()) if place else []
        deltas = np.asarray([np.subtract(good[i], first[i]) for i in both]).reshape(len(both), len(maximize))
        changes = tuple(mean_interval(column, level) for column in deltas.T) if both else ()
        found.append(
            Standing(
                **vars(candidate),
                repeats=values,
                means=tuple(mean_interval(column) for column in values.T) if good else (),
                changes=changes,
                verdicts=tuple(map(verdict_of, changes, maximize)),
                failures=tuple(each.reason or each.state for each in repeats.outcomes if each.state != "complete"),
            )
        )
    return tuple(found)


def verdict_of(change: Interval, maximize: bool) -> str:
    """Return what a difference from the first says."""
    low, high = (change.low, change.high) if maximize else (-change.high, -change.low)
    if low == high == 0:
        return "same"
    return "better" if low > 0 else "worse" if high < 0 else "inconclusive"


def winner(standings: Sequence[Standing], maximize: Sequence[bool]) -> Standing | None:
    """Return the setting to go on with; None where none was repeated with success.

    Of those that are better than the first, the best by its mean over fresh seeds. Where none is, the first where
    the user gave it ("start"), else the best by its mean: a first trial at random is nobody's choice.
    """
    measured = [each for each in standings if each.means and each.allowed and each.kind != RANDOM]
    if not measured:
        return None
    # Where the first breaks the constraints, any that keeps them is better, whatever its score.
    won = [each for each in measured if each.won]
    if not won and measured[0].kind == FIRST and measured[0].name == "start":
        return measured[0]
    return max(won or measured, key=lambda each: _score(each, measured, maximize))


def _score(standing: Standing, among: Sequence[Standing], maximize: Sequence[bool]) -> float:
    """Return a mean, larger is better; of several objectives, minus the distance from the best of each."""
    signs = np.where(maximize, 1.0, -1.0)
    all_means = np.asarray([[mean.value for mean in each.means] for each in among]) * signs
    own = np.asarray([mean.value for mean in standing.means]) * signs
    if len(signs) == 1:
        return float(own[0])
    span = np.ptp(all_means, axis=0)
    return -float((((all_means.max(axis=0) - own) / np.where(span > 0, span, 1)) ** 2).sum())
