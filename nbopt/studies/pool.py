"""Trials in processes of their own: given out one at a time, ended where they hang, failed where they die."""

from __future__ import annotations

import contextlib
import pickle
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import cloudpickle

from nbopt.children import cores, end, environment_of, epitaph
from nbopt.errors import StudyError
from nbopt.studies.choosing import Running
from nbopt.studies.extra import load, quiet
from nbopt.studies.locking import GRACE_SECONDS
from nbopt.studies.opening import OWNER, Opened
from nbopt.studies.trials import Objective, Outcome

LOOK_SECONDS = 0.5
"""How often deadlines are looked at."""

MARK_SECONDS = GRACE_SECONDS + 3
"""In this time after a process died, the others have marked the trials that they began: they may wait for its lock."""

FALSE_STARTS = 2
"""Processes that may end before they began a trial: one may have been killed by somebody."""


@dataclass(frozen=True)
class Job:
    """Say what a process shall do: the next trial of a study, or a setting again with another seed.

    Args:
        opened: The study.
        running: How its trials are run.
        params: The setting to repeat; None for the next trial.
        seed: Seed of the repeat.
        number: Number of the repeat.
    """

    opened: Opened
    running: Running
    params: dict[str, Any] | None = None
    seed: int = 0
    number: int = 0


Took = Callable[[int, "Outcome | str"], None]
"""Told the number of a trial (or repeat) that ended, and its outcome, or why it was ended from outside."""


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    log: Any
    job: Job | None = None
    number: int | None = None
    sent: datetime = datetime.min
    deadline: float = field(default=float("inf"))
    reason: str = ""

    def send(self, message: Any) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # its end is told of by the thread that reads
            self.process.stdin.write(cloudpickle.dumps(message))
            self.process.stdin.flush()

    def end(self) -> None:
        end(self.process)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):  # what was not read any more
                    stream.close()

    def epitaph(self) -> str:
        """Tell how the process ended, with the last line that it wrote."""
        return f"its process {epitaph(self.process, self.log)}"


class Pool:
    """Run trials in `jobs` processes, each of which loads the objective once.

    They are fresh processes, not forks of the kernel: OpenMP, TensorFlow and CUDA do not survive a fork. They share
    the cores among them. When the parent ends, they end.

    Args:
        objective: Pickled with the variables that it reads.
        opened: A study in the storage that all trials lie in.
        jobs: Processes.
        timeout: Seconds that a trial may take, from its beginning; None for no limit.

    Raises:
        StudyError: The objective, or the storage, can't go to another process.
    """

    def __init__(self, objective: Objective, opened: Opened, *, jobs: int = 1, timeout: float | None = None) -> None:
        self._jobs, self._timeout = jobs, timeout
        self._events: queue.Queue[tuple[_Worker, Any]] = queue.Queue()
        self._workers: list[_Worker] = []
        self._started = 0
        _check_shared(opened)
        self._folder = tempfile.TemporaryDirectory(prefix="nbopt-study-")
        self._payload = Path(self._folder.name) / "objective.pickle"
        try:
            self._payload.write_bytes(_pickled((objective, opened.where)))
        except BaseException:
            self._folder.cleanup()
            raise

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.end()
            worker.log.close()
        self._workers.clear()
        self._folder.cleanup()

    def run(self, following: Callable[[int], Job | None], took: Took) -> None:
        """Give out jobs until there are none and all have ended.

        Args:
            following: Returns the next job, None where there is none (now); told how many are under way.
            took: Told of each that ended.

        Raises:
            StudyError: Processes end before they begin.
            KeyboardInterrupt: The user interrupted; trials under way are failed, and their processes ended.
        """
        false_starts = 0
        try:
            while True:
                self._give_out(following)
                if not any(worker.job for worker in self._workers):
                    return
                try:
                    worker, message = self._events.get(timeout=LOOK_SECONDS)
                except queue.Empty:
                    self._end_overdue()
                    continue
                if message is None:
                    false_starts += self._bury(worker, took)
                    if false_starts >= FALSE_STARTS:
                        raise StudyError(
                            "an objective that a process of its own can load", worker.reason, "jobs=1, no timeout"
                        )
                elif "error" in message:
                    raise StudyError("an objective that a process of its own can load", message["error"], "jobs=1")
                elif "began" in message:
                    worker.number = message["began"]
                    worker.deadline = time.monotonic() + (self._timeout or float("inf"))
                else:
                    worker.job, worker.number, worker.deadline = None, None, float("inf")
                    took(message["ended"], message["outcome"])
                self._end_overdue()
        except BaseException:
            self._abandon()
            raise

    def _give_out(self, following: Callable[[int], Job | None]) -> None:
        under_way = sum(worker.job is not None for worker in self._workers)
        while under_way < self._jobs:
            job = following(under_way)
            if job is None:
                return
            idle = next((worker for worker in self._workers if worker.job is None), None) or self._start()
            idle.job, idle.sent = job, datetime.now()  # local time, as Optuna writes it
            message: dict[str, Any] = {"study": job.opened.name, "running": job.running}
            if job.params is not None:
                message |= {"params": job.params, "seed": job.seed, "number": job.number}
                message["objectives"] = len(job.opened.study.directions)
            idle.send(message)
            under_way += 1

    def _start(self) -> _Worker:
        log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        threads = max(1, cores() // self._jobs)
        process = subprocess.Popen(
            [sys.executable, "-m", "nbopt.studies.worker", str(self._payload), str(self._started)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment_of(threads),
            start_new_session=True,  # Ctrl-C in a terminal goes to the whole session: the parent decides here
        )
        worker = _Worker(process, log)
        self._workers.append(worker)
        self._started += 1
        threading.Thread(target=self._listen, args=(worker,), daemon=True, name="nbopt-pool").start()
        return worker

    def _listen(self, worker: _Worker) -> None:
        stream = worker.process.stdout
        assert stream is not None
        while True:
            try:
                message = pickle.load(stream)
            except (EOFError, ValueError, OSError, pickle.UnpicklingError):  # ended, also in the middle of a message
                self._events.put((worker, None))
                return
            self._events.put((worker, message))

    def _end_overdue(self) -> None:
        for worker in self._workers:
            if time.monotonic() > worker.deadline:
                worker.deadline = float("inf")
                worker.reason = f"it took longer than {self._timeout:g} s (the trial timeout), and was ended"
                worker.end()

    def _bury(self, worker: _Worker, took: Took) -> int:
        """Fail what a process that ended was at, and return 1 where it had not begun."""
        if worker not in self._workers:
            return 0
        self._workers.remove(worker)
        reason = worker.reason = worker.reason or worker.epitaph()
        worker.end()
        worker.log.close()
        if worker.job is None:
            return 0
        if worker.job.params is not None:
            took(worker.job.number, reason)
            return 0
        numbers = _owned(worker.job.opened, worker.process.pid)
        if worker.number is not None:
            numbers.add(worker.number)
        if not numbers:
            numbers = _unmarked(worker.job.opened, worker.sent)
        for number in sorted(numbers):
            worker.job.opened.fail(number, reason)
            took(number, reason)
        return int(not numbers)

    def _abandon(self) -> None:
        for worker in self._workers:
            worker.end()
            if worker.job is not None and worker.job.params is None:
                for number in _owned(worker.job.opened, worker.process.pid):
                    worker.job.opened.fail(number, "interrupted")


def _owned(opened: Opened, pid: int) -> set[int]:
    """Return the numbers of the running trials that a process had begun."""
    running = opened.study.get_trials(deepcopy=False, states=(load().trial.TrialState.RUNNING,))
    return {trial.number for trial in running if trial.user_attrs.get(OWNER, {}).get("pid") == pid}


def _unmarked(opened: Opened, since: datetime) -> set[int]:
    """Return the number of the trial that a process, now dead, had begun and not marked as its own, if it had.

    Optuna begins a trial and marks it in two steps. One that another process is between, has its mark soon after.
    """
    until = time.monotonic() + MARK_SECONDS
    while True:
        running = opened.study.get_trials(deepcopy=False, states=(load().trial.TrialState.RUNNING,))
        unmarked = (trial for trial in running if OWNER not in trial.user_attrs)
        numbers = sorted(trial.number for trial in unmarked if trial.datetime_start >= since)
        if not numbers or time.monotonic() > until:
            return set(numbers[:1])
        time.sleep(MARK_SECONDS / 20)


def _check_shared(opened: Opened) -> None:
    with quiet():
        if isinstance(opened.storage, load().storages.InMemoryStorage):
            raise StudyError(
                "a storage that several processes can open",
                "InMemoryStorage, which lives in this kernel alone",
                "leave the storage out: the journal beside the runs takes any number of processes",
            )


def _pickled(payload: tuple[Objective, Any]) -> bytes:
    try:
        return cloudpickle.dumps(payload)
    except Exception as error:
        # TypeError, PicklingError, AttributeError, and whatever an object's own __reduce__ raises.
        culprits = _unpicklable(payload[0])
        raise StudyError(
            "an objective whose variables can be given to another process",
            "; ".join(culprits) or f"{type(error).__name__}: {error}",
            "make it inside the objective, or let the trials run in this kernel (one job, no timeout)",
        ) from error


def _unpicklable(objective: Any) -> list[str]:
    """Return which variables of an objective can't be pickled."""
    named = getattr(objective, "variables", None)
    if named is None:
        code, scope = getattr(objective, "__code__", None), getattr(objective, "__globals__", {})
        names = code.co_names if code is not None else ()
        named = {name: scope[name] for name in names if name in scope}
        cells = zip(getattr(code, "co_freevars", ()), getattr(objective, "__closure__", None) or (), strict=False)
        named |= {name: cell.cell_contents for name, cell in cells}
    found = []
    for name, value in named.items():
        try:
            cloudpickle.dumps(value)
        except Exception as error:  # noqa: BLE001 - as above; told, not lost
            found.append(f"{name}: {error}")
    return found
