"""Calls in a row, timed where they run."""

from __future__ import annotations

import pytest

from nbopt.measurement.blocks import CallableSide


def test_short_calls_are_timed_several_at_once() -> None:
    side = CallableSide(lambda: None)
    side(1000)
    block = side(100_000)
    assert block.calls >= 100_000
    assert len(block.wall_ns) < 20_000
    assert block.elapsed_ns == pytest.approx(block.wall_ns.mean() * block.calls)
    assert len(block.settled) < len(block.wall_ns)


def test_what_a_callable_raises_is_passed_on_and_the_collector_runs_again() -> None:
    import gc

    def broken() -> None:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        CallableSide(broken)(1)
    assert gc.isenabled()
