"""What differs between two processes with one file, and between two places of it in memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nbopt.measurement.distributions import normal_quantile, t_quantile

PLACE_SPREAD = 0.008
"""Standard deviation of the times of one artifact over its instances in one process: where its memory lies makes it
faster or slower for as long as it is loaded (Mytkowicz et al. 2009), which no number of rounds averages out. This is
what is assumed before an artifact's own instances have told, with the weight of `PLACE_PRIOR` of them; 0.5 to 1.3% were
found on three machines with `nbopt.measurement.selfcheck`."""
PLACE_PRIOR = 4
PROCESS_SPREAD = 0.008
"""The same over processes, beyond what their instances show: code, interpreter and heap have their places too. 0.5 to
0.85% were found: with 0.5% assumed, the intervals of quick measurements held the truth in 86% on the third machine."""


@dataclass(frozen=True)
class Places:
    """Say where a side's artifact was called in each round.

    Args:
        processes: Number of its process.
        instances: Number of its instance in that process.
    """

    processes: NDArray[np.int64]
    instances: NDArray[np.int64]

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Return process and instance of each round."""
        return list(zip(self.processes.tolist(), self.instances.tolist(), strict=True))


def between_places(ratios: NDArray[np.float64], baseline: Places, variant: Places, *, level: float = 0.95) -> float:
    """Return half the width of what a ratio's interval owes to processes and places, in logarithms.

    Args:
        ratios: Logarithms of paired ratios of times, one a round.
        baseline: Where the baseline was called in each round.
        variant: Likewise. Sides of a round take their processes and instances in step.
        level: Coverage, 0.5 to 1 exclusive.
    """
    upper = 0.5 + level / 2
    variance, freedom = _place_variance(ratios, baseline, variant)
    sides = (baseline, variant)
    place = t_quantile(upper, freedom) * math.sqrt(variance * sum(1 / len(set(side.pairs)) for side in sides))
    processes = sum(1 / len(np.unique(side.processes)) for side in sides)
    return math.hypot(place, normal_quantile(upper) * PROCESS_SPREAD * math.sqrt(processes))


def _place_variance(ratios: NDArray[np.float64], baseline: Places, variant: Places) -> tuple[float, int]:
    """Return the variance of one side's log times over instances, and its degrees of freedom.

    A one-way analysis of variance of the ratios within each pair of processes, with a prior.
    """
    prior = PLACE_SPREAD**2
    several = sum(len(set(side.pairs)) > len(np.unique(side.processes)) for side in (baseline, variant))
    groups: dict[tuple[int, int], dict[tuple[int, int], list[float]]] = {}
    for ratio, (process, instance), (other, its) in zip(ratios.tolist(), baseline.pairs, variant.pairs, strict=True):
        groups.setdefault((process, other), {}).setdefault((instance, its), []).append(ratio)
    medians, within, freedom = [], [], 0
    for pair in groups.values():
        several_times = [np.array(times) for times in pair.values() if len(times) > 1]
        if len(several_times) < 2:
            continue
        middles = np.array([np.median(times) for times in several_times])
        medians.append(float(((middles - middles.mean()) ** 2).sum()))
        freedom += len(middles) - 1
        # The variance of a median is pi/2 times that of a mean.
        within += [math.pi / 2 * times.var(ddof=1) / len(times) for times in several_times]
    if not freedom or not several:
        return prior, PLACE_PRIOR
    found = max(0.0, sum(medians) / freedom - float(np.mean(within))) / several
    return (PLACE_PRIOR * prior + freedom * found) / (PLACE_PRIOR + freedom), PLACE_PRIOR + freedom
