"""FBNet's way through the candidates: steps on a mixture of all of them, then the likeliest within each latency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle

import numpy as np

from nbopt.architectures.family import Family
from nbopt.architectures.latency import Latency
from nbopt.controllers import Settings
from nbopt.controllers.relaxed import Relaxed
from nbopt.errors import DataError
from nbopt.progress import Progress
from nbopt.techniques._nas.purse import LOOKS, SHARED, Purse
from nbopt.training import TrainingPlan

STEPS = 5
"""Steps on a batch for each candidate that is looked at afterwards: a step costs about as much as a look."""

FEWEST_STEPS = 60
"""Below this the odds hardly move at the controller's rate."""


def relaxed_settings(
    family: Family, plan: TrainingPlan, latency: Latency, limits: Sequence[float], trials: int, purse: Purse
) -> Settings:
    """Return candidates that gradients of their mixture made likely, the likeliest within each latency first.

    Args:
        family: The model and its candidates; its weights stay as they are.
        plan: Whose batches are taken.
        latency: The table, which counts in the loss.
        limits: Latencies in milliseconds.
        trials: Candidates in all.
        purse: What it may cost.

    Raises:
        DataError: There is no train data with labels.
    """
    context = family.context
    train = context.workload.train
    if train is None:
        raise DataError("train data, by whose gradients --controller relaxed goes", "none", "--controller surrogate")
    steps = max(FEWEST_STEPS, STEPS * trials)
    # Odds are of each option by itself: which of several settings are one candidate is told after they are ranked.
    grid = replace(family.space.grid, plain=None)
    relaxed = Relaxed(grid, steps, latency.table, seed=context.seed)
    going = purse.going((SHARED + LOOKS) / 2)
    rng = context.rng()
    batches = (batch for _ in cycle([0]) for batch in train.training_batches(plan.batch_size, rng))
    for step in range(steps):
        if not going():
            break
        context.progress(Progress("steps on a mixture", step, steps))
        weights = relaxed.draw()
        loss, gradients = family.lowering.mixture(
            family.model, family.factors, context.workload.loss, next(batches), weights
        )
        relaxed.learn(weights, loss, gradients)
    each = max(1, trials // len(limits))
    found = [relaxed.settings(each, latency.within(limit)) for limit in limits]
    return family.space.plain(np.concatenate(found))
