"""The search among candidates that share their weights: cheap looks, within latencies that a table guesses.

What a candidate scores with shared weights only ranks it; so nothing here is a result. The best for each latency go on
to be built, measured and fine-tuned, beside uniform scaling and a random search of the same latency.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nbopt.architectures.latency import Latency
from nbopt.architectures.space import Space
from nbopt.controllers import History, Settings
from nbopt.errors import NbOptError, OptionError
from nbopt.studies.asking import proposer_of

Array = np.ndarray[Any, Any]

HIGHEST, LOWEST = 0.8, 0.3
"""Shares of the whole model's latency between which the best is looked for, where the user names no limit."""

ABOVE_SMALLEST = 1.05
"""How much slower than the smallest candidate a limit is at least: below it there would be nothing to choose."""

Judge = Callable[[Settings], float]
"""Takes a setting, returns its quality with shared weights; an error of ours is a candidate that failed."""

Going = Callable[[], bool]
"""Tells whether there is still time for one more candidate."""


@dataclass(frozen=True)
class Look:
    """Hold one candidate that was looked at.

    Args:
        setting: Its places.
        quality: With shared weights, the greater the better; NaN where it failed.
        latency_ms: What the table guesses.
        reason: Why it failed, or "".
    """

    setting: tuple[int, ...]
    quality: float
    latency_ms: float
    reason: str = ""


@dataclass(frozen=True)
class Explored:
    """Hold what was looked at.

    Args:
        looks: All candidates, in order.
        ended: Why it ended before all trials were used, or "".
        interrupted: The user interrupted it.
    """

    looks: tuple[Look, ...]
    ended: str = ""
    interrupted: bool = False

    @property
    def history(self) -> History:
        """Return it as controllers are told it."""
        settings = np.asarray([look.setting for look in self.looks], np.int64)
        return History(settings, np.asarray([look.quality for look in self.looks]))

    def ranked(self, limit_ms: float) -> list[Look]:
        """Return the candidates that ran and are within a latency by the table, the best first."""
        within = [look for look in self.looks if np.isfinite(look.quality) and look.latency_ms <= limit_ms]
        return sorted(within, key=lambda look: -look.quality)

    def best_within(self, limit_ms: float) -> Look | None:
        """Return the best candidate within a latency, None where there is none."""
        return next(iter(self.ranked(limit_ms)), None)


def limits_of(latency: Latency, whole_ms: float, max_latency: float | None, count: int = 4) -> tuple[float, ...]:
    """Return the latencies within which the best is looked for: the user's, or a ladder below the whole model's.

    Args:
        latency: The table.
        whole_ms: What the whole model takes by it.
        max_latency: The user's limit in milliseconds, None where nobody said one.
        count: Rungs of the ladder, 1 or more.

    Raises:
        OptionError: Not even the smallest candidate is that fast.
    """
    smallest = float(latency.table.at(np.zeros((1, latency.settings.shape[1]), np.int64))[0])
    if max_latency is None:
        least = max(LOWEST * whole_ms, ABOVE_SMALLEST * smallest)
        most = HIGHEST * whole_ms
        return tuple(np.geomspace(most, least, count).tolist()) if least < most else (least,)
    if smallest > max_latency:
        raise OptionError(
            f"a --max-latency that a candidate can keep: the smallest is guessed at {smallest:.3g} ms",
            f"{max_latency:g} ms",
            f"--max-latency {smallest * 1.2:.2g}ms, or nas | quantize",
        )
    return (max_latency,)


def judged(settings: Settings, judge: Judge, latency: Latency, *, going: Going = lambda: True) -> Explored:
    """Return what candidates that are given are worth, each once, as long as there is time; one at least.

    Args:
        settings: The candidates.
        judge: Gives a candidate's quality.
        latency: The table.
        going: Asked before each candidate but the first.
    """
    looks: list[Look] = []
    for setting in settings:
        if looks and not going():
            return Explored(tuple(looks), f"the budget was used up after {len(looks)} of {len(settings)} candidates")
        if tuple(setting.tolist()) in {look.setting for look in looks}:
            continue
        try:
            looks.append(_look(setting, judge, latency))
        except KeyboardInterrupt:
            if not looks:
                raise
            return Explored(tuple(looks), f"interrupted after {len(looks)} candidates", interrupted=True)
    return Explored(tuple(looks))


def explored(
    space: Space,
    judge: Judge,
    latency: Latency,
    limits: Sequence[float],
    *,
    word: str = "surrogate",
    trials: int = 60,
    seed: int = 0,
    going: Going = lambda: True,
    known: Explored | None = None,
) -> Explored:
    """Look for the best candidate within each of some latencies; each learns from what all have seen.

    Args:
        space: The space.
        judge: Gives a candidate's quality.
        latency: The table.
        limits: Latencies in milliseconds.
        word: Word of a controller, or "tpe".
        trials: Candidates in all, shared out alike among the limits.
        seed: Of the draws.
        going: Asked before each candidate.
        known: What an earlier search of the same space saw: it goes on from there.

    Raises:
        KeyboardInterrupt: The user interrupted before the first candidate; later the search ends with what it has.
    """
    looks = list(known.looks) if known is not None else []
    told = Explored(tuple(looks)).history if looks else History.empty(space.grid)
    ended = ""
    for rung, limit in enumerate(limits):
        controller = proposer_of(word, space.grid, seed=seed + rung, allowed=latency.within(limit))
        until = trials * (rung + 1) // len(limits)
        while len(looks) < until:
            if not going():
                return Explored(tuple(looks), f"the budget was used up after {len(looks)} of {trials} candidates")
            try:
                setting = controller.propose(told)
                look = None if setting is None else _look(setting, judge, latency)
            except KeyboardInterrupt:
                if not looks:
                    raise
                ended = f"interrupted after {len(looks)} of {trials} candidates: the best so far"
                return Explored(tuple(looks), ended, interrupted=True)
            if setting is None or look is None:
                ended = "every candidate within the latency was tried"
                break
            looks.append(look)
            told = told.then(setting, look.quality)
    return Explored(tuple(looks), ended)


def _look(setting: Settings, judge: Judge, latency: Latency) -> Look:
    places, guess = tuple(int(place) for place in setting), float(latency.table.at(setting[None])[0])
    try:
        return Look(places, judge(setting), guess)
    except NbOptError as error:
        return Look(places, float("nan"), guess, error.one_line)


def uniform_within(
    space: Space, measure: Callable[[Settings], float], limit_ms: float
) -> tuple[Settings, float] | None:
    """Return the widest model scaled alike throughout that is measured to be within a latency, and what it took.

    Args:
        space: The space.
        measure: Exports a candidate and times it, in milliseconds.
        limit_ms: What the search's own choice took.
    """
    shares = sorted({option for choice in space.choices if choice.kind == "width" for option in choice.options})
    settings: list[Settings] = []
    for share in shares:
        setting = space.uniform(share)
        if not settings or (setting != settings[-1]).any():
            settings.append(setting)
    low, high, found = 0, len(settings) - 1, None
    while low <= high:
        middle = (low + high) // 2
        taken = measure(settings[middle])
        if taken <= limit_ms:
            found, low = (settings[middle], taken), middle + 1
        else:
            high = middle - 1
    return found
