"""An ordinary Optuna study in an ordinary Optuna storage: made, found again, resumed."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from nbopt.errors import OptionError, StoreError, disk_error
from nbopt.ledger import default_home
from nbopt.studies.extra import load, quiet
from nbopt.studies.locking import JournalLock, journal_backend

JOURNAL = "studies.journal"
"""The file of all studies, beside the runs. Optuna's journal: with SQLite, 17 of 160 trials were lost to 32 writers."""

REASON = "nbopt:reason"
"""User attribute of a trial: why it failed."""

OWNER = "nbopt:owner"
"""User attribute of a trial: the process that runs it. Optuna's journal has no heartbeat, and processes get killed."""

KEY = "nbopt:key"
"""User attribute of a study: what was tuned, so that a later study of the same can start from its best."""

BEGINNING = b'{"op_code"'
"""What each line of a journal begins with."""

DIRECTIONS = ("maximize", "minimize")

Storage = Any
"""None, the path of a journal, a URL, or a storage object of Optuna."""


@dataclass(frozen=True)
class Opened:
    """Hold a study that was opened.

    Args:
        study: The Optuna study.
        storage: The storage object that it lies in.
        where: What a process of its own opens the same storage by.
        resumed: Trials that it had already.
        notes: What must be said: trials whose process is gone.
    """

    study: Any
    storage: Any
    where: Storage
    resumed: int = 0
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Return the study's name."""
        return str(self.study.study_name)

    @property
    def ended(self) -> int:
        """Return how many of its trials have ended, failed ones too."""
        return sum(trial.state.is_finished() for trial in self.study.get_trials(deepcopy=False))

    def fail(self, number: int, reason: str) -> None:
        """Mark a trial that nobody runs any more as failed; one that has ended stays as it is."""
        optuna = load()
        study_id = self.storage.get_study_id_from_name(self.name)
        trial_id = self.storage.get_trial_id_from_study_id_trial_number(study_id, number)
        try:
            self.storage.set_trial_user_attr(trial_id, REASON, reason)
            self.storage.set_trial_state_values(trial_id, optuna.trial.TrialState.FAIL)
        except optuna.exceptions.UpdateFinishedTrialError:
            return  # it ended in the meantime: its own word counts


def journal_file(home: Path | None = None) -> Path:
    """Return the file that studies are kept in where the user names no storage."""
    return (home or default_home()) / JOURNAL


def storage_of(where: Storage = None) -> Any:
    """Open a storage.

    Args:
        where: None for the journal beside the runs, the path of a journal, a URL as Optuna takes it, or a storage
            object, which is taken as it is.

    Raises:
        StoreError: It can't be opened, another version wrote it, or the path is that of no journal.
    """
    optuna = load()
    if isinstance(where, str) and "://" in where:
        return _told(where, lambda: optuna.storages.get_storage(where))
    if where is not None and not isinstance(where, (str, Path)):
        return _told(where, lambda: optuna.storages.get_storage(where))
    path = Path(where) if where is not None else journal_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        mend(path)
    except OSError as error:
        raise disk_error(error, path) from error
    return _told(path, lambda: optuna.storages.JournalStorage(journal_backend(path)))


def mend(path: Path) -> bool:
    """Take a torn last line off a journal, and tell whether there was one.

    A writer that is killed, or whose disk is full, can leave half a line. The next writer's line would be glued to
    it, and from then on Optuna 5.0 raises JSONDecodeError wherever it reads the file: one lost trial would cost all.

    Raises:
        StoreError: The file is no journal; it is left as it is.
    """
    if not path.exists() or not path.stat().st_size:
        return False
    with path.open("rb") as file:
        first = file.readline()
        file.seek(-1, os.SEEK_END)
        whole = file.read(1) == b"\n"
    _check_journal(path, first)
    if whole:
        return False
    with JournalLock(str(path)):
        content = path.read_bytes()
        if content.endswith(b"\n"):
            return False  # it was a writer's line on its way
        with path.open("r+b") as file:
            file.truncate(content.rfind(b"\n") + 1)
        return True


def _check_journal(path: Path, first: bytes) -> None:
    """Refuse a file that does not begin as a journal does: what is written into one is lost to its owner.

    Args:
        path: The file.
        first: Its first line, of which a writer may have left a part.

    Raises:
        StoreError: It is something else.
    """
    try:
        line = json.loads(first) if first.endswith(b"\n") else {}
    except ValueError:  # no JSON, or no text
        line = None
    if isinstance(line, dict) and ("op_code" in line or (not line and BEGINNING.startswith(first[: len(BEGINNING)]))):
        return
    database = first.startswith(b"SQLite format 3\0")
    raise StoreError(
        "a journal that Optuna wrote, or a new file",
        f"{path}, {'a SQLite database' if database else 'which is something else'}; it was left as it is",
        f"--storage sqlite:///{path}" if database else "another --storage",
    )


def _told(where: Any, do: Any) -> Any:
    """Do something with a storage; what it raises becomes a message that names the storage."""
    try:
        return do()
    except ImportError as error:
        raise StoreError("a storage whose driver is installed", str(error), "pip install that driver") from error
    except OSError as error:
        raise disk_error(error, where) from error
    except Exception as error:
        # RuntimeError of another schema, AssertionError and KeyError of a journal's unknown entries, SQLAlchemy's own.
        if isinstance(error, (RuntimeError, AssertionError, KeyError, ValueError)) or _of_database(error):
            text = str(error).splitlines()[0] if str(error) else type(error).__name__
            version = load().__version__
            raise StoreError(
                f"a storage that Optuna {version} can read",
                f"{_name(where)}: {text}",
                "upgrade it (`optuna storage upgrade --storage URL`), or give another --storage; it was left as it is",
            ) from error
        raise


def _of_database(error: Exception) -> bool:
    return type(error).__module__.startswith(("sqlalchemy", "optuna"))


def _name(where: Any) -> str:
    return str(where) if isinstance(where, (str, Path)) else type(where).__name__


def open_study(
    name: str,
    *,
    directions: Sequence[str] = ("maximize",),
    storage: Storage = None,
    key: str = "",
) -> Opened:
    """Open a study by its name: a new one, or the one that is there, to be continued.

    Trials of a study that is there, and whose process on this machine is gone, are marked as failed.

    Args:
        name: Its name in the storage.
        directions: "maximize" or "minimize", one for each objective.
        storage: See `storage_of`.
        key: What is tuned; kept with a new study, so that later ones of the same can start from its best.

    Raises:
        OptionError: A direction is unknown, or the study has others.
        StoreError: The storage can't be opened, or another version wrote it.
        MissingExtra: Optuna is not installed.
    """
    optuna = load()
    for direction in directions:
        if direction not in DIRECTIONS:
            raise OptionError(f"a direction among {', '.join(DIRECTIONS)}", repr(direction))
    with quiet():
        opened = storage_of(storage)
        study = _told(
            storage,
            lambda: optuna.create_study(
                storage=opened, study_name=name, directions=list(directions), load_if_exists=True
            ),
        )
        there = tuple(direction.name.lower() for direction in study.directions)
        if there != tuple(directions):
            raise OptionError(
                f"study {name!r} continued in its direction, {' and '.join(there)}",
                " and ".join(directions),
                f"--{there[0]}, or another name" if len(there) == 1 else "the same directions, or another name",
            )
        if key and KEY not in study.user_attrs:
            study.set_user_attr(KEY, key)
        result = Opened(study, opened, storage, len(study.get_trials(deepcopy=False)))
        return Opened(study, opened, storage, result.resumed, fail_stale(result))


def owner() -> dict[str, Any]:
    """Return what tells this process from any other: numbers of processes are used again."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "born": psutil.Process().create_time()}


def fail_stale(opened: Opened) -> tuple[str, ...]:
    """Fail the trials that are marked as running but whose process is gone, and return notes on them."""
    optuna = load()
    running = (optuna.trial.TrialState.RUNNING,)
    failed, unknown = [], []
    for trial in opened.study.get_trials(deepcopy=False, states=running):
        mark = trial.user_attrs.get(OWNER)
        if not isinstance(mark, dict) or mark.get("host") != socket.gethostname():
            unknown.append(trial.number)
        elif not _lives(mark):
            opened.fail(trial.number, "its process ended before it did")
            failed.append(trial.number)
    notes = []
    if failed:
        numbers = ", ".join(map(str, failed))
        notes.append(f"trials {numbers} were left unfinished by a process that is gone: marked as failed")
    if unknown:
        numbers = ", ".join(map(str, unknown))
        notes.append(f"trials {numbers} are marked as running elsewhere: left as they are")
    return tuple(notes)


def _lives(mark: dict[str, Any]) -> bool:
    try:
        process = psutil.Process(int(mark["pid"]))
        return abs(process.create_time() - float(mark["born"])) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, KeyError, TypeError, ValueError):
        return False
