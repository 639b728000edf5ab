"""One measurement at a time on a machine, whatever kernels and jobs run on it."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOCK_NAME = "nbopt-measuring.lock"
POLL_SECONDS = 0.1


@contextmanager
def measuring(waiting: Callable[[float], None] = lambda _: None) -> Iterator[None]:
    """Hold the machine's measuring lock; it goes with the process, however that ends.

    Args:
        waiting: Called every 0.1 s with the seconds waited so far, while another process measures.
    """
    try:
        import fcntl
    except ImportError:
        # Windows: measurements of several kernels are not serialised there, contention still shows them.
        yield
        return
    descriptor = _opened()
    if descriptor is None:
        # Nowhere to write: measurements are not serialised, contention still shows them.
        yield
        return
    try:
        began = time.monotonic()
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                waiting(time.monotonic() - began)
                time.sleep(POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)


def _opened() -> int | None:
    """Return the open file of the lock, this user's own where the machine's is closed to others; None without one."""
    folder = Path(tempfile.gettempdir())
    for name in (LOCK_NAME, f"{os.getuid()}-{LOCK_NAME}"):
        try:
            descriptor = os.open(folder / name, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError:
            # Another user's file: reading is enough to lock it, so that any user of the machine may take part.
            with suppress(OSError):
                return os.open(folder / name, os.O_RDONLY)
            continue
        with suppress(OSError):  # not this user's file
            os.fchmod(descriptor, 0o666)  # whatever this user's umask is
        return descriptor
    return None
