"""How much is pruned when, over the one training. Plain functions of the share of it that is done."""

from __future__ import annotations

import math

SCHEDULES = ("one-shot", "iterative", "cubic")
RAMP = 0.75
"""Share of the training after which a cubic schedule has reached its target; the rest recovers."""
UPDATES = 10  # of a cubic schedule, where nobody says: finer steps gain nothing, and each ranks all weights anew


def default_rounds(schedule: str, epochs: int) -> int:
    """Return how often a schedule prunes: one shot once, iterative once an epoch (at least 2), cubic 10 times."""
    return {"one-shot": 1, "iterative": max(2, epochs)}.get(schedule, UPDATES)


def share_at(schedule: str, done: float, rounds: int) -> float:
    """Return which share of the target has been pruned by now, 0 to 1.

    Args:
        schedule: "one-shot": all of it at once. "iterative": equal parts, each with an equal part of the training
            after it (Han et al. 2015). "cubic": 1 - (1 - t)^3, fast while there is much to spare, slow at the end
            (Zhu & Gupta 2017, https://arxiv.org/abs/1710.01878), over the first three quarters of the training.
        done: Share of the training that is done, 0 to 1.
        rounds: How often it prunes.
    """
    if schedule == "one-shot" or rounds <= 1:
        return 1.0
    # A hair on top, since 0.1 * 3 * 10 is less than 3 in binary.
    step = math.floor((done if schedule == "iterative" else done / RAMP) * rounds + 1e-9)
    if schedule == "iterative":
        return min(1.0, (step + 1) / rounds)
    return 1.0 if step >= rounds else 1.0 - (1.0 - (step + 1) / (rounds + 1)) ** 3
