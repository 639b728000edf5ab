"""Work beside the kernel's main thread: one job at a time, others wait, each can be cancelled during its work."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from nbopt.errors import Interrupted, NbOptError
from nbopt.progress import Progress, ProgressCallback

State = Literal["waiting", "running", "done", "cancelled", "failed"]

PATIENCE = 1.0
"""Seconds that a cancelled job may go on without a report before its thread is interrupted wherever it is."""


@dataclass(eq=False)
class Job:
    """Hold one piece of work and what came of it.

    Args:
        line: The magic that does the same.
        act: The work: told where to report, gives its result.
    """

    line: str
    act: Callable[[ProgressCallback], Any]
    state: State = "waiting"
    result: Any = None
    error: str = ""
    progress: Progress | None = None
    began: float = 0.0
    seconds: float = 0.0
    _thread: threading.Thread | None = None
    _cancelled: bool = False
    _clicks: int = 0
    _due: int = 0
    """The click whose interrupt has not been raised yet, 0 where none is due."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def is_over(self) -> bool:
        """Tell whether it has ended, one way or another."""
        return self.state in ("done", "cancelled", "failed")

    @property
    def stopping(self) -> bool:
        """Tell whether it was cancelled and has not ended yet."""
        return self._cancelled and not self.is_over

    @property
    def interrupting(self) -> bool:
        """Tell whether an interrupt has yet to reach it."""
        return self._due > 0 and not self.is_over

    def cancel(self) -> None:
        """Interrupt it once, at its next report, or where it stands if none comes; what was measured is kept.

        As in a cell, work may go on after an interrupt: a search measures the best that it has found by then. Called
        again, this interrupts that too.
        """
        with self._lock:
            if self.is_over or self._due:
                return
            self._cancelled = True
            if self.state == "waiting":
                self.state = "cancelled"
                return
            self._clicks += 1
            self._due = self._clicks
        timer = threading.Timer(PATIENCE, self._strike, [self._clicks])
        timer.daemon = True
        timer.start()

    def _strike(self, click: int) -> None:
        """Raise KeyboardInterrupt in the job's thread, as the kernel's interrupt does in the main one."""
        with self._lock:
            thread = self._thread
            if self._due == click and self.state == "running" and thread is not None and thread.ident is not None:
                self._due = 0
                raise_in(thread.ident, KeyboardInterrupt)

    def carry_out(self, told: Callable[[Job], None]) -> None:
        """Do the work in this thread.

        Args:
            told: Called when it begins, at each report and when it has ended.
        """
        with self._lock:
            if self.state != "waiting":
                return
            self.state, self.began, self._thread = "running", time.monotonic(), threading.current_thread()
        state: State = "failed"
        try:
            told(self)
            self.result = self.act(lambda progress: self._report(progress, told))
            state = "done"
        except (Interrupted, NbOptError) as error:
            self.result = error.comparison
            state, self.error = ("cancelled", "") if isinstance(error, Interrupted) else ("failed", str(error))
        except KeyboardInterrupt:
            state = "cancelled"
        except Exception as error:  # noqa: BLE001 - of the user's model or data: it becomes what the panel shows
            self.error = f"{type(error).__name__}: {error}"
        finally:
            self._end(state)
        told(self)

    def _end(self, state: State) -> None:
        with self._lock:
            if self._thread is not None and self._thread.ident is not None:
                raise_in(self._thread.ident, None)  # an interrupt that came too late must not reach what follows
            self.seconds = time.monotonic() - self.began
            self._thread = None
            self.state = state

    def _report(self, progress: Progress, told: Callable[[Job], None]) -> None:
        with self._lock:
            interrupted, self._due = self._due > 0, 0
        if not interrupted:
            self.progress = progress
        told(self)
        if interrupted:
            raise KeyboardInterrupt


def raise_in(ident: int, kind: type[BaseException] | None) -> None:
    """Have a thread raise an exception at its next bytecode, or take back one that it has not raised yet."""
    value = None if kind is None else ctypes.py_object(kind)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), value)


class Jobs:
    """Carry out jobs one after the other, in a thread of their own."""

    def __init__(self) -> None:
        self._jobs: list[Job] = []
        self._watchers: list[Callable[[Job], None]] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def __iter__(self) -> Iterator[Job]:
        return iter(list(self._jobs))

    def watch(self, told: Callable[[Job], None]) -> None:
        """Have a function called at each change of a job, in the thread in which it happens."""
        self._watchers.append(told)

    def unwatch(self, told: Callable[[Job], None]) -> None:
        """Call a function no more."""
        if told in self._watchers:
            self._watchers.remove(told)

    @property
    def current(self) -> Job | None:
        """Return the job that is at work, None where there is none."""
        return next((job for job in self if job.state == "running"), None)

    @property
    def idle(self) -> bool:
        """Tell whether nothing is at work or waits."""
        return all(job.is_over for job in self)

    def add(self, job: Job) -> Job:
        """Carry a job out as soon as those before it have ended."""
        with self._changed:
            self._jobs.append(job)
            if not self._at_work:
                self._thread = threading.Thread(target=self._work, name="nbopt-jobs", daemon=True)
                self._thread.start()
        self._tell(job)
        return job

    def cancel(self, job: Job) -> None:
        """Cancel a job, and tell the watchers."""
        job.cancel()
        self._tell(job)

    def wait(self, seconds: float) -> bool:
        """Wait until nothing is at work or waits, and the watchers were told; tell whether that is so."""
        with self._changed:
            return self._changed.wait_for(lambda: self.idle and not self._at_work, seconds)

    @property
    def _at_work(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _work(self) -> None:
        while True:
            with self._changed:
                job = next((each for each in self._jobs if each.state == "waiting"), None)
                if job is None:
                    # Under the same lock as `add`: a job that comes now starts a thread anew.
                    self._thread = None
                    self._changed.notify_all()
                    return
            job.carry_out(self._tell)
            with self._changed:
                self._changed.notify_all()

    def _tell(self, job: Job) -> None:
        for told in list(self._watchers):
            told(job)
