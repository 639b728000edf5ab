"""A study of Optuna that is led by a controller of `nbopt.controllers`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nbopt.controllers import Allowed, Controller, Grid, History, Settings, controller_of
from nbopt.studies.extra import load
from nbopt.studies.suggesting import values_in
from nbopt.studies.wrapping import Around

MOST_OPTIONS = 64
"""Values up to which a number is a dimension of a controller's space; finer ones, and logarithmic ones, TPE draws."""


class Steered(Around):
    """Draw the finite parameters by a controller, all others by another sampler.

    A candidate that failed, was pruned or broke a constraint counts as one that failed.

    Args:
        word: One of `nbopt.controllers.CONTROLLERS`.
        inner: A sampler of Optuna for the rest, and where all of the space was tried.
        seed: Seed of the controller's draws.
        space: Optuna's distributions, where they are known before the first trial; else what all trials have in common.
        allowed: Tells which settings may be tried: places, in the order of the names of the finite parameters.
    """

    def __init__(
        self,
        word: str,
        inner: Any,
        *,
        seed: int = 0,
        space: Mapping[str, Any] | None = None,
        allowed: Allowed | None = None,
    ) -> None:
        super().__init__(inner)
        self._word, self._seed, self._allowed = word, seed, allowed
        self._told = None if space is None else finite(space)
        self._common = load().search_space.IntersectionSearchSpace(include_pruned=True)
        self._made: tuple[dict[str, Any], Controller] | None = None

    def __str__(self) -> str:
        return self._word

    def reseed_rng(self) -> None:
        """Start the other sampler from a fresh random state; a controller's draws go by its seed and the history."""
        self.inner.reseed_rng()

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
        """Return the space that is drawn from at once."""
        return self._told if self._told is not None else finite(self._common.calculate(study))

    def sample_relative(self, study: Any, trial: Any, search_space: dict[str, Any]) -> dict[str, Any]:
        """Return a setting of that space."""
        if not search_space:
            return {}
        setting = self._controller(search_space).propose(history_of(study, search_space, trial.number))
        if setting is None:
            return dict(self.inner.sample_relative(study, trial, search_space))
        return {
            name: _value(each, place)
            for (name, each), place in zip(search_space.items(), setting.tolist(), strict=True)
        }

    def _controller(self, space: dict[str, Any]) -> Controller:
        if self._made is None or self._made[0] != space:
            grid = Grid(
                tuple(int(values_in(each)) for each in space.values()),
                tuple(not hasattr(each, "choices") for each in space.values()),
            )
            self._made = dict(space), controller_of(self._word, grid, seed=self._seed, allowed=self._allowed)
        return self._made[1]


def history_of(study: Any, space: Mapping[str, Any], number: int | None = None) -> History:
    """Return what the trials of a study tell a controller.

    Args:
        study: A study of one objective.
        space: Its finite distributions, in the order of the places.
        number: Number of the trial that is drawn for, which is left out.
    """
    sign = 1.0 if study.direction.name == "MAXIMIZE" else -1.0
    ended: list[list[int]] = []
    scores: list[float] = []
    pending: list[list[int]] = []
    for trial in study.get_trials(deepcopy=False):
        if trial.number == number or not all(name in trial.params for name in space):
            continue
        places = [_place(each, trial.params[name]) for name, each in space.items()]
        if None in places:  # set from outside, and no value of the space
            continue
        known = [place for place in places if place is not None]
        if not trial.state.is_finished():
            pending.append(known)
            continue
        kept = trial.state.name == "COMPLETE" and all(value <= 0 for value in trial.constraints.values())
        ended.append(known)
        scores.append(sign * trial.value if kept else np.nan)
    return History(_settings(ended, space), np.asarray(scores, np.float64), _settings(pending, space))


def _settings(rows: list[list[int]], space: Mapping[str, Any]) -> Settings:
    return np.asarray(rows, np.int64).reshape(len(rows), len(space))


def finite(space: Mapping[str, Any]) -> dict[str, Any]:
    """Return the distributions with few values, two or more, by name: Optuna tells a space in any order."""
    return {
        name: each
        for name, each in sorted(space.items())
        if 1 < values_in(each) <= MOST_OPTIONS and not getattr(each, "log", False)
    }


def _value(distribution: Any, place: int) -> Any:
    if hasattr(distribution, "choices"):
        return distribution.choices[place]
    return distribution.low + place * distribution.step


def _place(distribution: Any, value: Any) -> int | None:
    if hasattr(distribution, "choices"):
        return distribution.choices.index(value) if value in distribution.choices else None
    place = round((value - distribution.low) / distribution.step)
    return place if 0 <= place < values_in(distribution) else None
