"""A fresh worker process, and the lines of JSON that are exchanged with it."""

from __future__ import annotations

import contextlib
import json
import tempfile
from typing import Any

from nbopt.children import advice, epitaph
from nbopt.errors import ArtifactError, DataError, ExportError, NbOptError
from nbopt.measurement import launch

KINDS: dict[str, type[NbOptError]] = {kind.__name__: kind for kind in (ArtifactError, DataError, ExportError)}
DEATH_SECONDS = 5.0
"""How long to wait for the status of a process that closed its end."""


class WorkerProcess:
    """Start `nbopt.measurement.worker` in a process of its own, which has held no artifact.

    Python's start and the runtime's imports take a second or more: a process may be started, and told which
    runtime's packages it will need, while its artifact is still being made; and where the system can, it is forked
    from one that has imported them.

    Args:
        threads: Threads of one inference, the same for every numerical library in it.
        runtime: Word of the runtime whose packages it imports at once; "" imports none yet.
        anew: Never fork. Code and libraries then lie elsewhere in each process, as luck has it, and several of them
            tell what that luck does to their times.

    Raises:
        OptionError: There is no such runtime.
    """

    def __init__(self, threads: int, runtime: str = "", *, anew: bool = False) -> None:
        self.threads = threads
        self.what = runtime or "a worker"
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._awaited = 0
        try:
            forked = runtime and launch.FORKS and not anew
            self._process = launch.fork(threads, self._log, runtime) if forked else launch.spawn(threads, self._log)
        except BaseException:
            self._log.close()
            raise
        try:
            if runtime:
                self.send(do="prepare", runtime=runtime)
        except BaseException:
            self.close()  # whoever interrupted the start has nothing in hand to close
            raise

    @property
    def pid(self) -> int:
        """Return the process's number, whose load is not foreign."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Tell whether the process has not ended."""
        return self._process.poll() is None

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request and return its reply.

        Raises:
            ExportError: The process died, or what it ran raised.
            ArtifactError: The file is damaged.
        """
        self.send(**request)
        return self.receive()

    def send(self, **request: Any) -> None:
        """Send a request whose reply `receive` returns later."""
        stdin = self._process.stdin
        self._awaited += 1
        if stdin is None or stdin.closed:
            raise ArtifactError("an open process", f"{self.what}, whose process was closed")
        with contextlib.suppress(BrokenPipeError):  # a process that has died is told of by its missing reply
            stdin.write(json.dumps(request) + "\n")
            stdin.flush()

    def receive(self) -> dict[str, Any]:
        """Return the reply to the last request; replies to those before it are passed over where they are good.

        Raises:
            ExportError: The process died, or what it ran raised.
            ArtifactError: The file is damaged.
        """
        body: dict[str, Any] = {}
        while self._awaited:
            body = self._reply()
        return body

    def _reply(self) -> dict[str, Any]:
        stdout = self._process.stdout
        line = "" if stdout is None else stdout.readline()
        self._awaited -= 1  # not before the line is here: an interrupt must not shift replies against requests
        if not line:
            came = self._epitaph()
            raise ExportError(f"{self.what} in a fresh process", came, f"{advice(came)}: try another runtime")
        reply = json.loads(line)
        if "error" in reply:
            expected, came, do = reply["error"]
            raise KINDS.get(reply["kind"], ExportError)(expected, came, do)
        body: dict[str, Any] = reply["ok"]
        return body

    def _epitaph(self) -> str:
        """Tell how the process died, with the last line that it wrote."""
        return f"the process {epitaph(self._process, self._log, DEATH_SECONDS)}"

    def close(self) -> None:
        """End the process and whatever it started; twice is no harm."""
        try:
            launch.end(self._process)  # a framework's orderly exit takes a quarter of a second
        finally:
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    with contextlib.suppress(BrokenPipeError):  # what was not read any more
                        stream.close()
            self._log.close()
