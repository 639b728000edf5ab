"""The file of a journal of studies: how it is locked, and when its lines are sure to be on the disk."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from nbopt.studies.extra import load

GRACE_SECONDS = 10
"""After this time without a write, the lock of a writer that was killed is taken away. Optuna's default is 30."""

_ON_THE_WAY = frozenset({5, 7, 8, 9})
"""Operations of the journal's format, by number, of a trial that has not ended: a parameter, an intermediate value,
an attribute of the user or of the system."""


def journal_backend(path: Path) -> Any:
    """Return Optuna's journal file, which waits for the disk only where a trial begins or ends.

    Optuna waits after every line, eight times a trial; on disks that take 5 ms for it that alone is 40 ms. A process
    that is killed loses nothing that it wrote; if the machine loses its power, a trial that was not finished is lost,
    which it would be anyway. The line that ends a trial takes with it all those before.

    Args:
        path: The journal.
    """
    lock: Any = JournalLock(str(path))
    journal: Any = load().storages.journal

    class Backend(journal.JournalFileBackend):
        def append_logs(self, logs: list[dict[str, Any]]) -> None:
            lines = "".join(f"{json.dumps(log, separators=(',', ':'))}\n" for log in logs)
            with lock, path.open("ab") as file:
                file.write(lines.encode())
                file.flush()
                if not all(log.get("op_code") in _ON_THE_WAY for log in logs):
                    os.fsync(file.fileno())

    return Backend(str(path), lock_obj=lock)


class JournalLock:
    """Take Optuna's own lock of a journal, which other programs know, behind one that the system takes from the dead.

    Optuna's alone was tried: two that wait for the lock of a killed writer take it away one after the other, the second
    from the first, which then raises "did not possess lock" (1 of 8 runs with three processes, Optuna 5.0). With the
    other lock before it, one waits there for Optuna's, and the rest for that one.

    Args:
        path: The journal.
    """

    def __init__(self, path: str) -> None:
        self._inner = load().storages.journal.JournalFileSymlinkLock(path, grace_period=GRACE_SECONDS)
        self._path = f"{path}.queue"
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        """Wait for the lock."""
        descriptor = _queued(self._path)
        try:
            self._inner.acquire()
        except BaseException:
            _left(descriptor)
            raise
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Give it back."""
        descriptor, self._descriptor = self._descriptor, None
        try:
            self._inner.release()
        finally:
            _left(descriptor)

    def __enter__(self) -> JournalLock:
        self.acquire()
        return self

    def __exit__(self, *_: Any) -> None:
        self.release()


def _queued(path: str) -> int | None:
    """Wait in the queue; return what must be closed to leave it, None where the system has no such lock."""
    try:
        import fcntl
    except ImportError:
        return None  # Windows: there two that wait may meet
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _left(descriptor: int | None) -> None:
    if descriptor is None:
        return
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # closing alone leaves it with a process forked in the meantime
    finally:
        os.close(descriptor)
