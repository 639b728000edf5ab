from __future__ import annotations

import math
import time
from dataclasses import replace

import pytest

from nbopt.errors import OptionError
from nbopt.measurement import measure
from nbopt.measurement.paired import Timing
from nbopt.measurement.rounds import Latency

LATENCY = Latency(median=0.41, low=0.40, high=0.42, p90=0.5, p99=0.6, cpu=0.4, n=1000)
TIMING = Timing(
    ratio=2.05,
    low=1.98,
    high=2.11,
    level=0.95,
    verdict="better",
    contention=1.02,
    distortion=1.01,
    foreign_load=0.1,
    f=LATENCY,
    g=replace(LATENCY, median=0.2, low=0.196, high=0.204),
    cpu_ratio=None,
    rounds=25,
    seconds=1.1,
    steady=True,
)


def _work(n: int) -> int:
    return sum(range(n))


def test_the_same_callable_is_never_called_different() -> None:
    verdicts = [measure(lambda: _work(2000), lambda: _work(2000), budget=0.25, seed=i).verdict for i in range(10)]
    assert sum(verdict in {"better", "worse"} for verdict in verdicts) <= 1


def test_half_the_work_is_found() -> None:
    timing = measure(lambda: _work(4000), lambda: _work(2000))
    assert timing.verdict in {"better", "inconclusive"}
    if timing.distortion < 1.1:
        assert timing.verdict == "better"
        assert 1.7 < timing.ratio < 2.5
    assert timing.low <= timing.ratio <= timing.high
    assert timing.rounds >= 3
    assert timing.contention >= 1
    assert timing.f.n > timing.rounds


def test_twice_the_work_is_found() -> None:
    assert measure(lambda: _work(2000), lambda: _work(4000), budget=0.5).verdict in {"worse", "inconclusive"}


def test_sleeping_is_time_too() -> None:
    timing = measure(lambda: time.sleep(0.001), lambda: time.sleep(0.003), budget=0.6)
    assert timing.ratio < 0.6
    assert timing.verdict in {"worse", "inconclusive"}


def test_cpu_time_agrees_with_the_work() -> None:
    timing = measure(lambda: _work(6000), lambda: _work(2000), budget=0.4)
    assert timing.cpu_ratio is not None
    assert 2 < timing.cpu_ratio.value < 4.5


@pytest.mark.parametrize(("f", "g"), [(3, len), (len, "g")])
def test_only_callables_are_measured(f: object, g: object) -> None:
    with pytest.raises(OptionError, match="to call without arguments"):
        measure(f, g)  # type: ignore[arg-type]


@pytest.mark.parametrize("level", [0.0, 1.0, 95])
def test_a_level_is_a_probability(level: float) -> None:
    with pytest.raises(OptionError, match=r"level=0\.95"):
        measure(list, list, level=level)


def test_what_is_wrong_with_the_callable_is_its_own_error() -> None:
    def broken() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        measure(list, broken)


def test_in_words() -> None:
    assert str(TIMING) == ("g is 2.05x [1.98, 2.11] faster than f (f 0.41 ms, g 0.200 ms; 25 rounds, machine quiet)")
    slower = replace(TIMING, ratio=0.5, low=0.48, high=0.52, verdict="worse", labels=("torch", "int8"))
    assert str(slower).startswith("int8 is 2.00x [1.92, 2.08] slower than torch (torch 0.41 ms")
    same = replace(TIMING, ratio=1.002, low=0.99, high=1.01, verdict="same")
    assert str(same).startswith("g is as fast as f: ratio 1.00 [0.99, 1.01]")
    busy = replace(same, verdict="inconclusive", contention=1.84, distortion=1.5)
    assert str(busy).startswith("inconclusive, machine busy: g against f, ratio 1.00 [0.99, 1.01]")
    assert "calls took 1.8 times their own time" in str(busy)
    assert str(busy).endswith("repeat when less else runs")
    wide = replace(TIMING, ratio=1.2, low=0.0, high=math.inf, verdict="inconclusive")
    assert str(wide).endswith('measure longer (budget="full")')


def test_the_public_name_is_the_same_function() -> None:
    import nbopt

    assert nbopt.measure is measure
