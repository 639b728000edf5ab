"""Which processors the sides of a round run on: in each round the same ones for all of them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np


class Placement:
    """Choose processors for each round, where an inference takes fewer of them than there are.

    The scheduler leaves a process where it is: for a whole measurement one side may share a core's caches and execution
    units with other work, and the other side have a core to itself. That difference is constant, so no interval shows
    it; two measurements of one file differed by 6% through it. Taking turns on the same processors makes it fall on
    all sides alike.

    Args:
        threads: Threads of one inference.
        rng: Generator or seed of the choice.

    Attributes:
        current: Processors of this round, in order; empty where the system does not let a process choose, or where
            an inference takes all of them.
    """

    def __init__(self, threads: int, rng: np.random.Generator | int = 0) -> None:
        self._all = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        self._threads = threads
        # Spawned: with the very numbers that order the sides, the first side of a round would be bound to a processor.
        self._rng = np.random.default_rng(rng).spawn(1)[0]
        self.current: tuple[int, ...] = ()
        self.turn()

    def turn(self) -> None:
        """Choose anew, for the round to come."""
        if self._threads < len(self._all):
            self.current = tuple(sorted(self._rng.choice(self._all, self._threads, replace=False).tolist()))

    def free(self) -> None:
        """Let all processors be used again."""
        if self.current:
            self.current = tuple(self._all)


def run_on(cpus: Iterable[int]) -> None:
    """Let all threads of this process run on these processors alone, those of a library's pools too."""
    wanted = set(cpus)
    for thread in Path("/proc/self/task").iterdir():
        try:
            os.sched_setaffinity(int(thread.name), wanted)
        except (ProcessLookupError, PermissionError):
            continue  # it ended since it was listed, or it is the system's
