"""What is under way, on disk beside the runs: so that a reload or a restart can tell, and go on with it."""

from __future__ import annotations

import dataclasses
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from nbopt.errors import disk_error
from nbopt.ledger import default_home
from nbopt.progress import Progress

FOLDER = "underway"
INTERVAL = 1.0
"""Seconds between two notes of how far it is."""


def _born() -> float:
    return psutil.Process().create_time()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass(frozen=True)
class Underway:
    """Hold a piece of work that has begun and not ended.

    Args:
        line: What follows `%optimize`.
        bind: What follows `%optimize use`, by which the model and its data were bound; "" where they came with a body.
        body: The cell's body, "" for a line.
        workload: The model's name.
        workload_key: Content hash of model, reporting rows and metric.
        recipe: The techniques as a run has them.
        seed: The seed.
        planned: Runtimes that rows were begun for; () before the recipe was carried out.
        runtimes: Runtimes whose rows are finished.
        progress: How far it is, one line.
        started: When it began, ISO 8601.
        pid: The process.
        born: When the process began, in seconds: a number is given again.
        id: Unique.
    """

    line: str
    bind: str = ""
    body: str = ""
    workload: str = ""
    workload_key: str = ""
    recipe: str = ""
    seed: int = 0
    planned: tuple[str, ...] = ()
    runtimes: tuple[str, ...] = ()
    progress: str = ""
    started: str = field(default_factory=_now)
    pid: int = field(default_factory=os.getpid)
    born: float = field(default_factory=_born)
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def begins(self, workload_key: str) -> Underway:
        """Return it as it begins now, on a workload whose content was read."""
        return replace(self, workload_key=workload_key, started=_now())

    @property
    def lives(self) -> bool:
        """Tell whether its process is there."""
        try:
            return abs(psutil.Process(self.pid).create_time() - self.born) < 1.0
        except psutil.Error:
            return False

    @property
    def path(self) -> Path:
        """Return its file."""
        return default_home() / FOLDER / f"{self.id}.json"

    def write(self) -> None:
        """Write it down, whole or not at all.

        Raises:
            StoreError: The folder can't be written.
        """
        path = self.path
        scratch = path.with_suffix(".new")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            scratch.write_text(json.dumps(dataclasses.asdict(self)), encoding="utf-8")
            scratch.replace(path)
        except OSError as error:
            raise disk_error(error, path.parent, "set NBOPT_HOME to a folder that can be written") from error

    def forget(self) -> None:
        """Take its file away."""
        with suppress(OSError):  # another kernel attached to it and was first, or the folder was moved
            self.path.unlink()


def all_underway() -> list[Underway]:
    """Return what has begun and not ended, oldest first; a file that can't be read is passed over."""
    known = {spec.name for spec in dataclasses.fields(Underway)}
    found = []
    for path in (default_home() / FOLDER).glob("*.json"):
        try:
            body: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            kept = {name: value for name, value in body.items() if name in known}
            kept |= {name: tuple(kept.get(name, ())) for name in ("planned", "runtimes")}
            found.append(Underway(**kept))
        except (OSError, ValueError, TypeError, AttributeError):
            continue  # of a newer nbopt, or gone since it was listed
    return sorted(found, key=lambda each: each.started)


@contextmanager
def noted(
    begun: Underway, interrupted: Callable[[Underway], None] = Underway.forget
) -> Iterator[Callable[[Progress], None]]:
    """Keep a piece of work on disk while the block runs; its process's death leaves it there.

    Args:
        begun: The work.
        interrupted: Called with it where it was interrupted, in place of taking its file away.

    Yields:
        A function that takes its progress.
    """
    state = begun
    state.write()
    due = 0.0

    def take(progress: Progress) -> None:
        nonlocal state, due
        now = time.monotonic()
        measured, planned = progress.what == "measured", progress.what == "to measure"
        if not (measured or planned) and now < due:
            return
        due = now + INTERVAL
        name, _, runtime = progress.note.partition("/")
        if planned:
            state = replace(state, planned=tuple(progress.note.split(", ")))
        elif measured:
            done = (*state.runtimes, runtime) if not name.startswith("baseline") else state.runtimes
            state = replace(state, runtimes=done, progress=f"{progress.note} measured")
        else:
            how_far = f"{progress.what} {progress.count}".strip()
            state = replace(state, progress=" · ".join(filter(None, (how_far, progress.note))))
        state.write()

    try:
        yield take
    except KeyboardInterrupt:
        interrupted(state)
        raise
    except BaseException:
        state.forget()
        raise
    state.forget()
