"""A sampler of Optuna that leads a search over a grid: the other way round of `steering`."""

from __future__ import annotations

from typing import Any

import numpy as np

from nbopt.controllers import Allowed, Controller, Grid, History, Settings, controller_of
from nbopt.controllers.grid import Untried, starting
from nbopt.studies.extra import load, quiet

TPE = "tpe"
"""The word that `samplers` has for it too."""

STARTUP = 10
"""Candidates of a balanced draw before it has anything to learn from: Optuna's own number."""

ATTEMPTS = 50
"""Draws before one is taken at random, where what it likes was tried or is not allowed."""


class Asked:
    """Propose what Optuna's TPE does (Watanabe 2023, https://arxiv.org/abs/2304.11127), no setting twice.

    The study that it draws from lives as long as one proposal: what is kept is the history, as for every controller.

    Args:
        grid: The space.
        seed: Seed of its draws.
        allowed: Tells which settings may be tried; None allows all.
    """

    def __init__(self, grid: Grid, *, seed: int = 0, allowed: Allowed | None = None) -> None:
        self._grid, self._seed, self._untried = grid, seed, Untried(grid, allowed)
        self._planned = starting(grid, seed, STARTUP)[:STARTUP]

    def propose(self, history: History) -> Settings | None:
        """Return a setting that was not tried; None where none is left to be found.

        Raises:
            MissingExtra: Optuna is not installed.
        """
        if len(history.began) < STARTUP:
            planned = self._untried.first(history, self._planned)
            if planned is not None:
                return planned
        seeds = np.random.SeedSequence([self._seed, 4, len(history.began)])
        with quiet():
            study, space = self._study(history, int(seeds.generate_state(1)[0]))
            for _ in range(ATTEMPTS):
                # A draw that is not taken stays a trial under way, from which the next one keeps away.
                params = study.ask(space).params
                drawn = np.asarray([[params[name] for name in space]], np.int64)
                left = self._untried.among(drawn, history)
                if len(left):
                    return left[0]
        rng = np.random.default_rng(seeds)
        left = self._untried.some(history, rng)
        return left[int(rng.integers(len(left)))] if len(left) else None

    def _study(self, history: History, seed: int) -> tuple[Any, dict[str, Any]]:
        """Return a study in memory that knows the history, and its space."""
        optuna = load()
        distributions, states = optuna.distributions, optuna.trial.TrialState
        space = {
            str(at): distributions.IntDistribution(0, size - 1)
            if ordered
            else distributions.CategoricalDistribution(range(size))
            for at, (size, ordered) in enumerate(zip(self._grid.sizes, self._grid.ordered, strict=True))
        }
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=0, multivariate=True, constant_liar=True)
        study = optuna.create_study(direction="maximize", sampler=sampler)

        def told(setting: Settings, **more: Any) -> Any:
            params = dict(zip(space, setting.tolist(), strict=True))
            return optuna.trial.create_trial(params=params, distributions=space, **more)

        # TPE looks away from trials that failed, and would come back to them: here they are as bad as the worst.
        ended = zip(history.settings, history.filled().tolist(), strict=True)
        study.add_trials([told(setting, value=score) for setting, score in ended])
        if history.pending is not None:
            study.add_trials([told(setting, state=states.RUNNING) for setting in history.pending])
        return study, space


def proposer_of(word: str, grid: Grid, *, seed: int = 0, allowed: Allowed | None = None) -> Controller:
    """Return a controller: one of `nbopt.controllers`, or "tpe"; see `nbopt.controllers.controller_of`.

    Raises:
        OptionError: There is no such controller.
    """
    if word == TPE:
        return Asked(grid, seed=seed, allowed=allowed)
    return controller_of(word, grid, seed=seed, allowed=allowed)
