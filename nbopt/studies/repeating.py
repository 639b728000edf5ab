"""The best few settings once more, with fresh seeds: what they are worth, and not what the luckiest trial said."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nbopt.studies.choosing import Running
from nbopt.studies.extra import load, quiet
from nbopt.studies.opening import Opened
from nbopt.studies.pool import Job, Pool
from nbopt.studies.trials import SEED, Objective, Outcome, evaluate

APART = 1_000_003
"""Fresh seeds start so far from the seed of the search: no trial had one of them."""


@dataclass(frozen=True)
class Repeats:
    """Hold what one setting gave with each fresh seed.

    Args:
        params: The setting.
        outcomes: One for each seed, in the order of the seeds.
    """

    params: Mapping[str, Any]
    outcomes: tuple[Outcome, ...]


class Cut(KeyboardInterrupt):
    """The user interrupted repeats; `repeated` is what each setting gave with the seeds that all of them have."""

    def __init__(self, repeated: list[Repeats]) -> None:
        super().__init__()
        self.repeated = repeated

    @property
    def rounds(self) -> int:
        """Return how many seeds that is."""
        return len(self.repeated[0].outcomes) if self.repeated else 0


def joined(first: Sequence[Repeats], more: Sequence[Repeats]) -> list[Repeats]:
    """Return what settings gave with some seeds and with others."""
    return [Repeats(a.params, a.outcomes + b.outcomes) for a, b in zip(first, more, strict=True)]


def repeat(objective: Objective, params: Mapping[str, Any], seed: int, *, objectives: int = 1) -> Outcome:
    """Call an objective with given parameters and a seed of its own; nothing of it goes into a study.

    Raises:
        KeyboardInterrupt: The user interrupted.
    """
    trial = load().trial.FixedTrial(dict(params))
    trial.set_user_attr(SEED, seed)
    return evaluate(objective, trial, objectives=objectives, seed=seed)


def fresh_seeds(seed: int, repeats: int) -> list[int]:
    """Return the seeds of repeats: the same for every setting, so that differences are taken within a seed."""
    return [seed + APART + index for index in range(repeats)]


def repeat_all(
    objective: Objective,
    settings: Sequence[Mapping[str, Any]],
    seeds: Sequence[int],
    *,
    opened: Opened,
    running: Running,
    pool: Pool | None = None,
    told: Callable[[int], None] = lambda _: None,
) -> list[Repeats]:
    """Return what each setting gives with each seed, in this kernel or in a pool.

    Seed by seed: whoever interrupts has as much of each setting, which the `Cut` that comes then holds.

    Args:
        objective: Takes a trial.
        settings: Parameters of each setting.
        seeds: Seeds, the same for all settings.
        opened: The study that the settings come from.
        running: How its trials were run.
        pool: Processes that have the objective; None runs in this kernel.
        told: Told how many have ended.

    Raises:
        Cut: The user interrupted.
    """
    jobs = [
        Job(opened, running, dict(params), seed, number)
        for number, (seed, params) in enumerate((seed, params) for seed in seeds for params in settings)
    ]
    outcomes: dict[int, Outcome] = {}

    def took(number: int, outcome: Outcome | str) -> None:
        outcomes[number] = Outcome("failed", reason=outcome) if isinstance(outcome, str) else outcome
        told(len(outcomes))

    def so_far(rounds: int) -> list[Repeats]:
        return [
            Repeats(params, tuple(outcomes[number * len(settings) + place] for number in range(rounds)))
            for place, params in enumerate(settings)
        ]

    try:
        with quiet():
            if pool is not None:
                waiting = iter(jobs)
                pool.run(lambda _: next(waiting, None), took)
            else:
                objectives = len(opened.study.directions)
                for job in jobs:
                    took(job.number, repeat(objective, job.params or {}, job.seed, objectives=objectives))
    except KeyboardInterrupt as interrupt:
        missing = next((job.number for job in jobs if job.number not in outcomes), len(jobs))
        raise Cut(so_far(missing // len(settings))) from interrupt
    return so_far(len(seeds))
