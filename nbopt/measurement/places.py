"""What differs between two processes with one file, and between two places of it in memory."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from nbopt.measurement.distributions import normal_quantile, t_quantile

PLACE_SPREAD = 0.007
"""Standard deviation of the times of one artifact over its instances in one process: where its memory lies makes it
faster or slower for as long as it is loaded (Mytkowicz et al. 2009), which no number of rounds averages out. This is
what is assumed before an artifact's own instances have told, with the weight of `PLACE_PRIOR` of them; 0.5 to 1.3% were
found on two machines with `nbopt.measurement.selfcheck`."""
PLACE_PRIOR = 4
PROCESS_SPREAD = 0.005
"""The same over processes, beyond what their instances show: code, interpreter and heap have their places too."""


def between_places(
    ratios: NDArray[np.float64], baseline: NDArray[np.int64], variant: NDArray[np.int64], *, level: float = 0.95
) -> float:
    """Return half the width of what a ratio's interval owes to processes and places, in logarithms.

    Args:
        ratios: Logarithms of paired ratios of times, one a round.
        baseline: Which instance of its artifact the baseline called in each round.
        variant: Likewise. Sides of a round take their instances in step.
        level: Coverage, 0.5 to 1 exclusive.
    """
    upper = 0.5 + level / 2
    variance, freedom = _place_variance(ratios, baseline, variant)
    counts = [len(np.unique(side)) for side in (baseline, variant)]
    place = t_quantile(upper, freedom) * math.sqrt(variance * sum(1 / count for count in counts))
    process = normal_quantile(upper) * PROCESS_SPREAD * math.sqrt(2)
    return math.hypot(place, process)


def _place_variance(
    ratios: NDArray[np.float64], baseline: NDArray[np.int64], variant: NDArray[np.int64]
) -> tuple[float, int]:
    """Return the variance of one side's log times over instances, and its degrees of freedom.

    A one-way analysis of variance of the ratios, with a prior.
    """
    prior = PLACE_SPREAD**2
    several = sum(len(np.unique(side)) > 1 for side in (baseline, variant))
    pairs = list(zip(baseline.tolist(), variant.tolist(), strict=True))
    groups = [ratios[[pair == each for pair in pairs]] for each in sorted(set(pairs))]
    groups = [group for group in groups if len(group) > 1]
    if len(groups) < 2 or not several:
        return prior, PLACE_PRIOR
    medians = np.array([np.median(group) for group in groups])
    # The variance of a median is pi/2 times that of a mean.
    within = float(np.mean([math.pi / 2 * group.var(ddof=1) / len(group) for group in groups]))
    found = max(0.0, float(medians.var(ddof=1)) - within) / several
    freedom = len(groups) - 1
    return (PLACE_PRIOR * prior + freedom * found) / (PLACE_PRIOR + freedom), PLACE_PRIOR + freedom
