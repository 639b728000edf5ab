"""A fresh worker process, and the lines of JSON that are exchanged with it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from nbopt.errors import ArtifactError, DataError, ExportError, NbOptError

KINDS: dict[str, type[NbOptError]] = {kind.__name__: kind for kind in (ArtifactError, DataError, ExportError)}
DEATH_SECONDS = 5.0
"""How long to wait for the status of a process that closed its end."""


class WorkerProcess:
    """Start `nbopt.measurement.worker` in a process of its own.

    Python's start and the runtime's imports take a second or more: a process may be started, and told which
    runtime's packages it will need, while its artifact is still being made.

    Args:
        threads: Threads of one inference, the same for every numerical library in it.
        runtime: Word of the runtime whose packages it imports at once; "" imports none yet.
    """

    def __init__(self, threads: int, runtime: str = "") -> None:
        self.threads = threads
        self.what = runtime or "a worker"
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._awaited = 0
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "nbopt.measurement.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env=environment_of(threads),
                start_new_session=True,  # Ctrl-C in a terminal goes to the whole session: the parent decides here
                text=True,
            )
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
            raise ExportError(
                f"{self.what} in a fresh process",
                self._epitaph(),
                "free some memory (the system ends what takes too much of it), or try another runtime",
            )
        reply = json.loads(line)
        if "error" in reply:
            expected, came, do = reply["error"]
            raise KINDS.get(reply["kind"], ExportError)(expected, came, do)
        body: dict[str, Any] = reply["ok"]
        return body

    def _epitaph(self) -> str:
        """Tell how the process died, with the last line that it wrote."""
        code = self._process.wait(DEATH_SECONDS)
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return f"the process ended with {how}" + (f": {lines[-1][:300]}" if lines else "")

    def close(self) -> None:
        """End the process and whatever it started; twice is no harm."""
        try:
            if self._process.poll() is None:
                # It has nothing to save, and a framework's orderly exit takes a quarter of a second.
                if hasattr(os, "killpg"):
                    with contextlib.suppress(ProcessLookupError):  # it ended since the check
                        os.killpg(self._process.pid, signal.SIGKILL)
                else:
                    self._process.kill()
                self._process.wait()
        finally:
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    with contextlib.suppress(BrokenPipeError):  # what was not read any more
                        stream.close()
            self._log.close()


def environment_of(threads: int) -> dict[str, str]:
    """Return the child's environment: equal threads for every library, and the parent's import path."""
    count = str(threads)
    paths = [entry or str(Path.cwd()) for entry in sys.path]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
        "TF_NUM_INTRAOP_THREADS": count,
        "TF_NUM_INTEROP_THREADS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "PYTHONWARNINGS": "ignore",
    }
