"""Studies are the user's: ordinary, resumed by name, whole whatever happened to a process or the disk."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from nbopt.errors import OptionError, StoreError
from nbopt.studies.opening import OWNER, REASON, fail_stale, journal_file, mend, open_study, owner, storage_of


def test_a_study_lies_in_a_journal_beside_the_runs_and_is_optunas_own(home: Path) -> None:
    opened = open_study("mine", directions=("minimize",))
    opened.study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    assert journal_file() == home.resolve() / "studies.journal"
    journal = optuna.storages.journal.JournalFileBackend(str(journal_file()))
    loaded = optuna.load_study(study_name="mine", storage=optuna.storages.JournalStorage(journal))
    assert len(loaded.trials) == 3
    assert loaded.direction.name == "MINIMIZE"


def test_it_is_resumed_by_its_name(home: Path) -> None:
    open_study("mine").study.optimize(lambda trial: 1.0, n_trials=2)
    again = open_study("mine")
    assert again.resumed == 2
    assert len(again.study.trials) == 2


@pytest.mark.parametrize("where", ["sqlite", "path", "object"])
def test_a_users_own_storage_is_taken_as_it_is(where: str, tmp_path: Path) -> None:
    storages = {
        "sqlite": f"sqlite:///{tmp_path / 'own.db'}",
        "path": str(tmp_path / "own.journal"),
        "object": optuna.storages.InMemoryStorage(),
    }
    opened = open_study("mine", storage=storages[where])
    opened.study.optimize(lambda trial: 1.0, n_trials=1)
    assert open_study("mine", storage=storages[where]).resumed == 1
    if where == "object":
        assert opened.storage is storages["object"]


def test_another_direction_than_the_studys_is_refused_and_the_study_stays(home: Path) -> None:
    open_study("mine", directions=("maximize",)).study.optimize(lambda trial: 1.0, n_trials=1)
    with pytest.raises(OptionError) as caught:
        open_study("mine", directions=("minimize",))
    assert "maximize" in caught.value.expected
    assert caught.value.came == "minimize"
    assert open_study("mine", directions=("maximize",)).resumed == 1


def test_a_database_of_another_version_is_named_and_left_as_it_is(tmp_path: Path) -> None:
    import sqlite3

    url = f"sqlite:///{tmp_path / 'old.db'}"
    open_study("mine", storage=url)
    with sqlite3.connect(tmp_path / "old.db") as database:
        database.execute("UPDATE alembic_version SET version_num = 'v0.9.0.a'")
    database.close()
    before = (tmp_path / "old.db").read_bytes()
    with pytest.raises(StoreError) as caught:
        open_study("mine", storage=url)
    assert "old.db" in caught.value.came
    assert "optuna storage upgrade" in caught.value.do
    assert (tmp_path / "old.db").read_bytes() == before


@pytest.mark.parametrize(
    "line", ['{"op_code":99,"worker_id":"x"}', '{"worker_id":"x"}', "not json", '{"op_code":0,"worker_id":"x"}']
)
def test_a_journal_of_another_version_is_named_and_left_as_it_is(line: str, tmp_path: Path) -> None:
    path = tmp_path / "new.journal"
    # A line that is no JSON is told when the next one is read.
    path.write_text(f"{line}\n{line}\n")
    with pytest.raises(StoreError) as caught:
        open_study("mine", storage=path)
    assert "new.journal" in caught.value.came
    assert path.read_text() == f"{line}\n{line}\n"


def test_a_torn_last_line_costs_nothing_but_itself(tmp_path: Path) -> None:
    path = tmp_path / "torn.journal"
    open_study("mine", storage=path).study.optimize(lambda trial: 1.0, n_trials=2)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"op_code":4,"worker')
    opened = open_study("mine", storage=path)
    assert opened.resumed == 2
    opened.study.optimize(lambda trial: 1.0, n_trials=1)
    assert open_study("mine", storage=path).resumed == 3
    assert not mend(path)


@pytest.mark.parametrize(
    "content", [None, b'{"a": 1}', b"a,b\n1,2", b"one line\n", b"\x00\xff", b'{"op_code": 1, torn\n']
)
def test_a_file_that_is_no_journal_is_refused_and_left_as_it_is(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "own.db"
    if content is None:
        url = f"sqlite:///{path}"
        optuna.create_study(storage=url, study_name="mine").optimize(lambda trial: 1.0, n_trials=2)
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(StoreError) as caught:
        open_study("mine", storage=str(path))
    assert "own.db" in caught.value.came
    assert path.read_bytes() == before
    if content is None:
        assert caught.value.do == f"--storage {url}"
        assert open_study("mine", directions=("minimize",), storage=url).resumed == 2


@pytest.mark.parametrize("torn", [b"{", b'{"op_co', b'{"op_code":0,"worker'])
def test_a_torn_first_line_leaves_a_new_journal(torn: bytes, tmp_path: Path) -> None:
    path = tmp_path / "torn.journal"
    path.write_bytes(torn)
    assert open_study("mine", storage=path).resumed == 0
    assert open_study("mine", storage=path).resumed == 0


def test_optuna_itself_would_lose_the_study_to_a_torn_line(tmp_path: Path) -> None:
    # The reason for `mend`: once this fails, Optuna has mended it itself.
    path = tmp_path / "torn.journal"
    open_study("mine", storage=path).study.optimize(lambda trial: 1.0, n_trials=1)
    with path.open("ab") as file:
        file.write(b'{"op_code":4,"worker')
    backend = optuna.storages.journal.JournalFileBackend(str(path))
    study = optuna.load_study(storage=optuna.storages.JournalStorage(backend), study_name="mine")
    with pytest.raises((ValueError, AttributeError)):
        study.optimize(lambda trial: 1.0, n_trials=2)


def test_trials_of_a_process_that_is_gone_are_failed_and_others_are_left(home: Path) -> None:
    opened = open_study("mine")
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    marks = [
        owner() | {"pid": int(ended.stdout)},  # gone
        owner(),  # this process: it runs
        owner() | {"born": owner()["born"] - 1000},  # another process had this one's number
        owner() | {"host": "elsewhere"},
    ]
    for mark in marks:
        opened.study.ask().set_user_attr(OWNER, mark)
    opened.study.ask()  # begun by somebody else's program
    notes = fail_stale(opened)
    states = [trial.state for trial in opened.study.trials]
    running, failed = TrialState.RUNNING, TrialState.FAIL
    assert states == [failed, running, failed, running, running]
    assert "trials 0, 2" in notes[0]
    assert "trials 3, 4" in notes[1]
    assert "process" in opened.study.trials[0].user_attrs[REASON]


def test_a_trial_that_has_ended_is_not_failed_after_it(home: Path) -> None:
    opened = open_study("mine")
    trial = opened.study.ask()
    opened.study.tell(trial, 1.0)
    opened.fail(trial.number, "too late")
    assert opened.study.trials[0].value == 1.0


def test_a_lock_that_a_killed_writer_left_is_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "locked.journal"
    open_study("mine", storage=path)
    lock = Path(f"{path}.lock")
    lock.symlink_to(path)
    remover = threading.Timer(0.2, lock.unlink)
    remover.start()
    assert open_study("mine", storage=path).resumed == 0
    remover.join()


def test_a_place_that_cannot_be_written_is_named() -> None:
    with pytest.raises(StoreError):
        storage_of("/proc/nowhere/x.journal")
