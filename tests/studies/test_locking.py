"""Writers of a journal: one is killed while it holds the lock, none waits for the disk more often than it must."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest

from nbopt.studies.opening import storage_of

SCRIPT = """
import os, sys, time
from pathlib import Path
from nbopt.studies.locking import JournalLock

journal, kind = Path(sys.argv[1]), sys.argv[2]
lock = JournalLock(str(journal))
if kind == "dies":
    lock.acquire()
    print("held", flush=True)
    time.sleep(600)
for count in range(5):
    with lock:
        before = journal.read_text()
        time.sleep(0.02)
        journal.write_text(before + f"{kind} {count}\\n")
print("done")
"""


def test_writers_that_wait_for_a_dead_one_do_not_take_the_lock_from_each_other(
    run_python: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    journal = tmp_path / "studies.journal"
    journal.touch()
    dead = run_python(SCRIPT, str(journal), "dies")
    assert dead.stdout is not None
    assert dead.stdout.readline() == "held\n"
    writers = [run_python(SCRIPT, str(journal), f"writer{number}") for number in range(3)]
    dead.kill()
    for writer in writers:
        told, errors = writer.communicate(timeout=120)
        assert told == "done\n", errors
    lines = journal.read_text().splitlines()
    assert sorted(lines) == sorted(f"writer{number} {count}" for number in range(3) for count in range(5))


def test_the_disk_is_waited_for_where_a_trial_begins_and_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = tmp_path / "studies.journal"
    study = optuna.create_study(storage=storage_of(journal), study_name="s")
    sizes: list[int] = []
    sync = os.fsync

    def fsync(descriptor: int) -> None:
        sync(descriptor)
        sizes.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(os, "fsync", fsync)
    trial = study.ask()
    assert len(sizes) == 1
    trial.suggest_float("x", 0, 1)
    trial.set_user_attr("y", 2)
    trial.report(0.5, 1)
    assert len(sizes) == 1
    study.tell(trial, 0.5)
    assert len(sizes) == 2
    assert sizes[-1] == journal.stat().st_size  # what was on its way went with it
    backend = optuna.storages.journal.JournalFileBackend(str(journal))
    (read,) = optuna.load_study(study_name="s", storage=optuna.storages.JournalStorage(backend)).trials
    assert (read.params, read.user_attrs, read.intermediate_values) == (trial.params, {"y": 2}, {1: 0.5})
