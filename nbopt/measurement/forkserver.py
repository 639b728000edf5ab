"""The prepared process: it has imported a framework and holds nothing, and fresh processes are forked from it.

Importing PyTorch takes 1.5 s of a processor and TensorFlow 5 s, as long as measuring a small model, and would be paid
for each artifact. A child that is forked before anything was loaded differs from a process that did its own imports in
what it did not have to wait for, and in its first inference, which copies memory that both had: with PyTorch it was
found to take 3.3 ms instead of 3.0. Outputs and peak memory are the same. The idea and the way to do it are those of
`multiprocessing.forkserver` (Python's documentation), which can't be used itself: its children import the `__main__`
of whoever asks, a user's script.
Runtimes without a framework are imported by each child itself: that takes a tenth of a second, and ONNX Runtime and
OpenVINO start a thread when they are imported, which a fork would not have.

Its parent is `nbopt.measurement.launch`. It ends when its parent does, or after `IDLE_SECONDS` without work.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import selectors
import signal
import socket
import sys
import traceback
from collections.abc import Iterable, Sequence
from mmap import PAGESIZE
from pathlib import Path
from typing import NoReturn

import numpy as np

from nbopt.measurement import worker

IDLE_SECONDS = 300.0
"""A prepared process keeps some 150 MB (PyTorch) to 300 MB (TensorFlow) of memory to itself; a notebook that measures
nothing for so long gets it back."""
FDS = 4
"""Of a new process: its input, its output, its errors, and the pipe that tells its number and its end."""

POPULATE_READ = 22
"""`MADV_POPULATE_READ` of madvise(2), Linux 5.14."""

Span = tuple[int, int]


def native_threads() -> int:
    """Return how many threads this process has, those of native libraries too."""
    return sum(1 for _ in Path("/proc/self/task").iterdir())


def mapped_code() -> list[Span]:
    """Return address and length in bytes of what this process has in its memory of the files that it maps.

    A fork does not copy that part of the page table (Linux fills it in when a page is used), so that a child's idle
    footprint would be too small, and what its artifact seems to need too large: by 10 MB with PyTorch.

    Raises:
        OSError: The system does not tell.
    """
    spans: list[Span] = []
    with Path("/proc/self/pagemap").open("rb") as pagemap:
        for line in Path("/proc/self/maps").read_text().splitlines():
            ends, _, _, _, inode, *_ = line.split()
            if inode == "0":
                continue
            first, last = (int(end, 16) // PAGESIZE for end in ends.split("-"))
            pagemap.seek(first * 8)
            present = np.frombuffer(pagemap.read((last - first) * 8), np.uint64) >> np.uint64(63)
            edges = np.flatnonzero(np.diff(present.astype(np.int8), prepend=0, append=0)).reshape(-1, 2)
            spans += [((first + int(a)) * PAGESIZE, int(b - a) * PAGESIZE) for a, b in edges]
    return spans


def fault_in(spans: Iterable[Span]) -> None:
    """Bring pages of mapped files into this process's page table.

    Raises:
        OSError: The system can't do that.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    for address, length in spans:
        if libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(length), POPULATE_READ):
            raise OSError(ctypes.get_errno(), "madvise")


class ForkServer:
    """Fork a fresh worker for each request.

    Args:
        channel: Where requests come from: a byte each, with `FDS` file descriptors.
        code: Pages of mapped files that a child gets (`mapped_code`). None where a fork would not be as a process that
            was started anew: the child then starts Python anew.
    """

    def __init__(self, channel: socket.socket, code: Sequence[Span] | None) -> None:
        self._channel, self._code = channel, code
        self._status: dict[int, int] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(channel, selectors.EVENT_READ)
        self._awake, wakes = socket.socketpair()
        for end in (self._awake, wakes):
            end.setblocking(False)
        self._wakes = wakes
        self._selector.register(self._awake, selectors.EVENT_READ)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # without a handler nothing is written to the wake-up's end
        signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)

    def serve(self) -> None:
        """Fork on request until the parent closes its end or is silent for long; tell of every child how it ended."""
        asking = True
        while asking or self._status:
            ready = self._selector.select(None if self._status else IDLE_SECONDS)
            if not ready and not self._status:
                # From here on requests fail where they are made, which starts another server; one that came just
                # before is read yet.
                self._channel.shutdown(socket.SHUT_RD)
                ready = self._selector.select(0)
            with contextlib.suppress(BlockingIOError):  # nothing was written: no child has ended
                self._awake.recv(4096)
            self._reap()
            if any(key.fileobj is self._channel for key, _ in ready):
                asked, fds, *_ = socket.recv_fds(self._channel, 1, FDS)
                if asked:
                    self._fork(fds)
                else:
                    asking = False
                    self._selector.unregister(self._channel)

    def _reap(self) -> None:
        for pid in list(self._status):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                pipe = self._status.pop(pid)
                _tell(pipe, os.waitstatus_to_exitcode(status))
                os.close(pipe)

    def _fork(self, fds: Sequence[int]) -> None:
        pid = os.fork()
        if not pid:
            self._become_worker(fds)
        *streams, pipe = fds
        for fd in streams:
            os.close(fd)
        self._status[pid] = pipe

    def _become_worker(self, fds: Sequence[int]) -> NoReturn:
        """Be a worker with streams of its own and nothing of the server's, and end with it."""
        code = 1
        try:
            os.setsid()  # as a process of `subprocess` that starts a session: an interrupt is its parent's matter
            _tell(fds[-1], os.getpid())  # not before it leads a group, which is what is ended
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._selector.close()
            for end in (self._channel, self._awake, self._wakes):
                end.close()
            for target, fd in enumerate(fds[:3]):
                os.dup2(fd, target)
            for fd in (*fds, *self._status.values()):
                os.close(fd)
            if not self._whole():
                os.execv(sys.executable, [sys.executable, "-m", worker.__name__])
            worker.main()
            code = 0
        except BaseException:  # noqa: BLE001 - whatever it was, a child must not go on as the server
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(code)

    def _whole(self) -> bool:
        """Make this fork as a process that did the imports itself; False where it can't be."""
        if self._code is None:
            return False
        try:
            fault_in(self._code)
        except OSError:  # Linux before 5.14, or a sandbox
            return False
        return True


def _tell(pipe: int, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # whoever asked is not interested any more
        os.write(pipe, b"%d\n" % number)


def main() -> None:
    """Import what the arguments name, and fork workers on request at standard input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    channel = socket.socket(fileno=os.dup(0))
    before = native_threads()  # numpy's are among them: OpenBLAS ends its own before a fork and starts them after it
    for package in sys.argv[1:]:
        with contextlib.suppress(ImportError):  # the child meets the same and tells it to its parent
            importlib.import_module(package)
    code: list[Span] | None = None
    if native_threads() <= before:  # a fork would not have new ones
        with contextlib.suppress(OSError):  # a sandbox
            code = mapped_code()
    ForkServer(channel, code).serve()


if __name__ == "__main__":
    main()
