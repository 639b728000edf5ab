"""The fresh process that loads one artifact and is asked about it, over lines of JSON.

It imports the runtime's own packages and nothing else: a training framework only where the runtime is that
framework. Its parent is `nbopt.measurement.bench`.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from nbopt.data import Inputs, map_leaves, take_rows
from nbopt.errors import NbOptError
from nbopt.frozen import read_shard, shard_paths
from nbopt.measurement.audit import Audit, audit_of
from nbopt.measurement.blocks import CallableSide
from nbopt.measurement.placement import run_on
from nbopt.runtimes import Manifest, Runtime, Session, runtime_named

CALIBRATION_CALLS = 24
SETTLE_SECONDS = 0.002
"""Rest after a block: OpenMP and XNNPACK threads spin for about a millisecond after their last work, on the cores
that the next side is about to use."""


class Delayed(Session):
    """Prolong each inference to a multiple of the time that it takes without, so that the true ratio is known.

    Keeping the processor busy after an inference makes the next one a few percent slower, since it finds caches cold.
    The end of the delay is therefore set from inferences without one, anew before each block.

    Args:
        session: What runs.
        delay: 0.05 makes each call take 1.05 times as long.
    """

    def __init__(self, session: Session, delay: float) -> None:
        self.session, self.delay = session, delay
        self.manifest = session.manifest
        self._wanted_ns = 0.0

    def calibrate(self, inputs: Inputs) -> None:
        """Take the time of some inferences without a delay."""
        took = []
        for _ in range(CALIBRATION_CALLS):
            began = time.perf_counter_ns()
            self.session.run(inputs)
            took.append(time.perf_counter_ns() - began)
        self._wanted_ns = float(np.median(took[len(took) // 4 :])) * (1 + self.delay)

    def run(self, inputs: Inputs) -> np.ndarray[Any, Any]:
        """Run, and then keep the processor busy for the rest of the time."""
        end = time.perf_counter_ns() + self._wanted_ns
        output = self.session.run(inputs)
        while time.perf_counter_ns() < end:
            pass
        return output


class Worker:
    """Hold the artifact and answer requests."""

    def __init__(self) -> None:
        self.session: Session | None = None
        self.row: Inputs | None = None
        self.idle_bytes = 0
        self._artifact: tuple[Runtime, Path] | None = None
        self._sides: dict[int, CallableSide] = {}
        self._cpus: tuple[int, ...] = ()

    def prepare(self, runtime: str) -> dict[str, Any]:
        """Import what a runtime needs, ahead of its artifact."""
        for package in runtime_named(runtime).packages:
            importlib.import_module(package)
        return {}

    def load(
        self, path: str, runtime: str, manifest: dict[str, Any], threads: int, folder: str, delay: float = 0.0
    ) -> dict[str, Any]:
        """Load an artifact and run it once on the first row."""
        self.prepare(runtime)
        chosen = runtime_named(runtime)
        self.row = take_rows(read_shard(shard_paths(Path(folder))[0]), slice(0, 1))
        self.idle_bytes = resident_bytes(peak=False)
        reset_peak()
        manifest = {**manifest, **{key: tuple(manifest[key]) for key in ("inputs", "dtypes", "shapes")}}
        began = time.perf_counter()
        self.session = chosen.load(Path(path), Manifest(**manifest), threads=threads)
        if delay:
            self.session = Delayed(self.session, delay)
        loaded = time.perf_counter()
        self._artifact = chosen, Path(path)
        output = self.session.run(self.row)
        first = time.perf_counter()
        for _ in range(3):
            self.session.run(self.row)
        peak = resident_bytes(peak=True)
        return {
            "load_ms": (loaded - began) * 1e3,
            "first_ms": (first - loaded) * 1e3,
            "peak_bytes": max(0, peak - self.idle_bytes),
            "shape": list(output.shape),
        }

    def predict(self, folder: str, out: str) -> dict[str, Any]:
        """Run a frozen split through the artifact and write the outputs, padded where their length varies."""
        session = self._open()
        parts = [session.run(read_shard(path)) for path in shard_paths(Path(folder))]
        np.savez(out, *parts)
        return {"rows": sum(map(len, parts))}

    def block(self, iterations: int, batch: int, cpus: Sequence[int] = ()) -> dict[str, Any]:
        """Time `iterations` inferences of `batch` rows, on the given processors where some are given."""
        if cpus and tuple(cpus) != self._cpus:
            run_on(cpus)
            self._cpus = tuple(cpus)
        if batch not in self._sides:
            session, row = self._open(), self.row
            assert row is not None
            inputs = map_leaves(lambda leaf: np.repeat(leaf, batch, axis=0), row)
            self._sides[batch] = CallableSide(lambda: session.run(inputs))
        if isinstance(self.session, Delayed) and self.row is not None:
            self.session.calibrate(self.row)
        block = self._sides[batch](iterations)
        time.sleep(SETTLE_SECONDS)
        return {
            "wall_ns": block.wall_ns.tolist(),
            "cpu_ns": block.cpu_ns,
            "calls": block.calls,
            "contention": block.contention,
            "distortion": block.distortion,
        }

    def audit(self) -> dict[str, Any]:
        """Return what the loaded artifact is, layer by layer (`nbopt.measurement.audit.Audit.to_dict`)."""
        session, row, artifact = self._open(), self.row, self._artifact
        assert row is not None
        assert artifact is not None
        runtime, path = artifact
        try:
            return audit_of(runtime.layers(path, session, row), runtime.leftovers(path, session)).to_dict()
        except Exception as error:  # noqa: BLE001 - readers meet graphs of every converter; the reason is kept and shown
            text = (str(error).strip().splitlines() or [""])[0]
            return Audit(unread=f"{type(error).__name__}: {text}"[:300]).to_dict()

    def _open(self) -> Session:
        if self.session is None:
            raise NbOptError("a loaded artifact", "none", "load first")
        return self.session


def resident_bytes(*, peak: bool) -> int:
    """Return this process's resident memory, or its peak since `reset_peak`, in bytes."""
    try:
        key = "VmHWM:" if peak else "VmRSS:"
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(key):
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # not Linux: psutil knows the present size, and the peak is that
    import psutil

    return int(psutil.Process().memory_info().rss)


def reset_peak() -> None:
    """Let the kernel forget the peak so far (Linux 4.0 and newer; elsewhere the present size is the peak)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def serve(requests: TextIO, replies: TextIO) -> None:
    """Answer requests until the parent closes its end."""
    worker = Worker()
    for line in requests:
        request = json.loads(line)
        method = getattr(worker, request.pop("do"))
        try:
            reply = {"ok": method(**request)}
        except NbOptError as error:
            reply = {"error": [error.expected, error.came, error.do], "kind": type(error).__name__}
        except Exception as error:  # noqa: BLE001 - told to the parent, which makes it the row's reason
            text = (str(error).strip().splitlines() or [""])[0]
            reply = {"error": ["an artifact that runs", f"{type(error).__name__}: {text}"[:400], ""], "kind": ""}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def main() -> None:
    """Serve on standard input and output; whatever libraries print goes to standard error."""
    # The user's interrupt is the parent's to handle: it lets a block end and closes this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(sys.stdin, replies)


if __name__ == "__main__":
    main()
