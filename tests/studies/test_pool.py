"""Trials in processes: none is lost, one that hangs or is killed costs itself, an interrupt ends them."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest

from nbopt.errors import StudyError
from nbopt.progress import Progress
from nbopt.studies import trials
from nbopt.studies.choosing import Running
from nbopt.studies.ending import Budget
from nbopt.studies.opening import OWNER, REASON, Opened, open_study
from nbopt.studies.running import run_study


def quick(trial: Any) -> float:
    print("what an objective prints is not in the way of messages")
    return -(float(trial.suggest_float("x", -5, 5)) ** 2)


def pausing(trial: Any) -> float:
    time.sleep(0.1)
    return quick(trial)


def hanging(trial: Any) -> float:
    if trial.number == 2:
        while True:
            time.sleep(1)
    return quick(trial)


def dying(trial: Any) -> float:
    if trial.number == 2:
        os._exit(17)
    return quick(trial)


def states(opened: Opened) -> list[str]:
    return [trial.state.name for trial in opened.study.trials]


def test_eight_processes_lose_no_trial_and_draw_apart(home: Path) -> None:
    opened = open_study("eight")
    run_study(opened, pausing, Running(Budget(64, min_gain=0), jobs=8))
    assert states(opened) == ["COMPLETE"] * 64
    assert [trial.number for trial in opened.study.trials] == list(range(64))
    assert len({trial.params["x"] for trial in opened.study.trials}) == 64
    pids = {trial.user_attrs[OWNER]["pid"] for trial in opened.study.trials}
    assert len(pids) == 8
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_a_killed_process_loses_the_trial_that_it_was_at_and_no_other(home: Path) -> None:
    opened = open_study("killed")
    killed: list[int] = []

    def watch(progress: Progress) -> None:
        if progress.done >= 6 and not killed:
            running = [trial for trial in opened.study.trials if trial.state.name == "RUNNING" and trial.user_attrs]
            if running:
                killed.append(running[0].user_attrs[OWNER]["pid"])
                os.kill(killed[0], signal.SIGKILL)

    run_study(opened, pausing, Running(Budget(24, min_gain=0), jobs=3), progress=watch)
    assert killed
    assert len(states(opened)) == 24
    failed = [trial for trial in opened.study.trials if trial.state.name != "COMPLETE"]
    assert len(failed) == 1
    assert "SIGKILL" in failed[0].user_attrs[REASON]


def dies_before_it_is_marked(trial: Any) -> float:
    """End the process when the next trial was begun and is not yet marked: as if it were killed between the two."""
    if trial.number == 3:
        trials.owner = lambda: os._exit(17)  # type: ignore[assignment]
    return pausing(trial)


def test_a_trial_that_was_begun_and_not_marked_when_its_process_died_is_counted(home: Path) -> None:
    opened = open_study("unmarked")
    run_study(opened, dies_before_it_is_marked, Running(Budget(12, min_gain=0), jobs=2))
    assert sorted(states(opened)) == ["COMPLETE"] * 11 + ["FAIL"]
    failed = next(trial for trial in opened.study.trials if trial.state.name == "FAIL")
    assert "exit status 17" in failed.user_attrs[REASON]


def test_a_trial_that_hangs_is_ended_and_one_that_ends_its_process_is_told(home: Path) -> None:
    opened = open_study("hangs")
    run_study(opened, hanging, Running(Budget(5, min_gain=0), timeout=1.0))
    assert states(opened) == ["COMPLETE", "COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert "longer than 1 s" in opened.study.trials[2].user_attrs[REASON]
    opened = open_study("dies")
    run_study(opened, dying, Running(Budget(4, min_gain=0), jobs=2))
    assert states(opened).count("FAIL") == 1
    assert "exit status 17" in opened.study.trials[2].user_attrs[REASON]


def test_an_interrupt_ends_the_processes_and_fails_what_was_under_way(home: Path) -> None:
    opened = open_study("stopped")
    threading.Timer(1.5, signal.raise_signal, (signal.SIGINT,)).start()
    with pytest.raises(KeyboardInterrupt):
        run_study(opened, hanging, Running(Budget(50, min_gain=0), jobs=1, timeout=100))
    assert states(opened) == ["COMPLETE", "COMPLETE", "FAIL"]
    assert opened.study.trials[2].user_attrs[REASON] == "interrupted"
    assert not psutil.pid_exists(opened.study.trials[0].user_attrs[OWNER]["pid"])


ORPHAN = """
import sys, time
from nbopt.studies import Budget, Running, open_study, run_study
def objective(trial):
    if trial.number == 3:
        time.sleep(1000)
    return trial.suggest_float("x", 0, 1)
print("go", flush=True)
run_study(open_study("orphan"), objective, Running(Budget(20, min_gain=0), jobs=2))
"""


def test_a_killed_kernel_takes_its_processes_along_and_the_study_resumes(
    home: Path, run_python: Callable[..., subprocess.Popen[str]]
) -> None:
    kernel = run_python(ORPHAN)
    opened = open_study("orphan")
    deadline = time.monotonic() + 60
    while states(opened).count("COMPLETE") < 8 and time.monotonic() < deadline:
        time.sleep(0.1)
    workers = {trial.user_attrs[OWNER]["pid"] for trial in opened.study.trials if OWNER in trial.user_attrs}
    kernel.kill()
    kernel.wait()
    while any(psutil.pid_exists(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(psutil.pid_exists(pid) for pid in workers)
    resumed = open_study("orphan")
    done = states(resumed)
    assert "RUNNING" not in done
    assert 1 <= done.count("FAIL") <= 2
    assert "process that is gone" in resumed.notes[0]
    run_study(resumed, quick, Running(Budget(20, min_gain=0)))
    assert len(resumed.study.trials) == 20


def test_what_cannot_go_to_another_process_is_named(home: Path) -> None:
    lock = threading.Lock()

    def objective(trial: Any) -> float:
        with lock:
            return 1.0

    with pytest.raises(StudyError, match="lock: "):
        run_study(open_study("lock"), objective, Running(jobs=2))
    memory = open_study("memory", storage=optuna.storages.InMemoryStorage())
    with pytest.raises(StudyError, match="InMemoryStorage"):
        run_study(memory, quick, Running(jobs=2))
    assert states(memory) == []


class Bomb:
    def __reduce__(self) -> Any:
        return os._exit, (3,)


def test_where_processes_end_before_they_begin_it_says_how_they_ended(home: Path) -> None:
    bomb = Bomb()
    with pytest.raises(StudyError, match="exit status 3"):
        run_study(open_study("bomb"), lambda trial: quick(bomb and trial), Running(jobs=2))


def test_a_sampler_object_draws_apart_in_each_process(home: Path) -> None:
    opened = open_study("object")
    sampler = optuna.samplers.RandomSampler(seed=0)
    ended = run_study(opened, pausing, Running(Budget(9, min_gain=0), jobs=3, sampler=sampler))
    assert len({trial.params["x"] for trial in opened.study.trials}) == 9
    assert any("does not repeat" in note for note in ended.notes)


def test_a_database_serves_processes_too(home: Path, tmp_path: Path) -> None:
    opened = open_study("url", storage=f"sqlite:///{tmp_path / 'own.db'}")
    run_study(opened, quick, Running(Budget(6, min_gain=0), jobs=2))
    assert states(opened) == ["COMPLETE"] * 6
