"""Runs are plain data that survives: other kernels at once, kill -9, a full disk, damage, newer versions."""

from __future__ import annotations

import dataclasses
import json
import signal
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nbopt.artifacts import hash_of, sidecar_of
from nbopt.errors import ArtifactError, StoreError
from nbopt.ledger import Ledger
from nbopt.runs import Run, RunStore
from nbopt.runtimes import Manifest

Start = Callable[..., "subprocess.Popen[str]"]
FULL = Run(
    name="quantize/openvino", workload_key="k", quality=0.5, notes=("a", "b"), verdicts={"size": "better"}, epochs=3
)


def test_a_run_is_plain_data_both_ways() -> None:
    body = json.loads(json.dumps(FULL.to_dict()))
    assert Run.from_dict(body) == FULL
    assert Run.from_dict({**body, "of_a_newer_version": 1}) == FULL


def test_numpy_numbers_and_nan_become_json() -> None:
    body = Run(quality=np.float64(0.5), size_bytes=np.int64(3), latency_ms=float("nan")).to_dict()  # type: ignore[arg-type]
    assert json.loads(json.dumps(body, allow_nan=False))["latency_ms"] is None


def test_the_store_lies_beside_the_notebook_or_where_the_user_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    assert RunStore().home == home
    monkeypatch.delenv("NBOPT_HOME")
    monkeypatch.chdir(tmp_path)
    assert RunStore().home == tmp_path / ".nbopt"
    assert RunStore(tmp_path / "other").home == tmp_path / "other"


def test_what_was_added_is_there_for_any_other_store_object() -> None:
    added = RunStore().add(FULL)
    assert RunStore().runs() == [FULL]
    assert added.home == RunStore().runs()[0].home
    other = dataclasses.replace(FULL, id="2", workload_key="other")
    RunStore().add(other)
    assert RunStore().runs("k") == [FULL]
    assert RunStore().runs() == [FULL, other]


def test_adding_again_replaces() -> None:
    store = RunStore()
    store.add(FULL)
    store.add(dataclasses.replace(FULL, quality=0.7))
    assert [run.quality for run in store.runs()] == [0.7]


def test_artifacts_are_kept_by_content(tmp_path: Path) -> None:
    store = RunStore()
    path = tmp_path / "m.onnx"
    path.write_bytes(b"graph")
    manifest = Manifest("onnxruntime")
    first = store.keep(path, manifest)
    assert store.keep(path, manifest) == first
    assert store.keep(path, Manifest("onnxruntime", precision="int8"))[0] != first[0]
    assert hash_of(store.home / first[0]) == first[1]
    path.unlink()
    assert (store.home / first[0]).read_bytes() == b"graph"
    assert len(list((store.home / "artifacts").iterdir())) == 2


def test_keeping_again_repairs_what_was_damaged(tmp_path: Path) -> None:
    store = RunStore()
    path = tmp_path / "m.onnx"
    path.write_bytes(b"graph")
    relative, sha256 = store.keep(path, Manifest("onnxruntime"))
    (store.home / relative).write_bytes(b"gr")
    store.keep(path, Manifest("onnxruntime"))
    assert hash_of(store.home / relative) == sha256
    sidecar_of(store.home / relative).unlink()
    store.keep(path, Manifest("onnxruntime"))
    assert sidecar_of(store.home / relative).is_file()


def test_a_run_whose_file_is_gone_or_never_was_says_so() -> None:
    failed = RunStore().add(dataclasses.replace(FULL, status="failed", reason="operator X is missing"))
    with pytest.raises(ArtifactError, match="operator X is missing"):
        failed.predict(np.zeros(3))
    gone = dataclasses.replace(failed, status="ok", artifact="artifacts/none/model.onnx")
    with pytest.raises(ArtifactError, match="no file at"):
        gone.export("m.onnx")
    with pytest.raises(ArtifactError, match="not kept"):
        _ = gone.model


ADD_FIFTY = """
    import sys, time
    from nbopt.runs import Run, RunStore
    print("ready", flush=True)
    sys.stdin.readline()
    store = RunStore()
    for index in range(50):
        store.add(Run(name=f"{sys.argv[1]}{index}", workload_key="both"))
"""


def test_two_notebooks_that_write_at_once_lose_nothing(run_python: Start) -> None:
    writers = [run_python(ADD_FIFTY, name) for name in "ab"]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        assert writer.communicate()[1] == ""
        assert writer.returncode == 0
    assert sorted(run.name for run in RunStore().runs()) == sorted(f"{n}{i}" for n in "ab" for i in range(50))


ADD_UNTIL_KILLED = """
    import itertools
    from nbopt.runs import Run, RunStore
    store = RunStore()
    for index in itertools.count():
        store.add(Run(name=f"run{index}"))
        print(index, flush=True)
"""


def test_kill_9_while_writing_loses_no_run_that_was_added(run_python: Start) -> None:
    writer = run_python(ADD_UNTIL_KILLED)
    assert writer.stdout is not None
    added = [int(writer.stdout.readline()) for _ in range(10)]
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    added += [int(line) for line in writer.stdout.read().split()]
    names = [run.name for run in RunStore().runs()]
    assert names[: len(added)] == [f"run{index}" for index in added]
    RunStore().add(FULL)
    assert FULL in RunStore().runs()


def overwritten(path: Path) -> None:
    with path.open("r+b") as stream:
        stream.write(b"\xff" * 200)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 + 100])


def text(path: Path) -> None:
    path.write_text("this was a database once\n" * 500)


@pytest.mark.parametrize("damage", [overwritten, cut_short, text])
def test_a_damaged_store_is_told_and_left_as_it_is(damage: Callable[[Path], None]) -> None:
    store = RunStore()
    for index in range(100):
        store.add(dataclasses.replace(FULL, id=str(index), reason="x" * 200))
    damage(store.database)
    before = store.database.read_bytes()
    with pytest.raises(StoreError, match="a store of runs at") as caught:
        RunStore().runs()
    assert "damaged" in caught.value.came
    assert f"mv {store.database}" in caught.value.do
    assert store.database.read_bytes() == before
    store.database.rename(store.database.with_name("runs.sqlite.damaged"))
    assert RunStore().runs() == []


@pytest.mark.parametrize("version", ["99", "2.0", "unknown"])
def test_a_store_of_a_newer_version_says_how_to_upgrade(version: str) -> None:
    store = RunStore()
    store.add(FULL)
    with sqlite3.connect(store.database) as connection:
        connection.execute("UPDATE meta SET value = ? WHERE key = 'schema'", (version,))
    connection.close()
    with pytest.raises(StoreError, match=f"version {version}, written by a newer nbopt") as caught:
        RunStore()
    assert "pip install --upgrade nbopt" in caught.value.do


def test_a_folder_that_can_not_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for place in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nbopt"), Path("/sys/nbopt")):
        with pytest.raises(StoreError, match="can be written") as caught:
            RunStore(place)
        assert str(place) in caught.value.came
        assert "NBOPT_HOME" in caught.value.do
    assert (tmp_path / "file").read_text() == "in the way"


class FilledLedger(Ledger):
    """A ledger whose database may not grow any more: SQLite's own limit, which it reports as a full disk."""

    def _open(self) -> sqlite3.Connection:
        connection = super()._open()
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
        return connection


class Filled(RunStore):
    """A store of such a ledger."""

    def __init__(self, home: str | Path | None = None) -> None:
        super().__init__(home)
        self._ledger = FilledLedger(self.home)


def test_a_full_disk_is_told_and_what_was_added_stays() -> None:
    RunStore().add(FULL)
    store = Filled()
    large = dataclasses.replace(FULL, id="large", reason="x" * 100_000)
    with pytest.raises(StoreError, match="room on the disk") as caught:
        store.add(large)
    assert "NBOPT_HOME" in caught.value.do
    assert caught.value.run == large
    assert RunStore().runs() == [FULL]


def test_a_store_that_another_process_holds_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nbopt.ledger.BUSY_SECONDS", 0.1)
    store = RunStore()
    holder = sqlite3.connect(store.database)
    try:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked"):
            store.add(FULL)
    finally:
        holder.close()
    store.add(FULL)
    assert store.runs() == [FULL]
