"""The best few of a search, trained again with fresh seeds before one is chosen."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from nbopt.errors import TrainingError
from nbopt.progress import Progress, ProgressCallback
from nbopt.searching.objective import OneTraining, Trained, untouched
from nbopt.studies import best_of, values_of

UNTOUCHED, FINALIST, RANDOM = "untouched", "finalist", "random"


@dataclass
class Finalist:
    """Hold values that are trained again.

    Args:
        kind: "untouched", "finalist", or "random" for the best of a random search.
        number: Number of their trial.
        values: Of the dimensions, by name.
        found: Quality in the search, None where that failed.
        scores: Quality with each fresh seed, NaN where that failed.
        first: The first of those trainings.
        epochs: Epochs of all of them.
    """

    kind: str
    number: int
    values: dict[str, Any]
    found: float | None
    scores: list[float] = field(default_factory=list)
    first: Trained | None = None
    epochs: int = 0

    @property
    def mean(self) -> float | None:
        """Return the mean over fresh seeds, None where one failed or none was tried."""
        mean = float(np.mean(self.scores)) if self.scores else math.nan
        return mean if math.isfinite(mean) else None


def finalists_of(training: OneTraining, study: Any, most: int, rival: Any = None) -> list[Finalist]:
    """Return what is trained again: the untouched values, then the best others, then the best of a random search.

    Args:
        training: The objective.
        study: The study.
        most: Others at most.
        rival: The study of a random search, None where there is none.
    """
    space = training.draft.space
    start = untouched(space)
    ranked = best_of(study, 10**9)
    first = next((trial.value for trial in ranked if values_of(trial.params, space) == start), None)
    others = [
        Finalist(FINALIST, trial.number, values, trial.value)
        for trial in ranked
        if (values := values_of(trial.params, space)) != start
    ]
    beside = [] if rival is None else best_of(rival)
    return [
        Finalist(UNTOUCHED, 0, start, first),
        *others[:most],
        *(Finalist(RANDOM, trial.number, values_of(trial.params, space), trial.value) for trial in beside),
    ]


def repeat(
    finalists: Sequence[Finalist], training: OneTraining, seeds: Sequence[int], progress: ProgressCallback
) -> None:
    """Train each with each seed, in place; seed by seed, so that all have as many.

    Raises:
        KeyboardInterrupt: The user interrupted.
    """
    total = len(finalists) * len(seeds)
    for place, seed in enumerate(seeds):
        for index, finalist in enumerate(finalists):
            progress(Progress("finalists with fresh seeds", place * len(finalists) + index, total))
            try:
                trained = training.trained(finalist.values, seed)
            except TrainingError:
                finalist.scores.append(math.nan)
                continue
            finalist.epochs += trained.record.epochs
            finalist.scores.append(trained.quality)
            finalist.first = finalist.first or trained


def whole_rounds(finalists: Sequence[Finalist]) -> list[Finalist]:
    """Return finalists with the seeds that all of them have: an interrupt comes in the middle of a round.

    None are left where no round is whole; what one of them gave alone is compared with nothing.
    """
    rounds = min((len(each.scores) for each in finalists), default=0)
    return [replace(each, scores=each.scores[:rounds]) for each in finalists] if rounds else []


def winner_of(finalists: Iterable[Finalist], *, greater: bool) -> Finalist | None:
    """Return the best by its mean over fresh seeds, the first of equals; None where none has one."""
    usable = [finalist for finalist in finalists if finalist.mean is not None]
    return max(usable, key=lambda each: (each.mean or 0.0) * (1 if greater else -1), default=None)
