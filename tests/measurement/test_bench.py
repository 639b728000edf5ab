"""An artifact in a process of its own: it predicts, is timed, dies with a message, and never stays behind."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from nbopt.artifacts import load, read_sidecar
from nbopt.comparison import Comparison
from nbopt.errors import ArtifactError, DataError, ExportError
from nbopt.measurement.bench import Bench
from nbopt.measurement.process import WorkerProcess
from nbopt.measurement.worker import Repeated, resident_bytes
from nbopt.runs import Run
from nbopt.runtimes import Manifest
from nbopt.workload import Workload
from tests.processes import workers

Open = Callable[..., Bench]


@pytest.fixture
def open_bench(workload: Workload) -> Iterator[Open]:
    """Give a function that opens an artifact beside the shared workload's rows; all are closed at the end."""
    opened: list[Bench] = []

    def start(path: Path, manifest: Manifest, threads: int = 1, **options: int) -> Bench:
        bench = Bench(path, manifest, threads=threads, folder=workload.report_rows.folder, **options)
        opened.append(bench)
        return bench

    yield start
    for bench in opened:
        bench.close()


def kept(run: Run) -> tuple[Path, Manifest]:
    sidecar = read_sidecar(run.path)
    assert sidecar is not None
    return run.path, sidecar[0]


@pytest.fixture
def onnx(comparison: Comparison) -> tuple[Path, Manifest]:
    return kept(comparison["baseline/onnxruntime"])


def running(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_it_predicts_what_the_artifact_predicts_here(
    open_bench: Open, onnx: tuple[Path, Manifest], workload: Workload
) -> None:
    bench = open_bench(*onnx)
    outputs = bench.predict(workload.report_rows.folder)
    session = load(onnx[0], threads=1).session
    expected = np.concatenate([session.run(inputs) for inputs in workload.report_rows.batches()])
    np.testing.assert_array_equal(outputs, expected)
    assert bench.loaded.load_ms > 0
    assert bench.loaded.first_ms > 0
    assert bench.loaded.peak_bytes > 0


def test_it_times_each_inference_there(open_bench: Open, onnx: tuple[Path, Manifest]) -> None:
    bench = open_bench(*onnx)
    block = bench.side(batch=8)(20)
    assert block.wall_ns.shape == (20,)
    assert (block.wall_ns > 0).all()
    assert block.contention >= 1


@pytest.mark.parametrize("name", ["baseline/torch", "baseline/openvino"])
def test_every_library_gets_the_same_threads(open_bench: Open, comparison: Comparison, name: str) -> None:
    for threads in (1, 2):
        bench = open_bench(*kept(comparison[name]), threads=threads)
        environment = psutil.Process(bench.pid).environ()
        for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"):
            assert environment[variable] == str(threads)
        bench.close()


@pytest.mark.parametrize("name", ["baseline/torch", "baseline/onnxruntime", "baseline/openvino"])
def test_a_side_that_is_not_at_work_leaves_the_processors_to_the_other(
    open_bench: Open, comparison: Comparison, name: str
) -> None:
    bench = open_bench(*kept(comparison[name]), threads=2)
    side = bench.side(batch=64)
    side(20)
    process = psutil.Process(bench.pid)
    before, began = sum(process.cpu_times()[:2]), time.monotonic()
    time.sleep(0.3)
    spent, waited = sum(process.cpu_times()[:2]) - before, time.monotonic() - began
    # Threads that spin would have used all of it; the system counts in ticks of 10 ms.
    assert spent <= 0.1 * waited


def test_a_process_may_start_ahead_of_its_artifact(
    open_bench: Open, onnx: tuple[Path, Manifest], workload: Workload
) -> None:
    ahead = WorkerProcess(1, "onnxruntime")
    with Bench(*onnx, threads=1, folder=workload.report_rows.folder, process=ahead) as bench:
        assert bench.pid == ahead.pid
        assert bench.loaded.load_ms > 0
        assert len(bench.predict(workload.report_rows.folder)) == workload.report_rows.rows


def test_a_runtime_that_is_none_is_told_when_the_artifact_is_loaded(
    onnx: tuple[Path, Manifest], workload: Workload
) -> None:
    ahead = WorkerProcess(1)
    ahead.send(do="prepare", runtime="tensorr")
    with pytest.raises(ExportError, match="tensorr"):
        Bench(*onnx, threads=1, folder=workload.report_rows.folder, process=ahead)


def test_no_training_framework_is_loaded_where_the_runtime_is_none(
    open_bench: Open, onnx: tuple[Path, Manifest]
) -> None:
    bench = open_bench(*onnx)
    mapped = {Path(entry.path).name for entry in psutil.Process(bench.pid).memory_maps()}
    assert not any("libtorch" in name or "libtensorflow" in name for name in mapped)
    assert any("onnxruntime" in name for name in mapped)


def test_closing_ends_the_process_and_twice_is_no_harm(open_bench: Open, onnx: tuple[Path, Manifest]) -> None:
    bench = open_bench(*onnx)
    pid = bench.pid
    assert running(pid)
    bench.close()
    assert not running(pid)
    bench.close()


def test_closing_ends_a_process_that_does_not_answer(open_bench: Open, onnx: tuple[Path, Manifest]) -> None:
    bench = open_bench(*onnx)
    os.kill(bench.pid, signal.SIGSTOP)
    pid = bench.pid
    bench.close()
    assert not running(pid)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV])
def test_a_process_that_dies_says_by_which_signal(
    open_bench: Open, onnx: tuple[Path, Manifest], workload: Workload, how: signal.Signals
) -> None:
    bench = open_bench(*onnx)
    os.kill(bench.pid, how)
    with pytest.raises(ExportError, match=how.name) as caught:
        bench.predict(workload.report_rows.folder)
    assert "onnxruntime" in caught.value.expected
    assert ("memory" in caught.value.do) == (how is signal.SIGKILL)
    assert "try another runtime" in caught.value.do


def test_the_users_interrupt_is_the_parents_to_handle(
    open_bench: Open, onnx: tuple[Path, Manifest], workload: Workload
) -> None:
    bench = open_bench(*onnx)
    os.kill(bench.pid, signal.SIGINT)
    assert len(bench.predict(workload.report_rows.folder)) == workload.report_rows.rows


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (lambda path: path.write_bytes(b"no graph"), ArtifactError, r"model\.onnx"),
        (lambda path: path.unlink(), ArtifactError, r"model\.onnx"),
    ],
)
def test_what_the_process_can_not_load_comes_back_as_a_message_and_leaves_no_process(
    open_bench: Open,
    onnx: tuple[Path, Manifest],
    tmp_path: Path,
    change: Callable[[Path], Any],
    kind: type[Exception],
    message: str,
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(onnx[0].read_bytes())
    change(path)
    with pytest.raises(kind, match=message):
        open_bench(path, onnx[1])
    deadline = time.monotonic() + 10
    while workers():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_rows_of_another_shape_come_back_as_a_message(
    open_bench: Open, onnx: tuple[Path, Manifest], tmp_path: Path
) -> None:
    bench = open_bench(*onnx)
    np.savez(tmp_path / "000000.npz", names="[]", count=1, leaf0=np.zeros((3, 63), np.float32))
    with pytest.raises(DataError, match=r"\(3, 63\)"):
        bench.predict(tmp_path)
    assert bench.side()(2).calls >= 2


def test_the_resident_size_grows_with_what_is_held() -> None:
    before = resident_bytes(peak=False)
    held = np.ones(64 << 20, np.uint8)
    assert resident_bytes(peak=False) - before > 32 << 20
    assert resident_bytes(peak=True) >= before
    assert held.any()


def test_blocks_go_to_each_instance_in_turn(open_bench: Open, onnx: tuple[Path, Manifest]) -> None:
    bench = open_bench(*onnx, instances=3)
    side = bench.side()
    assert [side(2).instance for _ in range(6)] == [0, 1, 2, 0, 1, 2]
    assert {open_bench(*onnx).side()(2).instance} == {0}


def test_blocks_go_to_each_process_in_turn_and_all_of_them_end(open_bench: Open, onnx: tuple[Path, Manifest]) -> None:
    bench = open_bench(*onnx, instances=2, processes=3)
    side = bench.side()
    assert [side(2).process for _ in range(7)] == [0, 1, 2, 0, 1, 2, 0]
    alone = bench.side(alone=True)
    assert {alone(2).process for _ in range(4)} == {0}
    assert len(set(bench.pids)) == 3
    assert bench.pid == bench.pids[0]
    bench.close()
    assert not any(psutil.pid_exists(pid) for pid in bench.pids)


def test_a_large_artifact_has_one_process(
    open_bench: Open, onnx: tuple[Path, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nbopt.measurement.bench.TWIN_BYTES", 100)
    assert len(open_bench(*onnx, processes=3).pids) == 1


def test_a_call_of_several_inferences_makes_as_many(
    onnx: tuple[Path, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = load(onnx[0]).session
    calls, run = [], session.run
    monkeypatch.setattr(session, "run", lambda inputs: calls.append(1) or run(inputs))
    row = np.zeros((1, 64), np.float32)
    assert np.array_equal(Repeated(session, 5).run((row,)), run((row,)))
    assert len(calls) == 5


def test_a_worker_is_told_how_many_inferences_a_call_makes(open_bench: Open, onnx: tuple[Path, Manifest]) -> None:
    # Two processes of one file differ by up to a third in speed, so that only a large multiple can be told.
    one, many = open_bench(*onnx).side(), open_bench(*onnx, repeat=30).side()
    one(100), many(5)
    ratios = [np.median(many(5).wall_ns) / np.median(one(100).wall_ns) for _ in range(15)]
    assert 10 < np.median(ratios) < 90
