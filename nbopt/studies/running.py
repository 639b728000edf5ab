"""A study's trials, one after the other in this kernel or several at a time in processes, until there is an end."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from nbopt.errors import OptionError, StudyError
from nbopt.progress import Progress, ProgressCallback, silent
from nbopt.studies.choosing import Chooser, Running
from nbopt.studies.ending import nothing_to_gain
from nbopt.studies.extra import load, quiet
from nbopt.studies.opening import Opened
from nbopt.studies.pool import Job, Pool
from nbopt.studies.samplers import changed
from nbopt.studies.suggesting import contains
from nbopt.studies.trials import Objective, Outcome, begin, best_of, run_trial
from nbopt.studies.warm import earlier_best

FAILURES = 3
"""The first trials that may all fail before the search is given up: it is the objective then, and not a setting."""


@dataclass(frozen=True)
class Ended:
    """Say how a search ended.

    Args:
        reason: Why it ended before its trials were used up, or "".
        seconds: How long it took.
        sampler: Word of the sampler that it ended with.
        notes: What must be said.
    """

    reason: str = ""
    seconds: float = 0.0
    sampler: str = ""
    notes: tuple[str, ...] = ()


def run_study(
    opened: Opened,
    objective: Objective,
    running: Running,
    *,
    progress: ProgressCallback = silent,
    what: str = "tune",
    pool: Pool | None = None,
) -> Ended:
    """Run trials until the study has as many as its budget says, or there is another end.

    Each trial is in the storage before the next begins. What ended so far stays there whatever comes.

    Args:
        opened: The study.
        objective: Takes a trial, returns its score or a tuple of several. With `jobs` or a `timeout` it goes to other
            processes through cloudpickle, with the variables that it reads.
        running: How.
        progress: Told after each trial.
        what: What progress calls it.
        pool: Processes that are there already; None starts some where they are needed.

    Raises:
        StudyError: The first trials all failed, or the objective can't go to another process.
        KeyboardInterrupt: The user interrupted; the trial under way is marked as failed.
    """
    keeper = Keeper(opened, running, progress, what)
    with quiet():
        if pool is None and not running.in_processes:
            while not (why := keeper.why_end()):
                keeper.chooser.prepare()
                trial = begin(opened, running.seed)
                keeper.took(trial.number, run_trial(opened, trial, objective, limits=running.limits))
            return keeper.ended(why)
        with ExitStack() as stack:
            crew = pool or stack.enter_context(Pool(objective, opened, jobs=running.jobs, timeout=running.timeout))
            crew.run(lambda under_way: None if keeper.why_end(under_way) else Job(opened, running), keeper.took)
        return keeper.ended(keeper.why_end())


class Keeper:
    """Keep count of a search: what ended, and when it is over.

    Args:
        opened: The study.
        running: How its trials are run.
        progress: Told after each trial.
        what: What progress calls it.
    """

    def __init__(self, opened: Opened, running: Running, progress: ProgressCallback, what: str) -> None:
        self.opened, self.running, self._progress, self._what = opened, running, progress, what
        self._began = time.monotonic()
        self._warmed = False
        self._notes: list[str] = []
        self._failures: list[str] = []
        self._good = 0
        self.chooser = Chooser(opened, running)
        states = load().trial.TrialState
        ended = opened.study.get_trials(deepcopy=False)
        self.done = sum(trial.state.is_finished() for trial in ended)
        self._good = sum(trial.state in (states.COMPLETE, states.PRUNED) for trial in ended)
        if running.start is not None and not ended:
            opened.study.enqueue_trial(dict(running.start))
        if running.space is not None:
            self._warm_up(running.space)
        self._report()

    @property
    def seconds(self) -> float:
        """Return how long the search has gone on."""
        return time.monotonic() - self._began

    def why_end(self, under_way: int = 0) -> str:
        """Return why no further trial shall start, "" while one shall; " " where all were run.

        Args:
            under_way: Trials that have begun and not ended.
        """
        budget = self.running.budget
        if self.done + under_way >= budget.trials:
            return " "
        problem = self.chooser.problem()
        over = budget.over(self.seconds, self.running.reserve(problem.seconds or 0.0))
        # At least one trial is run: a budget that allows none would give nothing to show.
        if over and (self.done or under_way):
            return over
        return nothing_to_gain(self.opened.study, budget, problem)

    def took(self, number: int, outcome: Outcome | str) -> None:
        """Count a trial that ended; a text is the reason of one that was ended from outside.

        Raises:
            StudyError: The first trials all failed.
        """
        self.done += 1
        failed = isinstance(outcome, str) or outcome.state == "failed"
        if not failed:
            self._good += 1
            if not self._warmed and self.running.space is None:
                trial = self.opened.study.get_trials(deepcopy=False)[number]
                self._check_start(trial)
                self._warm_up(trial.distributions)
        else:
            self._failures.append(f"trial {number}: {outcome if isinstance(outcome, str) else outcome.reason}")
        self._report()
        hopeless = not isinstance(outcome, str) and outcome.missing
        if not self._good and (len(self._failures) >= FAILURES or hopeless):
            error = StudyError(
                "an objective that gives a number",
                self._failures[-1],
                f"correct it; the study {self.opened.name!r} keeps its failed trials",
            )
            error.failed = tuple(self._failures)
            raise error

    def _check_start(self, trial: Any) -> None:
        """Note what of the untuned default lies outside its range: Optuna takes it all the same."""
        start = self.running.start or {}
        unknown = [name for name in start if name not in trial.distributions]
        outside = [
            f"{name}={start[name]!r}"
            for name, each in trial.distributions.items()
            if name in start and not contains(each, start[name])
        ]
        if trial.number == 0 and (unknown or outside):
            raise OptionError(
                "start values of parameters that the objective asks for, within their ranges",
                ", ".join([*outside, *(f"{name}, which it does not ask for" for name in unknown)]),
                f"its parameters are {', '.join(trial.distributions)}",
            )

    def _warm_up(self, space: Mapping[str, Any]) -> None:
        self._warmed = True
        if self.opened.resumed:
            return
        found = earlier_best(self.opened, space, self.running.warm)
        for params in found:
            self.opened.study.enqueue_trial(params, skip_if_exists=True)
        if found:
            self._notes.append(f"started from the best {len(found)} settings of earlier studies of the same")

    def _report(self) -> None:
        best: Sequence[Any] = best_of(self.opened.study) if self._good else ()
        note = f"best {', '.join(f'{v:.4g}' for v in best[0].values)} in trial {best[0].number}" if best else ""
        if self._failures:
            note += f"{' · ' if note else ''}{len(self._failures)} failed"
        figure = ("best", best[0].values[0]) if best and len(best[0].values) == 1 else None
        self._progress(Progress(self._what, self.done, self.running.budget.trials, note, figure))

    def ended(self, why: str) -> Ended:
        """Return how the search ended."""
        ranges = changed(self.opened.study)
        if ranges:
            self._notes.append(f"ranges changed between trials: {', '.join(ranges)}; a new study keeps them apart")
        if self.running.jobs > 1 and not isinstance(self.running.sampler, str):
            self._notes.append("each process drew by a copy of the sampler, with a seed of its own: it does not repeat")
        self.chooser.prepare()  # processes draw by choosers of their own
        return Ended(why.strip(), self.seconds, self.chooser.word, tuple(self._notes))
