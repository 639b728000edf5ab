"""When a search ends: its trials are used up, its time, its money, or nothing more is to be gained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nbopt.errors import OptionError
from nbopt.studies.extra import load
from nbopt.studies.samplers import STARTUP_TRIALS, Problem, problem_of

FEWEST = 30
"""Trials before it is asked whether more would gain anything: three times what a sampler starts with at random."""

SHARE = 0.003
"""Without a `min_gain`, what remains is not worth its time below this share of what the search has gained.

On tables of HPOBench and HPOLib (4 tasks, 10 seeds, 100 trials) it ended after 84 to 95 trials and lost 0 to 3% of the
gain; 0.01 ended after 68 to 83 and lost up to 8%: while a search still learns, the guess of what is to come is low.
"""


@dataclass(frozen=True)
class Budget:
    """Say what a search may cost.

    Args:
        trials: Trials at most, those that a continued study had already among them; 1 or more.
        seconds: Start no trial after this much time; None for no limit.
        cost: Money that may be spent; needs `price`.
        price: Money an hour of this machine costs, all jobs together.
        min_gain: End when all remaining trials together can be expected to gain less than this, in the score's unit.
            None takes 0.3% of what the search has gained over a middling setting of its start; 0 never ends early.

    Raises:
        OptionError: A value is out of range, or there is a cost and no price.
    """

    trials: int = 60
    seconds: float | None = None
    cost: float | None = None
    price: float | None = None
    min_gain: float | None = None

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise OptionError("trials of 1 or more", f"{self.trials}", "trials=60")
        for name in ("seconds", "cost", "price"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise OptionError(f"{name} above 0", f"{value}")
        if self.min_gain is not None and not self.min_gain >= 0:
            raise OptionError("a min_gain of 0 or more", f"{self.min_gain}", "min_gain=0 never ends early")
        if self.cost is not None and self.price is None:
            raise OptionError("a price beside the cost", f"a cost of {self.cost:g} alone", "--price 1.20 an hour")

    @property
    def limit(self) -> float:
        """Return the seconds that time and money allow."""
        paid = math.inf if self.cost is None or self.price is None else self.cost / self.price * 3600
        return min(math.inf if self.seconds is None else self.seconds, paid)

    def spent(self, seconds: float) -> float | None:
        """Return what so much time costs; None where there is no price."""
        return None if self.price is None else seconds / 3600 * self.price

    def over(self, seconds: float, reserve: float = 0.0) -> str:
        """Return why no further trial may start after `seconds`, "" while one may.

        Args:
            seconds: Time of the search so far.
            reserve: Time that is needed after the search; at most half the budget is kept for it.
        """
        if seconds < max(self.limit - reserve, self.limit / 2):
            return ""
        paid = self.cost is not None and self.price is not None and self.limit == self.cost / self.price * 3600
        return f"the cost of {self.cost:g} is spent" if paid else f"the time of {self.limit:.0f} s is used up"


def expected_gain(values: Sequence[float], rest: int) -> float:
    """Return what `rest` more trials can be expected to add to the best of `values`; larger is better.

    The best of n trials grows with the logarithm of n where tails fall off like an exponential, and slower where
    values end at a bound: so the next step, from n to n + rest, is about the last one, from n * n / (n + rest) to n,
    and that one is known exactly, from the order of the values. A sampler that learns crowds its trials near the
    best, which makes its last step, and so the guess, the smaller the more it has settled.

    Args:
        values: Finished trials' values.
        rest: Trials still to come.
    """
    n = len(values)
    if n < 2 or rest < 1:
        return 0.0 if rest < 1 else math.inf
    before = max(1, round(n * n / (n + rest)))
    ordered = np.sort(np.asarray(values, dtype=np.float64))[::-1]
    # Of `before` drawn without replacement, the chance that the best is the i-th of all, by the ratio of binomials.
    log_all = _log_choose(n, before)
    chances = np.asarray(
        [math.exp(_log_choose(n - 1 - i, before - 1) - log_all) if n - 1 - i >= before - 1 else 0.0 for i in range(n)]
    )
    return float(ordered[0] - (chances * ordered).sum())


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def nothing_to_gain(study: Any, budget: Budget, problem: Problem | None = None) -> str:
    """Return why further trials would gain nothing, "" where they may.

    Every setting of a finite space was tried; or, of one objective, what remains would add less than `min_gain`.
    `optuna.terminator` is not used: it is deprecated since 4.9, and removed in 6.

    Args:
        study: The study.
        budget: Its trials and `min_gain`.
        problem: What is searched; found from the study where it is None.
    """
    states = load().trial.TrialState
    if budget.min_gain == 0:
        return ""
    trials = study.get_trials(deepcopy=False)
    ended = [trial for trial in trials if trial.state in (states.COMPLETE, states.PRUNED)]
    known = problem or problem_of(study, budget.trials)
    settings = {tuple(sorted(trial.params.items())) for trial in ended}
    # What trials have asked for so far is not yet all that they will ask for.
    told = problem is not None and problem.told
    if (told or len(ended) >= STARTUP_TRIALS) and not known.conditional and len(settings) >= known.size:
        return f"all {len(settings)} settings were tried"
    values = [trial.value for trial in ended if trial.state == states.COMPLETE and len(trial.values) == 1]
    if len(values) < FEWEST or len(study.directions) > 1:
        return ""
    greater = study.direction == load().study.StudyDirection.MAXIMIZE
    scores = np.asarray(values) if greater else -np.asarray(values)
    rest = budget.trials - sum(trial.state.is_finished() for trial in trials)
    # The first trials are drawn at random: the later ones lie where the search has settled, and tell of no middle.
    middling = float(np.median(scores[:STARTUP_TRIALS]))
    least = SHARE * (float(scores.max()) - middling) if budget.min_gain is None else budget.min_gain
    gain = expected_gain(list(scores), rest)
    if rest < 1 or gain >= least:
        return ""
    return f"{rest} more trials would add about {gain:.2g}, and {least:.2g} is what would be worth it"
