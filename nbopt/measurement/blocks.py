"""A block: many calls of one side in a row, timed where they run."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nbopt.measurement.contention import ContentionSampler

SAMPLE_NS = 50_000.0
"""Calls are timed in samples of at least this: reading the clock twice takes about 100 ns, so 0.2% of it."""

_UNSETTLED = 10  # of a block's samples one in so many, the first ones, find caches as the other side left them


@dataclass(frozen=True)
class Block:
    """Hold the times of some calls in a row.

    Args:
        wall_ns: For each sample the wall time of one call in nanoseconds (a mean where calls are so short
            that several make a sample).
        cpu_ns: CPU time of all calls together, over all threads, in nanoseconds.
        calls: Number of calls.
        contention: How many times longer the calls took than on an idle machine, >= 1; None where the
            system does not tell.
        distortion: How many times longer the median call took, >= 1: waiting comes in slices of some
            milliseconds, so that of short calls it hits few, and their median stays true. None: as contention.
        parallel: Threads that worked at once, or would have: the time that all ran or waited for a processor over that
            of the busiest one; None where not known. A thread that is kept waiting counts, since another may spin
            until it comes.
        instance: Which of several instances of the side's artifact was called, counted in its process.
        process: Which of several processes of the side that was.
    """

    wall_ns: NDArray[np.float64]
    cpu_ns: float
    calls: int
    contention: float | None = None
    distortion: float | None = None
    parallel: float | None = None
    instance: int = 0
    process: int = 0

    @property
    def settled(self) -> NDArray[np.float64]:
        """Return the samples without the first tenth, in which caches and threads come back to this side."""
        size = len(self.wall_ns)
        return self.wall_ns[max(1, size // _UNSETTLED) :] if size >= 3 else self.wall_ns

    @property
    def elapsed_ns(self) -> float:
        """Return the wall time of all calls together."""
        return float(self.wall_ns.mean()) * self.calls


Side = Callable[[int], Block]
"""Makes the given number of calls, or a few more, and tells their times."""


class CallableSide:
    """Time a callable in the process that it lives in.

    Args:
        function: Called without arguments; must have finished its work when it returns (synchronize a GPU).

    Examples:
        >>> side = CallableSide(lambda: sum(range(100)))
        >>> side(1000).calls >= 1000
        True
    """

    def __init__(self, function: Callable[[], Any]) -> None:
        self.function = function
        self._call_ns = SAMPLE_NS
        self._sampler = ContentionSampler()

    def __call__(self, iterations: int) -> Block:
        """Call at least `iterations` times; the collector of garbage rests meanwhile, as in timeit."""
        inner = max(1, min(iterations, math.ceil(SAMPLE_NS / self._call_ns)))
        samples = math.ceil(iterations / inner)
        wall = np.empty(samples)
        function, clock = self.function, time.perf_counter_ns
        collecting = gc.isenabled()
        gc.disable()
        try:
            self._sampler.start()
            cpu = time.process_time_ns()
            for index in range(samples):
                began = clock()
                for _ in repeat(None, inner):
                    function()
                wall[index] = clock() - began
            cpu = time.process_time_ns() - cpu
            load = self._sampler.stop()
        finally:
            if collecting:
                gc.enable()
        wall = np.maximum(wall, 1.0) / inner  # a clock too coarse to see the sample still moved
        self._call_ns = float(np.median(wall))
        calls = samples * inner
        distortion = load.contention
        if distortion is not None and load.alone_ns:
            # Sleep is no distortion, and waiting that hit no more than some outliers is none either.
            distortion = max(1.0, min(distortion, self._call_ns * calls / load.alone_ns))
        return Block(wall, float(cpu), calls, load.contention, distortion, load.parallel)
