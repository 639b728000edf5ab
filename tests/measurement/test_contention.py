from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from nbopt.measurement.contention import ContentionSampler, Load


@contextmanager
def burning(processes: int) -> Iterator[None]:
    """Keep some processes busy meanwhile."""
    code = "import sys; print(flush=True)\nwhile True: pass"
    running = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(processes)]
    try:
        for one in running:
            assert one.stdout is not None
            one.stdout.readline()
        yield
    finally:
        for one in running:
            one.kill()
            one.wait()
            assert one.stdout is not None
            one.stdout.close()


def _spin(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def test_contention_is_wall_over_cpu_time_of_the_busy_part() -> None:
    assert Load(100, run_ns=100, wait_ns=0, busiest_ns=100).contention == 1
    assert Load(200, run_ns=100, wait_ns=100, busiest_ns=200).contention == pytest.approx(2)
    # Two threads that each waited half of the time.
    assert Load(200, run_ns=200, wait_ns=200, busiest_ns=200).contention == pytest.approx(2)
    # What mostly sleeps is not slowed by the waiting of its short busy part.
    assert Load(1000, run_ns=10, wait_ns=10, busiest_ns=20).contention == pytest.approx(1 / 0.99)
    assert Load(1000, run_ns=0, wait_ns=0, busiest_ns=0).contention == 1
    assert Load(1000).contention is None


def test_a_thread_that_is_kept_waiting_is_one_at_work() -> None:
    assert Load(100, run_ns=200, wait_ns=0, busiest_ns=100).parallel == 2
    # One spins for the other, which waits for a processor.
    assert Load(100, run_ns=100, wait_ns=100, busiest_ns=100, alone_ns=100).parallel == 2
    assert Load(200, run_ns=100, wait_ns=100, busiest_ns=200, alone_ns=100).parallel == 1
    assert Load(100).parallel is None


def test_a_sampler_counts_what_ran() -> None:
    with ContentionSampler() as sampler:
        _spin(0.1)
    load = sampler.load
    assert load.run_ns is not None
    assert load.wait_ns is not None
    assert load.run_ns + load.wait_ns >= 0.8 * load.wall_ns
    assert load.contention is not None
    assert load.contention >= 1
    assert load.foreign is None or 0 <= load.foreign <= 1


def test_sleep_is_not_contention() -> None:
    with ContentionSampler() as sampler:
        time.sleep(0.1)
    assert sampler.load.contention is not None
    assert sampler.load.contention < 1.2


def test_load_of_others_is_seen() -> None:
    cpus = len(os.sched_getaffinity(0))
    with burning(2 * cpus), ContentionSampler() as sampler:
        _spin(0.6)
    assert sampler.load.contention is not None
    assert sampler.load.contention > 1.5
    assert sampler.load.foreign is not None
    assert sampler.load.foreign > 0.4


def test_another_process_is_watched() -> None:
    code = "import time\nprint(flush=True)\nend = time.perf_counter() + 30\nwhile time.perf_counter() < end: pass"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        with ContentionSampler([child.pid]) as sampler:
            time.sleep(0.3)
        child.kill()
    assert sampler.load.run_ns is not None
    assert sampler.load.wait_ns is not None
    assert sampler.load.run_ns + sampler.load.wait_ns > 0.5 * sampler.load.wall_ns


def test_a_process_that_is_gone_counts_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    with ContentionSampler([child.pid]) as sampler:
        pass
    assert sampler.load.run_ns is None
    assert sampler.load.contention is None
