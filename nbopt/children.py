"""Processes that are started here: what they find in their environment, how they end, and what they said last."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import IO, Any, Protocol


class Child(Protocol):
    """Be what is used here of `subprocess.Popen`."""

    stdin: IO[Any] | None
    stdout: IO[Any] | None

    @property
    def pid(self) -> int:
        """Return its number."""

    def poll(self) -> int | None:
        """Return its status, None where it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Return its status when it has ended."""

    def kill(self) -> None:
        """End it."""


PASSING = ("PYTEST_CURRENT_TEST",)
"""Variables that change all the time and tell a library nothing: with them no two environments would be the same."""


def environment_of(threads: int) -> dict[str, str]:
    """Return the child's environment: equal threads for every library, and the parent's import path."""
    count = str(threads)
    paths = [entry or str(Path.cwd()) for entry in sys.path]
    inherited = {name: value for name, value in os.environ.items() if name not in PASSING}
    return {
        **inherited,
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
        "TF_NUM_INTRAOP_THREADS": count,
        "TF_NUM_INTEROP_THREADS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "PYTHONWARNINGS": "ignore",
    }


def cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def end(process: Child) -> None:
    """End a process that leads a session of its own, and whatever it started; it has nothing to save."""
    if process.poll() is None:
        if hasattr(os, "killpg"):
            with contextlib.suppress(ProcessLookupError):  # it ended since the check
                os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()


CRASHES = ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL")
"""Signals by which native code fails of itself; what the system ends for its memory, it ends with SIGKILL.

OpenVINO 2026.4 ends by SIGSEGV on an int8 EfficientNet of Keras with a free batch axis.
"""


def advice(words: str) -> str:
    """Return what to do about an end that `epitaph` tells of."""
    if words.split(":", maxsplit=1)[0].endswith(CRASHES):
        return "native code crashed on this model"
    return "free some memory (the system ends what takes too much of it)"


def epitaph(process: Child, log: Any, seconds: float | None = None) -> str:
    """Tell how a process ended, with the last line that it wrote.

    Args:
        process: One that closed its end.
        log: The file that its errors went to.
        seconds: How long to wait for its status; None for as long as it takes.
    """
    code = process.wait(seconds)
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
    log.seek(0)
    lines = log.read().decode(errors="replace").strip().splitlines()
    return f"ended with {how}" + (f": {lines[-1][:300]}" if lines else "")
