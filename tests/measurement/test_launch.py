"""Workers that are forked from a prepared process: as fresh as those that are started anew, and as mortal."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from nbopt.artifacts import read_sidecar
from nbopt.comparison import Comparison
from nbopt.errors import ExportError
from nbopt.measurement import forkserver, launch
from nbopt.measurement.bench import Bench
from nbopt.measurement.forkserver import fault_in, mapped_code, native_threads
from nbopt.measurement.process import WorkerProcess
from nbopt.runtimes import Manifest, all_runtimes
from nbopt.workload import Workload
from tests.processes import PREPARED, command_of

pytestmark = pytest.mark.skipif(not launch.FORKS, reason="this system has no safe fork")
FRAMEWORKS = sorted({name for name, each in all_runtimes().items() if each.needs_framework})


@pytest.fixture
def no_servers() -> Iterator[None]:
    """Begin and end without prepared processes."""
    launch.close_all()
    yield
    launch.close_all()


def opened(artifact: tuple[Path, Manifest], workload: Workload, *, anew: bool) -> Bench:
    process = WorkerProcess(1, artifact[1].runtime, anew=anew)
    process.ask(do="prepare", runtime=artifact[1].runtime)
    return Bench(*artifact, threads=1, folder=workload.report_rows.folder, process=process)


def kept(comparison: Comparison, runtime: str) -> tuple[Path, Manifest]:
    run = comparison[f"baseline/{runtime}"]
    sidecar = read_sidecar(run.path)
    assert sidecar is not None
    return run.path, sidecar[0]


@pytest.mark.parametrize("runtime", ["torch", "onnxruntime"])
def test_a_fork_gives_what_a_process_gives_that_was_started_anew(
    runtime: str, comparison: Comparison, workload: Workload
) -> None:
    artifact = kept(comparison, runtime)
    benches = [opened(artifact, workload, anew=anew) for anew in (True, False)]
    try:
        outputs = [bench.predict(workload.report_rows.folder) for bench in benches]
        np.testing.assert_array_equal(outputs[0], outputs[1])
        anew, forked = (bench.loaded.peak_bytes for bench in benches)
        assert forked == pytest.approx(anew, rel=0.15, abs=2**20)  # without its code in memory: 10 MB more with torch
    finally:
        for bench in benches:
            bench.close()


def test_it_leads_a_session_of_its_own_and_reads_nothing_of_others() -> None:
    one, other = WorkerProcess(1, "torch"), WorkerProcess(1, "torch")
    try:
        one.ask(do="prepare", runtime="torch")
        other.ask(do="prepare", runtime="torch")
        assert one.pid != other.pid
        assert os.getsid(one.pid) == one.pid
        assert psutil.Process(one.pid).ppid() == psutil.Process(other.pid).ppid() != os.getpid()
        # Streams are its own three, of which the output was doubled: no end of another worker's, nor of the server's.
        assert psutil.Process(other.pid).num_fds() == 4
    finally:
        one.close()
        other.close()


@pytest.mark.parametrize("runtime", FRAMEWORKS)
def test_importing_a_framework_starts_no_thread(runtime: str) -> None:
    # Otherwise workers start anew, and measuring costs seconds more for each artifact.
    if all_runtimes()[runtime].unavailable():
        pytest.skip("not installed")
    process = WorkerProcess(1, runtime)
    try:
        process.ask(do="prepare", runtime=runtime)
        assert PREPARED in command_of(psutil.Process(process.pid))
    finally:
        process.close()


def test_what_it_died_of_is_told(comparison: Comparison, workload: Workload) -> None:
    bench = opened(kept(comparison, "torch"), workload, anew=False)
    os.kill(bench.pid, signal.SIGSEGV)
    with pytest.raises(ExportError, match="SIGSEGV"):
        bench.predict(workload.report_rows.folder)
    bench.close()


@pytest.mark.usefixtures("no_servers")
def test_a_server_that_was_killed_is_replaced(comparison: Comparison, workload: Workload) -> None:
    with opened(kept(comparison, "torch"), workload, anew=False) as bench:
        server = psutil.Process(psutil.Process(bench.pid).ppid())
        server.kill()
        server.wait()
        assert len(bench.predict(workload.report_rows.folder)) == workload.report_rows.rows  # what lives, goes on
        with opened(kept(comparison, "torch"), workload, anew=False) as other:
            assert psutil.Process(other.pid).ppid() != server.pid
            assert len(other.predict(workload.report_rows.folder)) == workload.report_rows.rows


@pytest.mark.usefixtures("no_servers")
def test_what_the_environment_says_by_now_is_what_it_finds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def environment() -> tuple[dict[str, str], str]:
        process = WorkerProcess(1, "onnxruntime")
        try:
            process.ask(do="prepare", runtime="onnxruntime")
            child = psutil.Process(process.pid)
            return child.environ(), child.cwd()
        finally:
            process.close()

    before, _ = environment()
    monkeypatch.setenv("NBOPT_TEST_OF_FORKS", "set since")
    monkeypatch.chdir(tmp_path)
    after, folder = environment()
    assert "NBOPT_TEST_OF_FORKS" not in before
    assert after["NBOPT_TEST_OF_FORKS"] == "set since"
    assert after["OMP_NUM_THREADS"] == "1"
    assert Path(folder) == tmp_path


def test_nothing_survives_whoever_asked(tmp_path: Path) -> None:
    program = (
        "from nbopt.measurement.process import WorkerProcess\n"
        "import psutil, sys\n"
        "process = WorkerProcess(1, 'torch')\n"
        "process.ask(do='prepare', runtime='torch')\n"
        "print(process.pid, psutil.Process(process.pid).ppid(), flush=True)\n"
        "sys.stdin.read()\n"
    )
    asking = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert asking.stdout is not None
    pids = [int(word) for word in asking.stdout.readline().split()]
    asking.kill()
    asking.communicate()
    until = time.monotonic() + 30
    while any(psutil.pid_exists(pid) for pid in pids) and time.monotonic() < until:
        time.sleep(0.05)
    assert [pid for pid in pids if psutil.pid_exists(pid)] == []


@pytest.mark.usefixtures("no_servers")
def test_one_that_waited_in_vain_ends_and_another_takes_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked() -> psutil.Process:
        process = WorkerProcess(1, "onnxruntime")
        try:
            process.ask(do="prepare", runtime="onnxruntime")
            return psutil.Process(psutil.Process(process.pid).ppid())
        finally:
            process.close()

    ours, theirs = socket.socketpair()
    monkeypatch.setattr(forkserver, "IDLE_SECONDS", 0.01)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(signal, "set_wakeup_fd", lambda *_, **__: None)
    server = forkserver.ForkServer(theirs, None)
    server.serve()  # nobody asks: it returns
    for end in (server._selector, server._awake, server._wakes):
        end.close()
    with pytest.raises(BrokenPipeError):
        ours.send(b"f")
    ours.close()
    theirs.close()
    first = asked()
    assert asked() == first
    first.kill()
    first.wait()
    assert asked() != first


@pytest.mark.usefixtures("no_servers")
def test_of_ever_new_environments_few_servers_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    living = WorkerProcess(1, "onnxruntime")
    living.ask(do="prepare", runtime="onnxruntime")
    for number in range(4):
        monkeypatch.setenv("NBOPT_TEST_OF_FORKS", str(number))
        WorkerProcess(1, "onnxruntime").close()
    servers = [each for each in psutil.Process().children() if PREPARED in command_of(each)]
    until = time.monotonic() + 30
    while len(servers := [each for each in servers if command_of(each)]) > 2 and time.monotonic() < until:
        time.sleep(0.05)
    # The newest, and the one that has yet to tell how what it forked ends.
    assert len(servers) == 2
    os.kill(living.pid, signal.SIGSEGV)
    with pytest.raises(ExportError, match="SIGSEGV"):
        living.ask(do="prepare", runtime="onnxruntime")
    living.close()
    for threads in range(1, launch.MOST_SERVERS + 3):
        WorkerProcess(threads, "onnxruntime").close()
    assert len(launch._SERVERS) == launch.MOST_SERVERS


def test_code_in_memory_is_found_and_can_be_brought_in() -> None:
    spans = mapped_code()
    assert sum(length for _, length in spans) > 2**20
    fault_in(spans)
    assert native_threads() >= 1


def test_a_kernel_with_many_open_files_is_told_of_its_children_too() -> None:
    told, tells = os.pipe()
    high = fcntl.fcntl(told, fcntl.F_DUPFD, 1500)  # `select` takes descriptors below 1024 alone
    os.close(told)
    child = launch.Forked(None, None, os.fdopen(high, "rb", buffering=0))
    assert child.poll() is None
    os.write(tells, b"123\n")
    assert child.pid == 123
    os.write(tells, b"0\n")
    assert child.wait(1) == 0
    os.close(tells)
