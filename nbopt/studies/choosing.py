"""How the trials of a study are run, and what draws the next one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from nbopt.errors import OptionError
from nbopt.studies.ending import Budget
from nbopt.studies.opening import Opened
from nbopt.studies.pruners import pruner_of
from nbopt.studies.samplers import Problem, choose, problem_of, sampler_of
from nbopt.studies.warm import AUTO

MOST_JOBS = 64


@dataclass(frozen=True)
class Running:
    """Say how the trials of a study are run.

    Args:
        budget: Trials, time and money.
        sampler: Word of `nbopt.studies.samplers`, or a sampler object of Optuna.
        pruner: Word of `nbopt.studies.pruners`, or a pruner object of Optuna.
        seed: Seed of the sampler, and of trial n plus n; 0 or more.
        start: Parameters of the first trial, the untuned default; None leaves it to the sampler.
        warm: "auto" starts from the best of earlier studies of the same key, "none", or the name of a study.
        space: Optuna's distributions where they are known before the first trial.
        limits: The most that user attributes of a trial may be; see `evaluate`.
        jobs: Trials at a time, each in a process of its own; 1 runs in this kernel, unless there is a `timeout`.
        timeout: Seconds that a trial may take before it is ended and failed; None for no limit. Python code that
            hangs can't be ended from within its own process, so with a timeout trials run in another one.
        reserve: Seconds of the budget to keep for what comes after, given the seconds of a usual trial.

    Raises:
        OptionError: A value is out of range.
    """

    budget: Budget = field(default_factory=Budget)
    sampler: Any = "auto"
    pruner: Any = "auto"
    seed: int = 0
    start: Mapping[str, Any] | None = None
    warm: str = AUTO
    space: Mapping[str, Any] | None = None
    limits: Mapping[str, float] = field(default_factory=dict)
    jobs: int = 1
    timeout: float | None = None
    reserve: Callable[[float], float] = lambda _: 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.jobs <= MOST_JOBS:
            raise OptionError(f"jobs between 1 and {MOST_JOBS}", f"{self.jobs}", "jobs=2")
        if self.timeout is not None and not self.timeout > 0:
            raise OptionError("a trial timeout above 0 seconds", f"{self.timeout}", "--trial-timeout 10m")
        sampler_of(self.sampler)
        pruner_of(self.pruner, trials=self.budget.trials)

    @property
    def in_processes(self) -> bool:
        """Tell whether trials run in processes of their own."""
        return self.jobs > 1 or self.timeout is not None


class Chooser:
    """Give a study the sampler for its next trial; what suits is asked again as more becomes known.

    Args:
        opened: The study.
        running: How its trials are run.
        worker: Number of the process that draws: with one seed all would draw the same at the start.
    """

    def __init__(self, opened: Opened, running: Running, worker: int = 0) -> None:
        self._opened, self._running, self._worker = opened, running, worker
        self.word = ""
        opened.study.pruner = pruner_of(
            running.pruner, trials=running.budget.trials, objectives=len(opened.study.directions)
        )

    def problem(self) -> Problem:
        """Return what is known of what is searched."""
        found = problem_of(self._opened.study, self._running.budget.trials)
        return found if self._running.space is None else replace(found, space=self._running.space, told=True)

    def prepare(self) -> None:
        """Give the study its sampler."""
        problem, sampler = self.problem(), self._running.sampler
        word = sampler if isinstance(sampler, str) else type(sampler).__name__
        if word == "auto":
            word = choose(problem)[0] + (" in groups" if problem.conditional and problem.objectives == 1 else "")
        if word == self.word:
            return
        # A sampler that comes later must not draw again what the first drew.
        later = len(self._opened.study.get_trials(deepcopy=False)) if self.word else 0
        seed = self._running.seed + 7919 * self._worker + later
        self._opened.study.sampler = sampler_of(self._running.sampler, seed=seed, problem=problem)
        if not isinstance(sampler, str) and self._worker > 1:
            self._opened.study.sampler.reseed_rng()  # a copy of what the first process has draws the same
        self.word = word
