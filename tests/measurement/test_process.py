"""The worker's process: however its start or its end goes wrong, nothing of it stays open."""

from __future__ import annotations

import gc
import sys
import warnings
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from nbopt.measurement.process import WorkerProcess
from tests.processes import ANEW, command_of, workers


class InterruptedAtStart(WorkerProcess):
    """A worker whose user interrupts while the first request goes out."""

    def send(self, **request: Any) -> None:
        super().send(**request)
        raise KeyboardInterrupt


def no_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(FileNotFoundError):
        WorkerProcess(1)


def interrupted(_: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyboardInterrupt):
        InterruptedAtStart(1, "onnxruntime")


def killed(_: pytest.MonkeyPatch) -> None:
    process = WorkerProcess(1)
    psutil.Process(process.pid).kill()
    process._process.wait()
    process.send(do="prepare", runtime="x" * 1_000_000)
    process.close()


@pytest.mark.parametrize("ending", [no_python, interrupted, killed])
def test_nothing_stays_open(ending: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    WorkerProcess(1, "onnxruntime").close()  # what workers are forked from stays, and the way to it
    before = psutil.Process().num_fds()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        ending(monkeypatch)
        left, processes = psutil.Process().num_fds() - before, psutil.Process().children()
        gc.collect()
    assert [str(warning.message) for warning in told if warning.category is ResourceWarning] == []
    assert left == 0
    assert not any(ANEW in command_of(child) for child in processes)
    assert psutil.wait_procs(workers(), timeout=30)[1] == []
