"""How much of a time was spent waiting for a processor, and how much of the machine others used."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

_PROC = Path("/proc")
_NS_PER_TICK = 1e9 / os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 1e7
_LEAST_FOREIGN_NS = 50_000_000  # the kernel counts the machine's load in ticks of 10 ms: less is noise


@dataclass(frozen=True)
class Load:
    """Hold what a span of time cost some processes, and what others used meanwhile.

    Args:
        wall_ns: Length of the span in nanoseconds.
        run_ns: Time that threads of the processes ran, summed; None where the system does not tell.
        wait_ns: Time that they were ready to run and waited for a processor, summed; None likewise.
        busiest_ns: Time that the busiest single thread ran or waited; None likewise.
        alone_ns: Time that the thread that ran most ran: what the span would have taken on an idle machine,
            were it busy throughout; None likewise.
        foreign: Share (0 to 1) of this process's CPUs that other processes used; None where the span is
            too short or the system does not tell.
    """

    wall_ns: float
    run_ns: float | None = None
    wait_ns: float | None = None
    busiest_ns: float | None = None
    alone_ns: float | None = None
    foreign: float | None = None

    @property
    def contention(self) -> float | None:
        """Return how many times longer the span took than on an idle machine, >= 1; None where not known.

        This is wall time over CPU time of each busy thread, (run + wait) / run, for the part of the span in
        which a thread was busy: what sleeps is not slowed by others.
        """
        if self.run_ns is None or self.wait_ns is None or self.busiest_ns is None:
            return None
        if self.run_ns <= 0 or self.wall_ns <= 0:
            return 1.0
        busy = min(1.0, self.busiest_ns / self.wall_ns)
        waiting = self.wait_ns / (self.run_ns + self.wait_ns)
        return 1.0 / max(1.0 - busy * waiting, 1e-6)

    @property
    def parallel(self) -> float | None:
        """Return how many threads ran or wanted to at once, over the busiest one's time; None where not known."""
        if not self.run_ns or self.wait_ns is None or not self.busiest_ns:
            return None
        return (self.run_ns + self.wait_ns) / self.busiest_ns


class ContentionSampler:
    """Watch processes while something is measured.

    On Linux the kernel keeps for each thread how long it ran and how long it waited on a run queue
    (`/proc/PID/task/TID/schedstat`), which is contention measured directly. Elsewhere `Load.run_ns` and
    `wait_ns` are None, and whoever measures compares wall with CPU time instead.

    Args:
        pids: Processes to watch; None is this process alone.

    Examples:
        >>> with ContentionSampler() as sampler:
        ...     total = sum(range(1000))
        >>> sampler.load.wall_ns > 0
        True
    """

    def __init__(self, pids: Iterable[int] | None = None) -> None:
        self.pids = (os.getpid(),) if pids is None else tuple(pids)
        self.load = Load(0.0)
        self.start()

    def start(self) -> None:
        """Begin a span."""
        self._machine = _machine_busy_ns()
        self._threads = _thread_times(self.pids)
        self._began = time.perf_counter_ns()

    def stop(self) -> Load:
        """Return the load since `start`; the span goes on until the next `start`."""
        wall = time.perf_counter_ns() - self._began
        threads = _thread_times(self.pids)
        if threads is None or self._threads is None:
            self.load = Load(wall)
            return self.load
        run = wait = busiest = alone = 0
        for thread, (ran, waited) in threads.items():
            # A thread that began within the span counts from zero; one that ended is lost with its counts.
            ran_before, waited_before = self._threads.get(thread, (0, 0))
            run += ran - ran_before
            wait += waited - waited_before
            busiest = max(busiest, ran - ran_before + waited - waited_before)
            alone = max(alone, ran - ran_before)
        self.load = Load(wall, run, wait, busiest, alone, self._foreign(wall, run))
        return self.load

    def __enter__(self) -> ContentionSampler:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _foreign(self, wall: int, own: int) -> float | None:
        now = _machine_busy_ns()
        if now is None or self._machine is None or wall < _LEAST_FOREIGN_NS:
            return None
        share = (now - self._machine - own) / (wall * len(_cpus()))
        return min(max(share, 0.0), 1.0)


def _thread_times(pids: Iterable[int]) -> dict[tuple[int, str], tuple[int, int]] | None:
    """Return for each thread the nanoseconds it ran and waited, or None where the system does not tell."""
    times: dict[tuple[int, str], tuple[int, int]] = {}
    for pid in pids:
        try:
            threads = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208 - an order of magnitude faster than Path
        except OSError:
            continue  # no /proc, or the process has ended: either way there is nothing of it to count
        for thread in threads:
            try:
                with open(f"/proc/{pid}/task/{thread}/schedstat", "rb") as file:  # noqa: PTH123 - as above
                    fields = file.read().split()
            except OSError:
                continue  # the thread has ended since it was listed
            if len(fields) >= 2:
                times[pid, thread] = (int(fields[0]), int(fields[1]))
    return times or None


def _cpus() -> set[int]:
    """Return the CPUs that this process may run on."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def _machine_busy_ns() -> float | None:
    """Return how long this process's CPUs have been busy since boot, for whomever; None where not known."""
    try:
        lines = (_PROC / "stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    wanted = {f"cpu{number}" for number in _cpus()}
    ticks = 0
    for line in lines:
        name, *fields = line.split()
        if name in wanted and len(fields) >= 8:
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
            ticks += user + nice + system + irq + softirq + steal
    return ticks * _NS_PER_TICK
