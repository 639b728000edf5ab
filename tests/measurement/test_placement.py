"""All sides of a round run on the same processors, and other load that never makes them wait is doubted too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nbopt.measurement.blocks import Block
from nbopt.measurement.placement import Placement
from nbopt.measurement.rounds import Rounds

CPUS = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def test_fewer_threads_than_processors_take_turns_on_them() -> None:
    if len(CPUS) < 2:
        assert Placement(1).current == ()
        return
    place = Placement(1, 3)
    seen = set()
    for _ in range(40):
        assert len(place.current) == 1
        seen |= set(place.current)
        place.turn()
    assert seen == set(CPUS)
    place.free()
    assert place.current == tuple(CPUS)


def test_an_inference_that_takes_every_processor_is_not_placed() -> None:
    place = Placement(max(1, len(CPUS)))
    place.turn()
    assert place.current == ()


def test_every_thread_of_a_process_moves() -> None:
    script = (
        "import os, threading, time\n"
        "from nbopt.measurement.placement import run_on\n"
        "threading.Thread(target=time.sleep, args=(5,), daemon=True).start()\n"
        f"run_on([{CPUS[0]}])\n"
        "print([sorted(os.sched_getaffinity(int(t))) for t in os.listdir('/proc/self/task')])\n"
    )
    paths = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    places = json.loads(done.stdout)
    assert len(places) >= 2
    assert all(place == [CPUS[0]] for place in places)


@pytest.mark.parametrize(("foreign", "verdict"), [(0.0, "better"), (None, "better"), (0.5, "inconclusive")])
def test_load_that_makes_nobody_wait_is_doubted_too(foreign: float | None, verdict: str) -> None:
    rounds = Rounds(("f", "g"))
    for name, time_ns in (("f", 106_000.0), ("g", 100_000.0)):
        rounds.blocks[name] = [Block(np.full(10, time_ns), 1e6, 10, 1.0, 1.0) for _ in range(20)]
    rounds.foreign = foreign
    assert rounds.verdict("f", "g") == verdict
    assert rounds.busy == (verdict == "inconclusive")
