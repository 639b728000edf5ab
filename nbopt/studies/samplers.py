"""Samplers by problem: which one suits a search, and never twice the same setting."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nbopt.controllers import CONTROLLERS, Allowed
from nbopt.errors import MissingExtra, OptionError, nearest
from nbopt.studies.extra import EXTRA, has, load
from nbopt.studies.steering import Steered, finite
from nbopt.studies.suggesting import contains, values_in
from nbopt.studies.wrapping import Around

STEERED = tuple(word for word in CONTROLLERS if word != "chance")
"""Controllers that a study may have: Optuna's own random search is "random"."""

SAMPLERS = ("auto", "tpe", "gp", "cmaes", "nsga2", "random", *STEERED)

STARTUP_TRIALS = 10
"""Trials at random before a sampler has anything to learn from: Optuna's own default for TPE and GP."""

GP_TRIALS, GP_DIMENSIONS = 100, 10
"""A Gaussian process learns most from few trials; its cost grows with their cube.

In finite spaces that of `nbopt.controllers` takes some 5 ms a trial. On the tables of HPOBench and HPOLib (12 tables,
20 seeds, 100 trials) it chose better settings than Optuna's TPE 144 times, and worse ones 83 times; TPE that tries no
setting twice did so 108 and 121 times.
"""

GP_SECONDS = 10.0
"""A Gaussian process took 0.2 s a trial (64 trials, 14 s): 2% of a trial of 10 s, and 20% of one of a second."""

CMAES_TRIALS = 1000
"""Optuna recommends CMA-ES from 1,000 trials on, and NSGA-II likewise: both learn by generations."""

ATTEMPTS = 50
"""Steps that are taken away from a setting that was tried before, until there is one that was not."""


@dataclass(frozen=True)
class Problem:
    """Say what is searched, as far as it is known.

    Args:
        space: Optuna's distributions, by name; those of all trials so far where nobody told them.
        trials: Trials that the search may take.
        objectives: Values of a trial.
        conditional: Some parameters exist in some trials only.
        constrained: Trials set constraints.
        seconds: Time of a usual trial; None where none has ended yet.
        told: The space was told, and not gathered from trials.
    """

    space: Mapping[str, Any]
    trials: int
    objectives: int = 1
    conditional: bool = False
    constrained: bool = False
    seconds: float | None = None
    told: bool = False

    @property
    def categorical(self) -> bool:
        """Tell whether a parameter is one of choices in no order."""
        return any(hasattr(each, "choices") for each in self.space.values())

    @property
    def finite(self) -> bool:
        """Tell whether a controller can draw all parameters: each has few values, and no logarithmic scale."""
        open_ones = {name for name, each in self.space.items() if values_in(each) > 1}
        return bool(open_ones) and set(finite(self.space)) == open_ones

    @property
    def size(self) -> float:
        """Return how many settings there are; infinity where a parameter is continuous."""
        return math.prod(values_in(each) for each in self.space.values()) if self.space else math.inf


def problem_of(study: Any, trials: int) -> Problem:
    """Return what the trials of a study tell of its problem."""
    states = load().trial.TrialState
    ended = study.get_trials(deepcopy=False, states=(states.COMPLETE, states.PRUNED))
    space: dict[str, Any] = {}
    for trial in ended:
        space |= trial.distributions
    lasted = [
        (trial.datetime_complete - trial.datetime_start).total_seconds()
        for trial in ended
        if trial.datetime_complete and trial.datetime_start and trial.state == states.COMPLETE
    ]
    return Problem(
        space,
        trials,
        len(study.directions),
        conditional=any(len(trial.params) < len(space) for trial in ended),
        constrained=any(trial.constraints for trial in ended),
        seconds=float(np.median(lasted)) if lasted else None,
    )


def changed(study: Any) -> list[str]:
    """Return the parameters whose range is not the same in all trials, each with two of its ranges."""
    found: dict[str, Any] = {}
    told: dict[str, str] = {}
    for trial in study.get_trials(deepcopy=False):
        for name, each in trial.distributions.items():
            before = found.setdefault(name, each)
            if before != each and name not in told:
                told[name] = f"{name} ({_range(before)}, in trial {trial.number} {_range(each)})"
    return list(told.values())


def _range(distribution: Any) -> str:
    return f"{distribution.low:g} to {distribution.high:g}" if hasattr(distribution, "low") else "other choices"


def choose(problem: Problem) -> tuple[str, str]:
    """Return the sampler that suits a problem, and why."""
    many = problem.trials >= CMAES_TRIALS
    if problem.objectives > 1:
        if many and not problem.conditional:
            return "nsga2", f"several objectives and {problem.trials} trials"
        return "tpe", "several objectives and few trials"
    few = problem.trials <= GP_TRIALS
    if few and not problem.conditional and problem.finite:
        return "surrogate", f"{problem.size:,.0f} settings and few trials"
    if problem.categorical or problem.conditional:
        return "tpe", "parameters without an order" if problem.categorical else "parameters that not every trial has"
    if many and not problem.constrained and len(problem.space) > 1 and has("cmaes"):
        return "cmaes", f"{len(problem.space)} numbers and {problem.trials} trials"
    few = few and 0 < len(problem.space) <= GP_DIMENSIONS
    # What is chosen must not cost more time than it saves.
    if few and problem.seconds is not None and problem.seconds >= GP_SECONDS and has("torch", "scipy"):
        return "gp", f"{len(problem.space)} numbers, few trials, each of {problem.seconds:.0f} s"
    return "tpe", "suits every space"


def sampler_of(
    word: Any, *, seed: int | None = None, problem: Problem | None = None, allowed: Allowed | None = None
) -> Any:
    """Return a sampler.

    Args:
        word: One of `SAMPLERS`, or a sampler object of Optuna, which is taken as it is.
        seed: Seed of its draws.
        problem: What is searched; decides "auto", which is TPE where nothing is known yet.
        allowed: Tells the samplers of `STEERED` which settings may be tried: places, in the order of the names.

    Raises:
        OptionError: There is no such sampler, or it can't search several objectives.
        MissingExtra: A package that it needs is not installed.
    """
    if not isinstance(word, str):
        return word
    if word not in SAMPLERS:
        raise OptionError(f"a sampler among {', '.join(SAMPLERS)}", repr(word), nearest(word, SAMPLERS))
    if word == "auto":
        word = choose(problem)[0] if problem is not None else "tpe"
    samplers = load().samplers
    if word == "random":
        return samplers.RandomSampler(seed=seed)
    if word == "nsga2":
        return samplers.NSGAIISampler(seed=seed)
    if word == "cmaes":
        _need("cmaes")
        return samplers.CmaEsSampler(seed=seed, n_startup_trials=STARTUP_TRIALS, warn_independent_sampling=False)
    if word == "gp":
        _need("torch", "scipy")
        return Fresh(samplers.GPSampler(seed=seed, n_startup_trials=STARTUP_TRIALS), seed)
    group = problem is not None and problem.conditional and problem.objectives == 1
    tpe = samplers.TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS, group=group)
    if word in STEERED:
        if problem is not None and problem.objectives > 1:
            raise OptionError("a sampler of several objectives: tpe, nsga2 or random", word)
        space = problem.space if problem is not None and problem.told else None
        return Steered(word, tpe, seed=seed or 0, space=space, allowed=allowed)
    return Fresh(tpe, seed)


def _need(*packages: str) -> None:
    for package in packages:
        if not has(package):
            raise MissingExtra(package, EXTRA, "this sampler")


class Fresh(Around):
    """Draw as another sampler does, but no setting that the study has tried or is trying.

    In a finite space TPE comes back to the best setting again and again. A trial there costs as much as any
    other, and tells of noise, not of the space; the finalists' repeats tell of noise. What is tried instead lies
    beside it, one step at a time. Parameters outside the space that all trials share are left alone.

    Args:
        inner: A sampler of Optuna.
        seed: Seed of the draws that replace what was tried before.
    """

    def __init__(self, inner: Any, seed: int | None = None) -> None:
        super().__init__(inner)
        self._rng = np.random.default_rng(seed)

    def __str__(self) -> str:
        return type(self.inner).__name__

    def reseed_rng(self) -> None:
        """Start both from fresh random states."""
        self.inner.reseed_rng()
        self._rng = np.random.default_rng()

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
        """Return the space that is drawn from at once."""
        return dict(self.inner.infer_relative_search_space(study, trial))

    def sample_relative(self, study: Any, trial: Any, search_space: dict[str, Any]) -> dict[str, Any]:
        """Return a setting of that space."""
        drawn = self.inner.sample_relative(study, trial, search_space)
        if not drawn or math.isinf(math.prod(map(values_in, search_space.values()))):
            return dict(drawn)
        tried = _tried(study, trial)
        for _ in range(ATTEMPTS):
            if _key(drawn) not in tried:
                break
            drawn = self._beside(drawn, search_space)
        return dict(drawn)

    def _beside(self, drawn: dict[str, Any], space: dict[str, Any]) -> dict[str, Any]:
        """Return a setting that differs in one parameter: the next value of a number, any other choice."""
        names = [name for name in drawn if values_in(space[name]) > 1]
        if not names:
            return drawn
        name = names[int(self._rng.integers(len(names)))]
        distribution, value = space[name], drawn[name]
        if hasattr(distribution, "choices"):
            others = [choice for choice in distribution.choices if choice != value]
            return {**drawn, name: others[int(self._rng.integers(len(others)))]}
        step = distribution.step or 1
        ways = [value + way for way in (-step, step) if contains(distribution, value + way)]
        return {**drawn, name: ways[int(self._rng.integers(len(ways)))]}


def _tried(study: Any, trial: Any) -> set[tuple[tuple[str, Any], ...]]:
    found: Iterable[Any] = study.get_trials(deepcopy=False)
    return {_key(each.params) for each in found if each.number != trial.number and each.params}


def _key(params: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(params.items()))
