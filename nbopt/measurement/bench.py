"""Artifacts in processes of their own, asked to predict, or timed against each other."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nbopt.errors import ArtifactError, DataError, ExportError, NbOptError
from nbopt.frozen import join_ragged
from nbopt.measurement.audit import Audit
from nbopt.measurement.blocks import Block, Side
from nbopt.runtimes import Manifest

KINDS: dict[str, type[NbOptError]] = {kind.__name__: kind for kind in (ArtifactError, DataError, ExportError)}
CLOSE_SECONDS = 5.0


@dataclass(frozen=True)
class Loaded:
    """Hold what loading an artifact cost.

    Args:
        load_ms: From the file to a session.
        first_ms: The first inference, with whatever the runtime does lazily.
        peak_bytes: Peak memory of loading and single inferences, less the process's idle footprint: the same
            process with the runtime's library imported and nothing loaded.
    """

    load_ms: float
    first_ms: float
    peak_bytes: int


class Bench:
    """Hold one artifact in a fresh process.

    Args:
        path: The exported file.
        manifest: How to run it.
        threads: Threads of one inference.
        folder: Shards of the reporting rows (`nbopt.frozen.Frozen.folder`).
        wait: Return when the artifact is loaded. False returns at once, and whatever is wrong with the artifact
            is raised at its first use: the process can start while the caller exports or trains.

    Raises:
        ExportError: The runtime does not take the model, or its process died.
        ArtifactError: The file is damaged.
    """

    def __init__(self, path: Path, manifest: Manifest, *, threads: int, folder: Path, wait: bool = True) -> None:
        self.path = path
        self.manifest = manifest
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", "nbopt.measurement.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=_environment(threads),
            start_new_session=True,  # Ctrl-C in a terminal goes to the whole session: the parent decides here
            text=True,
        )
        self._loaded: Loaded | None = None
        try:
            self._send(
                do="load",
                path=str(path),
                runtime=manifest.runtime,
                manifest=asdict(manifest),
                threads=threads,
                folder=str(folder),
            )
            if wait:
                self._loaded = self.loaded
        except BaseException:
            self.close()
            raise

    @property
    def loaded(self) -> Loaded:
        """Return what loading cost, once it is done.

        Raises:
            ExportError: The runtime does not take the model, or its process died.
            ArtifactError: The file is damaged.
        """
        if self._loaded is None:
            reply = self._receive()
            self._loaded = Loaded(reply["load_ms"], reply["first_ms"], reply["peak_bytes"])
        return self._loaded

    @property
    def pid(self) -> int:
        """Return the process's number, whose load is not foreign."""
        return self._process.pid

    def predict(self, folder: Path) -> np.ndarray[Any, Any]:
        """Return the outputs for every row of a frozen split, in order."""
        with tempfile.TemporaryDirectory(prefix="nbopt-outputs-") as scratch:
            out = Path(scratch) / "outputs.npz"
            self._ask(do="predict", folder=str(folder), out=str(out))
            with np.load(out, allow_pickle=False) as archive:
                return join_ragged([archive[name] for name in archive.files])

    def side(self, batch: int = 1) -> Side:
        """Return what `run_rounds` measures: inferences of `batch` rows in that process."""

        def run(iterations: int) -> Block:
            reply = self._ask(do="block", iterations=iterations, batch=batch)
            wall_ns = np.array(reply["wall_ns"])
            return Block(wall_ns, reply["cpu_ns"], reply["calls"], reply["contention"], reply["distortion"])

        return run

    def audit(self) -> Audit:
        """Return what the artifact is, layer by layer, as its runtime executes it there on one row."""
        return Audit.from_dict(self._ask(do="audit"))

    def _ask(self, **request: Any) -> dict[str, Any]:
        self._loaded = self.loaded  # its reply comes first
        self._send(**request)
        return self._receive()

    def _send(self, **request: Any) -> None:
        stdin = self._process.stdin
        if stdin is None:
            raise ArtifactError("an open process", "one without pipes")
        with contextlib.suppress(BrokenPipeError):  # a process that has died is told of by its missing reply
            stdin.write(json.dumps(request) + "\n")
            stdin.flush()

    def _receive(self) -> dict[str, Any]:
        stdout = self._process.stdout
        line = "" if stdout is None else stdout.readline()
        if not line:
            raise ExportError(
                f"{self.manifest.runtime} to run {self.path.name} in a fresh process",
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
        code = self._process.wait(CLOSE_SECONDS)
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return f"the process ended with {how}" + (f": {lines[-1][:300]}" if lines else "")

    def close(self) -> None:
        """End the process."""
        if self._process.poll() is None:
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    try:
                        stream.close()
                    except BrokenPipeError:
                        continue  # the process ended between the check and the flush
            try:
                self._process.wait(CLOSE_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._log.close()

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _environment(threads: int) -> dict[str, str]:
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
