"""Zeros that hold while a model trains, and become more by a schedule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from nbopt.narrowing.lowering import Lowering
from nbopt.narrowing.subjects import Choice, Shares, Subject
from nbopt.techniques._prune.schedules import share_at


@dataclass
class _Zeros:
    """Hold how far a model is pruned, and what went of it."""

    share: float = -1.0
    choice: Choice = field(default_factory=Choice)
    kept: dict[str, Any] = field(default_factory=dict)


@dataclass
class Holding:
    """Keep a subject's weights at zero, as many as the schedule asks for by now.

    Args:
        subject: What is pruned.
        lowering: To the framework.
        target: Shares at the end.
        schedule: How it comes there; see `share_at`.
        rounds: How often it prunes.
    """

    subject: Subject
    lowering: Lowering
    target: Shares
    schedule: str = "one-shot"
    rounds: int = 1
    _zeros: WeakKeyDictionary[Any, _Zeros] = field(default_factory=WeakKeyDictionary)
    _once: _Zeros | None = None

    def pace(self, model: Any, done: float) -> bool:
        """Prune further where the schedule says so; return whether the target is reached."""
        zeros, share = self._of(model), share_at(self.schedule, done, self.rounds)
        if share > zeros.share:
            zeros.share, zeros.kept = share, {}
            zeros.choice = self.subject.choose(model, times(self.target, share))
            self.hold(model)
            if self.schedule == "one-shot":
                self._once = zeros
        return zeros.share >= 1.0

    def _of(self, model: Any) -> _Zeros:
        """Return the zeros of a model: a search trains several copies, and each has its own.

        A copy of what was pruned at once has the zeros of that already, and they must hold in it too.
        """
        if model not in self._zeros:
            self._zeros[model] = _Zeros() if self._once is None else _Zeros(self._once.share, self._once.choice)
        return self._zeros[model]

    def hold(self, model: Any) -> None:
        """Put the zeros back that a training step may have filled."""
        zeros = self._of(model)
        self.lowering.put_zeros(model, zeros.choice.masks, zeros.kept)

    def finish(self, model: Any) -> Any:
        """Return the model in its final form."""
        self.hold(model)
        return self.subject.finished(model, self.choice(model))

    def choice(self, model: Any) -> Choice:
        """Return what has gone of a model so far."""
        return self._of(model).choice

    def __getstate__(self) -> dict[str, Any]:
        """Leave the zeros of this process's copies: another process trains others."""
        once = None if self._once is None else _Zeros(self._once.share, self._once.choice)
        return {**vars(self), "_zeros": {}, "_once": once}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _zeros=WeakKeyDictionary())


def times(shares: Shares, factor: float) -> Shares:
    """Return shares multiplied."""
    if factor == 1.0:
        return shares
    if isinstance(shares, Mapping):
        return {name: share * factor for name, share in shares.items()}
    return shares * factor
