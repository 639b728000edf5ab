"""Zeros that hold while a model trains, and become more by a schedule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nbopt.techniques._prune.lowering import Lowering, Masks
from nbopt.techniques._prune.schedules import share_at
from nbopt.techniques._prune.subjects import Shares, Subject


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
    _share: float = -1.0
    _masks: Masks = field(default_factory=dict)
    _kept: dict[str, Any] = field(default_factory=dict)

    def pace(self, model: Any, done: float) -> bool:
        """Prune further where the schedule says so; return whether the target is reached."""
        share = share_at(self.schedule, done, self.rounds)
        if share > self._share:
            self._share = share
            self._masks = self.subject.masks(model, times(self.target, share))
            self._kept = {}
            self.hold(model)
        return self._share >= 1.0

    def hold(self, model: Any) -> None:
        """Put the zeros back that a training step may have filled."""
        self.lowering.put_zeros(model, self._masks, self._kept)

    def finish(self, model: Any) -> Any:
        """Return the model in its final form."""
        self.hold(model)
        return self.subject.finished(model)


def times(shares: Shares, factor: float) -> Shares:
    """Return shares multiplied."""
    if factor == 1.0:
        return shares
    if isinstance(shares, Mapping):
        return {name: share * factor for name, share in shares.items()}
    return shares * factor
