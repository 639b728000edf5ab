"""How far a piece of work has come, as it is told to whoever waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Lap:
    """Say where a training is, as a person counts.

    Args:
        epoch: The epoch that runs, counted from 1.
        step: Its steps so far.
        steps: Its steps in all, None where the data does not tell.
    """

    epoch: int
    step: int
    steps: int | None = None


@dataclass(frozen=True)
class Progress:
    """Say how far a piece of work has come.

    Args:
        what: What is being done, a few words.
        done: Units done so far.
        total: Units in all, or None where that is not known.
        note: A figure worth seeing beside it (a loss, a quality).
        figure: The same as a name and a number, where a curve of it tells something.
        lap: Of a training, its epoch and step: of one that takes hours, the share alone would stand still.
    """

    what: str
    done: float = 0.0
    total: float | None = None
    note: str = ""
    figure: tuple[str, float] | None = None
    lap: Lap | None = None

    @property
    def share(self) -> float | None:
        """Return how much is done, 0 to 1, None where that is not known."""
        return self.done / self.total if self.total else None

    @property
    def count(self) -> str:
        """Return how much is done in words, "" where that is not known."""
        if self.lap is not None:
            of_epochs = f" of {self.total:,g}" if self.total and self.total > 1 else ""
            of_steps = f" of {self.lap.steps:,}" if self.lap.steps else ""
            epoch = f"epoch {self.lap.epoch:,}{of_epochs}, " if of_epochs else ""
            return f"{epoch}step {self.lap.step:,}{of_steps}"
        if self.share is None:
            return ""
        if self.total is not None and self.total > 1:
            return f"{self.done:.4g}/{self.total:g}" if self.done % 1 else f"{self.done:g}/{self.total:g}"
        return "under 1%" if 0 < self.share < 0.01 else f"{self.share:.0%}"


ProgressCallback = Callable[[Progress], None]


def silent(_: Progress) -> None:
    """Ignore progress."""


REPORT_SECONDS = 0.02
"""Between two reports of a training's steps: taking one costs some 20 microseconds after a step that used the caches
for itself, which of steps of 2 ms is a percent, and nobody reads faster."""


class Epoch:
    """Report the steps of one epoch: the first and the last, and between them as often as is of use.

    Args:
        progress: What is told.
        epochs: Of the training.
        epoch: Counted from 0.
        steps: In all, None where the data does not tell.
    """

    def __init__(self, progress: ProgressCallback, epochs: int, epoch: int, steps: int | None) -> None:
        self._progress, self._total, self._epoch, self._steps = progress, epochs, epoch, steps
        self._due = 0.0

    def done(self, step: int) -> float:
        """Return the epochs that are done after a step, counted from 1."""
        return self._epoch + (step / self._steps if self._steps else 0.0)

    def tell(self, step: int, loss: float) -> None:
        """Report a step, if it is time.

        Args:
            step: Counted from 1.
            loss: Mean over the epoch so far.
        """
        now = time.monotonic()
        if now < self._due and step != self._steps:
            return
        self._due = now + REPORT_SECONDS
        lap = Lap(self._epoch + 1, step, self._steps)
        told = Progress("training", self.done(step), self._total, f"loss {loss:.4f}", ("loss", loss), lap)
        self._progress(told)
