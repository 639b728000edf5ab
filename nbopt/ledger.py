"""Ledger: the SQLite file beside the notebook, in which every finished run is a record of plain text."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from nbopt.errors import StoreError, disk_error

SCHEMA_VERSION = 1
BUSY_SECONDS = 60.0
WAL_RETRY_SECONDS = 0.01


class Record(NamedTuple):
    """Hold a run as the file keeps it.

    Args:
        id: Unique.
        workload_key: Content hash of what it is a run of.
        name: Its name.
        created: When, ISO 8601.
        body: The run as JSON.
    """

    id: str
    workload_key: str
    name: str
    created: str
    body: str


def default_home() -> Path:
    """Return `NBOPT_HOME`, or `.nbopt` in the notebook's folder, which is the kernel's working directory."""
    return Path(os.environ.get("NBOPT_HOME") or ".nbopt").expanduser().resolve()


class Ledger:
    """Keep records in `runs.sqlite`.

    Any number of kernels may write at once (SQLite's write-ahead log). A record that `add` returned from
    survives the death of the process.

    Args:
        home: The folder; it is made where it is not there.

    Raises:
        StoreError: The folder can't be written, or the file is damaged or of a newer nbopt.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.database = self.home / "runs.sqlite"
        with self.told():
            self.home.mkdir(parents=True, exist_ok=True)
            try:
                self._prepare()
            except sqlite3.Error as error:
                # What a full or read-only folder holds can still be read; adding to it says what is wrong.
                if not _is_unwritable(error) or not self._has_runs():
                    raise
        found = self._rows("SELECT value FROM meta WHERE key = 'schema'")
        version = str(found[0][0]) if found else "none"
        if not version.isdigit() or int(version) > SCHEMA_VERSION:
            raise StoreError(
                f"a store of version {SCHEMA_VERSION} or older at {self.database}",
                f"version {version}, written by a newer nbopt",
                "pip install --upgrade nbopt, or set NBOPT_HOME to another folder",
            )

    def _prepare(self) -> None:
        with self._connection() as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT)")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS runs (id TEXT PRIMARY KEY, workload_key TEXT NOT NULL, "
                "name TEXT NOT NULL, created TEXT NOT NULL, body TEXT NOT NULL)"
            )
            connection.execute("CREATE INDEX IF NOT EXISTS by_workload ON runs (workload_key, created)")
            connection.execute("INSERT OR IGNORE INTO meta VALUES ('schema', ?)", (str(SCHEMA_VERSION),))

    def _has_runs(self) -> bool:
        try:
            return bool(self._rows("SELECT name FROM sqlite_master WHERE name = 'runs'"))
        except StoreError:
            return False

    def _rows(self, query: str, values: Sequence[str] = ()) -> list[tuple[Any, ...]]:
        """Return what a query finds. SQLite writes its log's index even to read: where it can't, a copy is read."""
        with self.told():
            try:
                with self._connection() as connection:
                    return connection.execute(query, values).fetchall()
            except sqlite3.Error as error:
                if not _is_unwritable(error):
                    raise
            with tempfile.TemporaryDirectory(prefix="nbopt-store-") as folder:
                for name in (self.database.name, f"{self.database.name}-wal"):
                    if (self.home / name).exists():
                        shutil.copyfile(self.home / name, Path(folder) / name)
                with closing(sqlite3.connect(Path(folder) / self.database.name)) as copied:
                    return copied.execute(query, values).fetchall()

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        connection = self._open()
        try:
            with connection:
                yield connection
        finally:
            connection.close()

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.database, timeout=BUSY_SECONDS)
        try:
            self._enter_wal(connection)
            connection.execute("PRAGMA synchronous=NORMAL")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _enter_wal(self, connection: sqlite3.Connection) -> None:
        """Turn the write-ahead log on, and wait where another process is at it.

        SQLite's own timeout does not cover this change: two kernels that make one store at the same moment get
        "database is locked" at once.
        """
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                connection.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                busy = getattr(error, "sqlite_errorname", "").startswith("SQLITE_BUSY")
                if not busy or time.monotonic() > deadline:
                    raise
                time.sleep(WAL_RETRY_SECONDS)

    @contextmanager
    def told(self) -> Iterator[None]:
        """Turn the file system's and SQLite's errors into messages."""
        move = f"set NBOPT_HOME to a folder that can be written (now {self.home})"
        try:
            yield
        except sqlite3.Error as error:
            raise self._message(error, move) from error
        except OSError as error:
            raise disk_error(error, self.home, move) from error

    def _message(self, error: sqlite3.Error, move: str) -> StoreError:
        kind = getattr(error, "sqlite_errorname", "")
        if kind == "SQLITE_FULL":
            return StoreError(f"room on the disk of {self.home}", "it is full", f"free some space, or {move}")
        if kind.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
            return StoreError("a folder that can be written", f"{self.home}: {error}", move)
        if kind.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return StoreError(
                f"a free store at {self.database}",
                f"locked for {BUSY_SECONDS:.0f} s: {error}",
                "end the process that holds it, or set NBOPT_HOME to another folder",
            )
        if kind.startswith("SQLITE_IOERR"):
            return StoreError(f"a disk that takes writes at {self.home}", f"{error}", f"free some space, or {move}")
        return StoreError(
            f"a store of runs at {self.database}",
            f"a damaged file ({error}); the artifacts beside it are whole",
            f"mv {self.database} {self.database}.damaged, and repeat the last cell; or {move}",
        )

    def add(self, record: Record) -> None:
        """Write a record, or write it anew.

        Raises:
            StoreError: The disk is full, read-only, or the file is damaged.
        """
        with self.told(), self._connection() as connection:
            connection.execute("INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?)", record)

    def bodies(self, workload_key: str | None = None) -> list[str]:
        """Return the records' bodies, oldest first, of one workload or of all."""
        where, values = ("WHERE workload_key = ?", [workload_key]) if workload_key else ("", [])
        return [body for (body,) in self._rows(f"SELECT body FROM runs {where} ORDER BY created, rowid", values)]


def _is_unwritable(error: sqlite3.Error) -> bool:
    """Tell a database whose place can't be written from one that is damaged or busy."""
    kinds = ("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_FULL", "SQLITE_IOERR", "SQLITE_PERM")
    return str(getattr(error, "sqlite_errorname", "")).startswith(kinds)
