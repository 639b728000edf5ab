"""Artifacts in processes of their own, asked to predict, or timed against each other."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from nbopt.artifacts import size_of
from nbopt.frozen import join_ragged
from nbopt.large import LARGE_BYTES
from nbopt.measurement.audit import Audit
from nbopt.measurement.blocks import Block, Side
from nbopt.measurement.placement import Placement
from nbopt.measurement.process import WorkerProcess
from nbopt.runtimes import Manifest

TWIN_BYTES = 64 * 2**20
"""A larger artifact streams through the caches wherever it lies, and several processes of it need their memory."""


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
        process: A process of as many threads that was started ahead and has held no artifact; None starts one.
        instances: Times that the artifact is loaded at most, 1 or more; calls of a block are made to one of them, and
            blocks to each in turn.
        repeat: Inferences of one call, 1 or more: for checks of the instrument.
        processes: Fresh processes whose turns make a side, 1 or more, where the file is no larger than 64 MB; all but
            the first serve timing alone.

    Raises:
        ExportError: The runtime does not take the model, or its process died.
        ArtifactError: The file is damaged.
    """

    def __init__(
        self,
        path: Path,
        manifest: Manifest,
        *,
        threads: int,
        folder: Path,
        wait: bool = True,
        process: WorkerProcess | None = None,
        instances: int = 1,
        repeat: int = 1,
        processes: int = 1,
    ) -> None:
        self.path = path
        self.manifest = manifest
        anew = processes > 1
        self._process = WorkerProcess(threads, manifest.runtime, anew=anew) if process is None else process
        self._all = [self._process]
        self._loaded: Loaded | None = None
        try:
            cheap = manifest.device == "cpu" and path.exists() and size_of(path) <= TWIN_BYTES
            while cheap and len(self._all) < processes:
                self._all.append(WorkerProcess(threads, manifest.runtime, anew=anew))
            for each in self._all:
                each.what = f"{manifest.runtime} to run {path.name}"
                each.send(
                    do="load",
                    path=str(path),
                    runtime=manifest.runtime,
                    manifest=asdict(manifest),
                    threads=threads,
                    folder=str(folder),
                    instances=instances,
                    repeat=repeat,
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
            reply = self._process.receive()
            self._loaded = Loaded(reply["load_ms"], reply["first_ms"], reply["peak_bytes"])
        return self._loaded

    @property
    def pid(self) -> int:
        """Return the number of the process that predicts and is audited."""
        return self._process.pid

    @property
    def pids(self) -> tuple[int, ...]:
        """Return the numbers of all its processes, whose load is not foreign."""
        return tuple(each.pid for each in self._all)

    @property
    def alive(self) -> bool:
        """Tell whether none of its processes has ended."""
        return all(each.alive for each in self._all)

    def predict(self, folder: Path) -> np.ndarray[Any, Any]:
        """Return the outputs for every row of a frozen split, in order."""
        with tempfile.TemporaryDirectory(prefix="nbopt-outputs-") as scratch:
            self._ask(do="predict", folder=str(folder), out=scratch)
            files = sorted(Path(scratch).iterdir())
            mode: Any = "r" if sum(file.stat().st_size for file in files) > LARGE_BYTES else None
            return join_ragged([np.load(file, mmap_mode=mode, allow_pickle=False) for file in files])

    def side(self, batch: int = 1, placement: Placement | None = None, *, alone: bool = False) -> Side:
        """Return what `run_rounds` measures: inferences of `batch` rows, in each of the processes in turn.

        Args:
            batch: Rows of one inference.
            placement: Where all sides of a round run; None leaves that to the system.
            alone: In the first process alone.
        """
        turns = cycle(range(1 if alone else len(self._all)))

        def run(iterations: int) -> Block:
            cpus = [] if placement is None else list(placement.current)
            self._loaded = self.loaded  # its reply comes first
            process = next(turns)
            reply = self._all[process].ask(do="block", iterations=iterations, batch=batch, cpus=cpus)
            wall_ns = np.array(reply["wall_ns"])
            return Block(
                wall_ns,
                reply["cpu_ns"],
                reply["calls"],
                reply["contention"],
                reply["distortion"],
                reply["parallel"],
                reply["instance"],
                process,
            )

        return run

    def audit(self) -> Audit:
        """Return what the artifact is, layer by layer, as its runtime executes it there on one row."""
        return Audit.from_dict(self._ask(do="audit"))

    def _ask(self, **request: Any) -> dict[str, Any]:
        self._loaded = self.loaded  # its reply comes first
        return self._process.ask(**request)

    def close(self) -> None:
        """End its processes."""
        for each in self._all:
            each.close()

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
