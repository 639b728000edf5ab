"""Writers of a journal, of which one is killed while it holds the lock: the others go on, one after another."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

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
