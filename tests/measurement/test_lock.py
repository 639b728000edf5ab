"""One measurement at a time on a machine, and the lock goes with the process that held it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from nbopt.measurement.lock import LOCK_NAME, measuring

Start = Callable[..., "subprocess.Popen[str]"]

HOLD = """
    import sys, tempfile
    tempfile.tempdir = sys.argv[1]
    from nbopt.measurement.lock import measuring
    with measuring():
        print("held", flush=True)
        sys.stdin.readline()
    print("free", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def _own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def read(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_while_another_process_measures_this_one_waits_and_says_for_how_long(run_python: Start, tmp_path: Path) -> None:
    other = run_python(HOLD, str(tmp_path))
    assert read(other) == "held"
    waited: list[float] = []

    def waiting(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            tell(other)

    with measuring(waiting):
        assert read(other) == "free"
    assert len(waited) >= 3
    assert waited == sorted(waited)


def test_a_killed_process_does_not_keep_the_lock(run_python: Start, tmp_path: Path) -> None:
    other = run_python(HOLD, str(tmp_path))
    assert read(other) == "held"
    other.send_signal(signal.SIGKILL)
    other.wait()
    with measuring(lambda _: pytest.fail("the lock is still held")):
        pass


def test_an_interrupt_while_waiting_or_measuring_frees_it(run_python: Start, tmp_path: Path) -> None:
    other = run_python(HOLD, str(tmp_path))
    assert read(other) == "held"

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), measuring(interrupt):
        pytest.fail("the lock was given twice")
    tell(other)
    assert read(other) == "free"
    with pytest.raises(KeyboardInterrupt), measuring():
        raise KeyboardInterrupt
    with measuring(lambda _: pytest.fail("the lock is still held")):
        pass


def test_the_lock_is_open_to_all_whatever_its_maker_s_files_are(tmp_path: Path) -> None:
    umask = os.umask(0o077)
    try:
        with measuring():
            pass
    finally:
        os.umask(umask)
    assert (tmp_path / LOCK_NAME).stat().st_mode & 0o777 == 0o666


def test_where_nothing_can_be_written_is_measured_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    with measuring():
        pass


@pytest.mark.parametrize(("mode", "folder_mode"), [(0o444, 0o755), (0o600, 0o777), (0o600, 0o755)])
def test_any_user_of_the_machine_may_take_part(mode: int, folder_mode: int, tmp_path: Path) -> None:
    with measuring():
        pass
    lock = tmp_path / LOCK_NAME
    lock.chmod(mode)
    tmp_path.chmod(folder_mode)
    script = textwrap.dedent(
        """
        import os, sys, tempfile
        from nbopt.measurement.lock import measuring
        tempfile.tempdir = sys.argv[1]
        if os.getuid() == 0:
            os.setuid(65534)  # the superuser may write what nobody else may
        with measuring():
            print("held")
        """
    )
    for folder in (tmp_path, *tmp_path.parents):
        if folder.owner() == lock.owner() and folder != Path(folder.anchor):
            folder.chmod(folder.stat().st_mode | 0o011)
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False, env=os.environ
    )
    assert done.stdout == "held\n", done.stderr
