"""Rounds: what was measured of sides that took turns, and what it says of their ratio."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nbopt.measurement.blocks import Block
from nbopt.measurement.places import Places, between_places
from nbopt.measurement.statistics import (
    EQUIVALENCE,
    NARROW,
    QUIET,
    Interval,
    RatioVerdict,
    doubted,
    median_interval,
    median_ratio,
    verdict_of_ratio,
)

Mask = NDArray[np.bool_]

UNSEEN = 0.25
"""Of other load not all is waiting: shared caches, execution units and clocks slow a side that never waits. Where
others use all processors a ratio is doubted by a quarter; their share of the processors scales that."""

PARALLEL = 1.3
"""From this many threads at work at once on, a side is one whose threads wait for each other."""
TANGLED = 1.25
"""Contention beyond which the times of such a side say nothing. What waits for a thread that has lost its processor
waits for slices of milliseconds, and spinning counts as running: beside one busy process, on two processors, a model
of 0.5 ms took 40 to 100 ms at a contention of 2."""
HOPELESSLY_TANGLED = 1.4
"""The same over all rounds, quiet or not: the kernel counts a wait when it is over, so that a block within which a
thread was waited for may look quiet, and the next one pays."""
ALONE = 0.05
"""Up to this share of the processors used by others, threads waited for each other: two threads of a side on two
processors wait for a quarter of their time on a machine of their own, and nothing hangs. Beside a process that was busy
half of the time it was 0.15 to 0.2, and ratios were wrong by as much as 2."""
RESOLUTION_NS = 500.0
"""Half a microsecond a call is the interpreter's, not the model's: two processes with one file of ten microseconds
differed by that much through where their objects lie."""
COARSEST = 0.25

_FEWEST_QUIET = 10
_AT_WORK = 0.9  # a thread that never gets a processor leaves a block with one at work: the fullest blocks tell


@dataclass(frozen=True)
class WarmUp:
    """Hold how a side became steady.

    Args:
        first_ms: Wall time of the very first call.
        call_ns: Wall time of one call at the end.
        calls: Calls made.
        steady: The medians of three successive windows agreed within 5%.
    """

    first_ms: float
    call_ns: float
    calls: int
    steady: bool


@dataclass(frozen=True)
class Latency:
    """Hold the times of one call of one side, in milliseconds.

    Args:
        median: Median wall time.
        low: Lower bound of the median's interval.
        high: Upper bound.
        p90: Wall time that 90% of calls stay below.
        p99: Wall time that 99% of calls stay below.
        cpu: CPU time over all threads.
        n: Calls timed.
    """

    median: float
    low: float
    high: float
    p90: float
    p99: float
    cpu: float
    n: int


class Rounds:
    """Keep the blocks of all complete rounds, whatever ended the measuring.

    Args:
        names: Names of the sides.
        apart: Each side lives in a process of its own: intervals then hold what differs between processes too.

    Attributes:
        blocks: For each side a block for each complete round.
        warm_up: For each side that was warmed up, how.
        seconds: Time spent since the first calls.
        fraction: Share of the budget that is used, 0 to 1.
        foreign: Share of the CPUs that other processes used, 0 to 1, or None where not known.
        complete: The budget was used or the precision reached; False after an interrupt.
    """

    def __init__(self, names: Iterable[str] = (), *, apart: bool = False) -> None:
        self.apart = apart
        self.blocks: dict[str, list[Block]] = {name: [] for name in names}
        self.warm_up: dict[str, WarmUp] = {}
        self.seconds = 0.0
        self.fraction = 0.0
        self.foreign: float | None = None
        self.complete = False

    def __len__(self) -> int:
        return min((len(blocks) for blocks in self.blocks.values()), default=0)

    @property
    def steady(self) -> bool:
        """Tell whether every side was steady before its rounds."""
        return bool(self.warm_up) and all(one.steady for one in self.warm_up.values())

    def times(self, name: str) -> NDArray[np.float64]:
        """Return a side's wall time of one call in nanoseconds for each round: the median of the block."""
        return np.array([np.median(block.settled) for block in self.blocks[name]])

    def cpu_times(self, name: str) -> NDArray[np.float64]:
        """Return a side's CPU time of one call in nanoseconds for each round: the mean of the block."""
        return np.array([block.cpu_ns / block.calls for block in self.blocks[name]])

    def kept(self) -> Mask:
        """Return which rounds figures come from: the quiet ones where there are enough, else all.

        Rounds are chosen by how long threads waited for a processor, never by how long they took.
        """
        waited = np.max([self._distortions(name) for name in self.blocks], axis=0) if self.blocks else np.empty(0)
        quiet: Mask = waited <= QUIET
        return quiet if quiet.sum() >= max(_FEWEST_QUIET, len(quiet) / 4) else np.ones(len(quiet), dtype=bool)

    def contention(self, *names: str) -> float:
        """Return how many times longer a side took than on an idle machine, over all rounds, >= 1.

        Of several sides (default all) it is the one that waited most.
        """
        return max((self._mean(name, self._contentions(name)) for name in names or self.blocks), default=1.0)

    def distortion(self, *names: str) -> float:
        """Return how wrong a ratio of these sides (default all) may be by contention, >= 1.

        This is contention again, but of the median calls of those rounds alone that figures come from.
        """
        kept = self.kept()
        return max((self._mean(name, self._distortions(name), kept) for name in names or self.blocks), default=1.0)

    def doubt(self, *names: str) -> float:
        """Return how wrong a ratio of these sides (default all) may be by other load, seen as waiting or not, >= 1.

        Infinity where the threads of a side hung on each other.
        """
        if any(self._tangled(name) for name in names or self.blocks):
            return math.inf
        return max(self.distortion(*names), 1 + UNSEEN * (self.foreign or 0.0))

    @property
    def busy(self) -> bool:
        """Tell whether other load disturbed the measurement."""
        return max(self.contention(), self.doubt()) > QUIET

    def ratio(self, baseline: str, variant: str, *, level: float = 0.95) -> Interval:
        """Return how many times faster `variant` is than `baseline`, in wall time.

        The interval holds what differs between processes, and what other load may have added (`doubted`).
        """
        spread = self._spread(self.paired_ratio(baseline, variant, level=level), baseline, variant)
        return doubted(spread, self.doubt(baseline), self.doubt(variant))

    def paired_ratio(self, baseline: str, variant: str, *, level: float = 0.95) -> Interval:
        """Return the same ratio of just these processes, in which more rounds make the interval narrower."""
        kept = self.kept()
        return median_ratio(self.times(baseline)[kept], self.times(variant)[kept], level=level)

    def cpu_ratio(self, baseline: str, variant: str, *, level: float = 0.95) -> Interval | None:
        """Return how many times less CPU time `variant` takes; None where the clock sees none."""
        kept = self.kept()
        base, other = self.cpu_times(baseline)[kept], self.cpu_times(variant)[kept]
        return median_ratio(base, other, level=level) if (base > 0).all() and (other > 0).all() else None

    def verdict(
        self, baseline: str, variant: str, *, level: float = 0.95, equivalence: float = EQUIVALENCE
    ) -> RatioVerdict:
        """Return what the ratio says of `variant`; see `verdict_of_ratio`.

        Args:
            baseline: Name of the side that is f.
            variant: Name of the side that is judged.
            level: Coverage of the interval.
            equivalence: Relative difference that means nothing; where calls are short and sides are processes
                apart, at least `RESOLUTION_NS` a call.
        """
        near = max(equivalence, self._resolution(baseline, variant))
        return verdict_of_ratio(
            self.ratio(baseline, variant, level=level),
            equivalence=near,
            narrow=max(NARROW, 1.5 * near),
        )

    def _resolution(self, *names: str) -> float:
        """Return the share of the faster side's call that is not the model's."""
        if not self.apart:
            return 0.0
        kept = self.kept()
        fastest = min(float(np.median(self.times(name)[kept])) for name in names)
        return min(RESOLUTION_NS / fastest, COARSEST)

    def _spread(self, ratio: Interval, *names: str) -> Interval:
        """Return the interval of a ratio with what differs between processes and instances in it."""
        if not self.apart or not (ratio.low > 0 and math.isfinite(ratio.high)):
            return ratio
        kept = self.kept()
        sides = [self._places(name, kept) for name in names]
        ratios = np.log(self.times(names[0])[kept] / self.times(names[1])[kept])
        between = math.hypot(between_places(ratios, *sides, level=ratio.level), self._resolution(*names))
        down, up = (math.hypot(math.log(bound / ratio.value), between) for bound in (ratio.low, ratio.high))
        return Interval(ratio.value, ratio.value * math.exp(-down), ratio.value * math.exp(up), ratio.level)

    def _places(self, name: str, kept: Mask) -> Places:
        blocks = [block for block, keep in zip(self.blocks[name], kept, strict=True) if keep]
        return Places(
            np.array([block.process for block in blocks], dtype=np.int64),
            np.array([block.instance for block in blocks], dtype=np.int64),
        )

    def latency(self, name: str, *, level: float = 0.95) -> Latency:
        """Return a side's times; the interval of the median holds what other load may have added to it."""
        kept = self.kept()
        blocks = [block for block, keep in zip(self.blocks[name], kept, strict=True) if keep]
        samples = np.concatenate([block.settled for block in blocks]) / 1e6
        middle = median_interval(np.log(self.times(name)[kept]), level=level)
        p50, p90, p99 = np.quantile(samples, [0.5, 0.9, 0.99])
        low = min(float(p50), math.exp(middle.low) / 1e6)
        high = max(float(p50), math.exp(min(middle.high, 700.0)) / 1e6)
        held = doubted(Interval(float(p50), low, high, level), self.doubt(name))
        return Latency(
            median=held.value,
            low=held.low,
            high=held.high,
            p90=float(p90),
            p99=float(p99),
            cpu=float(np.median(self.cpu_times(name)[kept])) / 1e6,
            n=sum(block.calls for block in blocks),
        )

    def _tangled(self, name: str) -> bool:
        """Tell whether other load hit a side whose threads wait for each other."""
        if self.foreign is not None and self.foreign <= ALONE:
            return False
        threads = [block.parallel for block in self.blocks[name] if block.parallel is not None]
        if not threads or float(np.quantile(threads, _AT_WORK)) < PARALLEL:
            return False
        contentions = self._contentions(name)
        return (
            self._mean(name, contentions, self.kept()) > TANGLED or self._mean(name, contentions) > HOPELESSLY_TANGLED
        )

    def _contentions(self, name: str) -> NDArray[np.float64]:
        blocks = self.blocks[name]
        known = [block.contention for block in blocks if block.contention is not None]
        if len(known) == len(blocks):
            return np.array(known)
        # Where the system tells no waiting: wall over CPU time of a block, against the side's best block. A
        # side that sleeps or has several threads is its own measure; what slows all blocks is not seen.
        stretch = np.array([block.elapsed_ns / max(block.cpu_ns, 1.0) for block in blocks])
        return stretch / stretch.min()

    def _distortions(self, name: str) -> NDArray[np.float64]:
        known = [block.distortion for block in self.blocks[name] if block.distortion is not None]
        return np.array(known) if len(known) == len(self.blocks[name]) else self._contentions(name)

    def _mean(self, name: str, stretches: NDArray[np.float64], kept: Mask | None = None) -> float:
        """Return by how much all blocks together were stretched."""
        took = np.array([block.elapsed_ns for block in self.blocks[name]])
        if kept is not None:
            took, stretches = took[kept], stretches[kept]
        return float(took.sum() / (took / stretches).sum()) if len(took) else 1.0
