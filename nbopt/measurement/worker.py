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

from nbopt.batches import Inputs, map_leaves, take_rows
from nbopt.errors import NbOptError
from nbopt.frozen import read_shard, shard_paths
from nbopt.measurement.audit import Audit, audit_of
from nbopt.measurement.blocks import CallableSide
from nbopt.measurement.placement import run_on
from nbopt.runtimes import Manifest, Runtime, Session, runtime_named

SETTLE_SECONDS = 0.002
"""Rest after a block: OpenMP and XNNPACK threads spin for about a millisecond after their last work, on the cores
that the next side is about to use."""


INSTANCE_SECONDS = 0.25
"""Time that further instances of an artifact may take to load, all together."""
INSTANCE_BYTES = 512 * 2**20
"""Memory that they may take, all together."""


class Repeated(Session):
    """Make several inferences in one call, so that the ratio to a call with fewer of them is known.

    A delay that keeps the processor busy would not be a known one: the inference after it was found 1 to 8% slower
    than without, through clock and caches, whether the delay was spent in Python or in products of matrices.

    Args:
        session: What runs.
        times: Inferences of one call.
    """

    def __init__(self, session: Session, times: int) -> None:
        self.session, self.times = session, times
        self.manifest = session.manifest

    def run(self, inputs: Inputs) -> np.ndarray[Any, Any]:
        """Run as often, and return the last outputs."""
        for _ in range(self.times - 1):
            self.session.run(inputs)
        return self.session.run(inputs)


class Worker:
    """Hold the artifact and answer requests."""

    def __init__(self) -> None:
        self.session: Session | None = None
        self.instances: list[Session] = []
        self.row: Inputs | None = None
        self.idle_bytes = 0
        self._artifact: tuple[Runtime, Path] | None = None
        self._sides: dict[tuple[int, int], CallableSide] = {}
        self._turn = 0
        self._cpus: tuple[int, ...] = ()

    def prepare(self, runtime: str) -> dict[str, Any]:
        """Import what a runtime needs, ahead of its artifact."""
        for package in runtime_named(runtime).packages:
            importlib.import_module(package)
        return {}

    def load(
        self,
        path: str,
        runtime: str,
        manifest: dict[str, Any],
        threads: int,
        folder: str,
        instances: int = 1,
        repeat: int = 1,
    ) -> dict[str, Any]:
        """Load an artifact and run it once on the first row; then load it again, for as long as that is cheap."""
        self.prepare(runtime)
        chosen = runtime_named(runtime)
        self.row = take_rows(read_shard(shard_paths(Path(folder))[0]), slice(0, 1))
        self.idle_bytes = resident_bytes(peak=False)
        reset_peak()
        manifest = {**manifest, **{key: tuple(manifest[key]) for key in ("inputs", "dtypes", "shapes")}}
        began = time.perf_counter()
        self.session = session = chosen.load(Path(path), Manifest(**manifest), threads=threads)
        loaded = time.perf_counter()
        self._artifact = chosen, Path(path)
        self.session.run(self.row)
        first = time.perf_counter()
        for _ in range(3):
            self.session.run(self.row)
        peak = resident_bytes(peak=True)
        took, size = first - began, max(peak - self.idle_bytes, 1)
        more = max(0, min(instances - 1, int(INSTANCE_SECONDS / took), int(INSTANCE_BYTES / size)))
        sessions = [session, *(chosen.load(Path(path), Manifest(**manifest), threads=threads) for _ in range(more))]
        self.instances = sessions if repeat == 1 else [Repeated(each, repeat) for each in sessions]
        return {
            "load_ms": (loaded - began) * 1e3,
            "first_ms": (first - loaded) * 1e3,
            "peak_bytes": max(0, peak - self.idle_bytes),
        }

    def predict(self, folder: str, out: str) -> dict[str, Any]:
        """Run a frozen split through the artifact, and write the outputs of each shard into a folder."""
        session, rows = self._open(), 0
        for index, path in enumerate(shard_paths(Path(folder))):
            part = session.run(read_shard(path))
            rows += len(part)
            np.save(Path(out) / f"{index:06d}.npy", part)
        return {"rows": rows}

    def block(self, iterations: int, batch: int, cpus: Sequence[int] = ()) -> dict[str, Any]:
        """Time `iterations` inferences of `batch` rows, on the given processors where some are given."""
        if cpus and tuple(cpus) != self._cpus:
            run_on(cpus)
            self._cpus = tuple(cpus)
        self._open()
        # Where an artifact's memory lies makes it faster or slower for as long as it is loaded: each has its turn.
        instance, self._turn = self._turn % len(self.instances), self._turn + 1
        if (instance, batch) not in self._sides:
            session, row = self.instances[instance], self.row
            assert row is not None
            inputs = map_leaves(lambda leaf: np.repeat(leaf, batch, axis=0), row)
            self._sides[instance, batch] = CallableSide(lambda: session.run(inputs))
        block = self._sides[instance, batch](iterations)
        time.sleep(SETTLE_SECONDS)
        return {
            "wall_ns": block.wall_ns.tolist(),
            "cpu_ns": block.cpu_ns,
            "calls": block.calls,
            "contention": block.contention,
            "distortion": block.distortion,
            "parallel": block.parallel,
            "instance": instance,
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
