"""Start worker processes: anew, or forked from one that has imported the framework."""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from nbopt import children
from nbopt.children import Child, environment_of
from nbopt.runtimes import runtime_named

WORKER, SERVER = "nbopt.measurement.worker", "nbopt.measurement.forkserver"
FORKS = sys.platform == "linux"
"""macOS's own libraries do not survive a fork, and Windows has none."""

MOST_SERVERS = 6
"""Prepared processes that are kept: there is one for each framework, number of threads and environment."""

Key = tuple[int, int, tuple[str, ...], str, tuple[tuple[str, str], ...]]


def spawn(threads: int, log: IO[bytes]) -> Child:
    """Start a worker anew.

    Args:
        threads: Threads of one inference, the same for every numerical library in it.
        log: Where its errors go.
    """
    return subprocess.Popen(
        [sys.executable, "-m", WORKER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        env=environment_of(threads),
        start_new_session=True,  # Ctrl-C in a terminal goes to the whole session: the parent decides here
        text=True,
    )


def fork(threads: int, log: IO[bytes], runtime: str) -> Child:
    """Have a worker forked from a prepared process, which is started where there is none; it returns at once.

    Args:
        threads: Likewise.
        log: Likewise.
        runtime: Word of the runtime; the framework that it needs, if any, is imported by then.

    Raises:
        OptionError: There is no such runtime.
    """
    chosen = runtime_named(runtime)
    packages = tuple(chosen.packages) if chosen.needs_framework else ()
    environment = environment_of(threads)
    # What is set in the environment, and where relative paths begin, is as a process started now would find it.
    key = (os.getpid(), threads, packages, str(Path.cwd()), tuple(sorted(environment.items())))
    with _LOCK:
        server = _SERVERS.get(key)
        if server is not None:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it was idle for long, and has ended
                return server.fork(log)
            _SERVERS.pop(key).retire()
        # Imports change the environment (torch's compiler sets its cache, ONNX Runtime's tools add a path): what was
        # before does not come back.
        stale = [other for other in _SERVERS if other[:3] == key[:3]]
        for other in stale:
            _SERVERS.pop(other).retire()
        while len(_SERVERS) >= MOST_SERVERS:
            _SERVERS.pop(next(iter(_SERVERS))).retire()
        _RETIRED[:] = [process for process in _RETIRED if process.poll() is None]
        _SERVERS[key] = server = Server.start(packages, environment)
        return server.fork(log)


def end(child: Child) -> None:
    """End a worker and whatever it started; it has nothing to save."""
    if isinstance(child, Forked) and child.poll() is None and not child.begun:
        child.abandon()
    else:
        children.end(child)


@dataclass
class Forked:
    """Stand for a process that a server forks, as `subprocess.Popen` stands for a child of one's own.

    Args:
        stdin: What it reads.
        stdout: What it writes.
        status: Pipe on which it tells its number, and the server its status.
    """

    stdin: IO[str] | None
    stdout: IO[str] | None
    status: IO[bytes]
    _told: list[int] = field(default_factory=list)
    _gone: bool = False

    @property
    def pid(self) -> int:
        """Return its number, as soon as the server has forked it.

        Raises:
            ProcessLookupError: The server ended before.
        """
        while not self._told and not self._gone:
            self._read(None)
        if not self._told:
            raise ProcessLookupError("the process that was to be forked from has ended")
        return self._told[0]

    def poll(self) -> int | None:
        """Return its status, None where it runs or is not yet forked."""
        while not self._ended and self._read(0.0):
            pass
        return self._code if self._ended else None

    def wait(self, timeout: float | None = None) -> int:
        """Return its status when it has ended.

        Args:
            timeout: Seconds to wait at most; None for as long as it takes.

        Raises:
            subprocess.TimeoutExpired: It has not.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while not self._ended:
            left = None if until is None else max(0.0, until - time.monotonic())
            if not self._read(left):
                raise subprocess.TimeoutExpired(WORKER, timeout or 0.0)
        return self._code

    def kill(self) -> None:
        """End it."""
        with contextlib.suppress(ProcessLookupError):  # it has ended
            os.kill(self.pid, signal.SIGKILL)

    @property
    def begun(self) -> bool:
        """Tell whether it is known to be forked: the server may be importing yet."""
        return bool(self._told)

    def abandon(self) -> None:
        """Have no more to do with it: it ends when it finds that nothing comes from its input."""
        self._gone = True
        self.status.close()

    @property
    def _ended(self) -> bool:
        return len(self._told) > 1 or self._gone

    @property
    def _code(self) -> int:
        # A server tells of every child before it ends of itself: one that did not was killed, as is what it had forked.
        return self._told[1] if len(self._told) > 1 else -signal.SIGKILL

    def _read(self, timeout: float | None) -> bool:
        """Take in what the server tells next; False where it told nothing in time."""
        waiting = select.poll()  # of any descriptor: `select.select` takes those below 1024 alone
        waiting.register(self.status, select.POLLIN)
        if not waiting.poll(None if timeout is None else 1e3 * timeout):
            return False
        line = self.status.readline()
        if line:
            self._told.append(int(line))
        else:
            self._gone = True
            if self._told:
                self.kill()
        if self._ended:
            self.status.close()
        return True


@dataclass
class Server:
    """Hold a prepared process (`nbopt.measurement.forkserver`).

    Args:
        process: The process.
        channel: Where it is asked.
    """

    process: subprocess.Popen[bytes]
    channel: socket.socket

    @classmethod
    def start(cls, packages: Sequence[str], environment: dict[str, str]) -> Server:
        """Start one, which begins to import packages."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = subprocess.Popen(
                    [sys.executable, "-m", SERVER, *packages],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=environment,
                    start_new_session=True,
                )
            except BaseException:
                ours.close()
                raise
        return cls(process, ours)

    def fork(self, log: IO[bytes]) -> Child:
        """Ask for a worker, whose errors go to `log`.

        Raises:
            BrokenPipeError: The process has ended.
            ConnectionResetError: Likewise.
        """
        theirs: list[int] = []
        with contextlib.ExitStack() as undo:
            try:
                reads, stdin = os.pipe()
                theirs.append(reads)
                written = undo.enter_context(os.fdopen(stdin, "w"))
                stdout, writes = os.pipe()
                theirs.append(writes)
                read = undo.enter_context(os.fdopen(stdout))
                told, tells = os.pipe()
                theirs.append(tells)
                status = undo.enter_context(os.fdopen(told, "rb", buffering=0))
                socket.send_fds(self.channel, [b"f"], [reads, writes, log.fileno(), tells])
            finally:
                for fd in theirs:
                    os.close(fd)
            undo.pop_all()
        return Forked(written, read, status)

    def retire(self) -> None:
        """Ask it for nothing any more: it ends when what it has forked has."""
        self.channel.close()
        _RETIRED.append(self.process)


_LOCK = threading.Lock()
_SERVERS: dict[Key, Server] = {}
_RETIRED: list[subprocess.Popen[bytes]] = []


@atexit.register
def close_all() -> None:
    """End all prepared processes."""
    while _SERVERS:
        (owner, *_), server = _SERVERS.popitem()
        if owner == os.getpid():  # a process that the user forked has this table too
            server.retire()
    while _RETIRED:
        children.end(_RETIRED.pop())
