"""One SQLite connection: how it is opened, and what its errors mean to a person.

Queries go through the driver that sqlite-utils wraps; sqlite-utils itself is loaded for migrations only, since it would
add a tenth to the time that `fingerprint verify` takes to start.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from fingerprint.errors import (
    DatabaseBusy,
    DatabaseOutdated,
    DatabaseReadOnly,
    FingerprintError,
    NotFound,
    StoreError,
    Tampered,
)
from fingerprint.limits import DEFAULT, Limits
from store.files import private_folder, refuse_writable, sync_folder, write_error
from store.mounts import refuse_network
from store.schema import APPLICATION_ID, MIGRATION_SET, VERSION, row_digest

SqlValue: TypeAlias = str | int | bytes | None
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)
_CORRUPT = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT)
_CANT_OPEN = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR)
_DAMAGE = ("no such", "unsupported file format")  # what else a changed byte can lead to
_PATIENCE = 10  # busy timeouts that a write waits for its turn
_RESTORE = "Restore the database from a backup."


class Connection:
    """A connection in autocommit mode whose errors are this tool's. Rows are `sqlite3.Row`.

    Threads may share it: a statement, or a whole transaction, has it alone.
    """

    def __init__(self, raw: sqlite3.Connection, path: Path, *, readonly: bool, patience_s: float = 0.0) -> None:
        self.raw, self.path, self.readonly = raw, path, readonly
        self._patience_s = patience_s  # SQLite's lock is not fair: in a crowd one waits much longer than the others
        self._lock = threading.RLock()
        raw.row_factory = sqlite3.Row

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Turn SQLite's errors inside the block into this tool's."""
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError) as error:  # the driver can't decode messages that quote damage
            raise translate(error, self.path) from error

    def execute(self, sql: str, values: Iterable[SqlValue] = ()) -> None:
        """Run a statement for its effect."""
        with self._lock, self.translated():
            self.raw.execute(sql, tuple(values))

    def executemany(self, sql: str, values: Iterable[tuple[SqlValue, ...]]) -> None:
        """Run a statement for each tuple of values."""
        with self._lock, self.translated():
            self.raw.executemany(sql, values)

    def rows(self, sql: str, values: Iterable[SqlValue] = ()) -> list[sqlite3.Row]:
        """All rows of a query."""
        with self._lock, self.translated():
            return self.raw.execute(sql, tuple(values)).fetchall()

    def iterate(self, sql: str, values: Iterable[SqlValue] = ()) -> Iterator[sqlite3.Row]:
        """The rows of a query, one at a time. Only inside `snapshot`, which keeps other threads out."""
        with self.translated():
            yield from self.raw.execute(sql, tuple(values))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Hold the write lock; commit at the end, or roll back on any exception.

        Raises:
            DatabaseReadOnly: opened for reading.
            DatabaseBusy: another process kept the lock for longer than the busy timeout.
        """
        if self.readonly:
            raise read_only(self.path)
        with self._lock:
            self._begin()
            try:
                yield
                self.execute("COMMIT")
            except BaseException:
                if self.raw.in_transaction:
                    self.execute("ROLLBACK")
                raise

    def _begin(self) -> None:
        deadline = time.monotonic() + self._patience_s
        while True:
            try:
                self.execute("BEGIN IMMEDIATE")
                return
            except DatabaseBusy:
                if time.monotonic() > deadline:
                    raise

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Read one state of the database throughout the block, whatever others write meanwhile."""
        with self._lock:
            self.execute("BEGIN")
            try:
                yield
            finally:
                if self.raw.in_transaction:
                    self.execute("ROLLBACK")

    def close(self) -> None:
        """Close; nothing happens when closed already."""
        with self._lock, self.translated():
            self.raw.close()


def translate(error: sqlite3.Error | UnicodeDecodeError, path: Path) -> FingerprintError:
    """What an SQLite error means to a person."""
    code = getattr(error, "sqlite_errorcode", None)
    primary = None if code is None else code & 0xFF
    if primary in _BUSY:
        return DatabaseBusy(f"another process is writing to {path}", remedy="Try again when it is done.")
    if primary in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return read_only(path)
    if primary == sqlite3.SQLITE_FULL:
        return StoreError(
            f"no space left to write {path}", remedy="Free some space and try again; nothing that was stored is lost."
        )
    undecodable = isinstance(error, UnicodeDecodeError) or "Could not decode" in str(error)
    if primary in _CORRUPT or undecodable or str(error).startswith(_DAMAGE):
        return Tampered(f"{path} is damaged or is not a fingerprint database: {error}", remedy=_RESTORE)
    return StoreError(f"the database {path} can't be used: {error}", remedy="Check the disk and the permissions.")


def read_only(path: Path) -> DatabaseReadOnly:
    """The error for a write to a database that can't be written."""
    return DatabaseReadOnly(
        f"{path} or its folder can't be written", remedy="Choose another with --db or FINGERPRINT_HOME, or allow it."
    )


def connect(path: Path, *, readonly: bool, create: bool, limits: Limits = DEFAULT) -> Connection:
    """Open a database, creating or upgrading it when it may be written. A missing one reads as empty.

    Raises:
        NotFound: it does not exist, and neither `create` nor `readonly` is set.
        DatabaseReadOnly, DatabaseBusy: as their names say.
        Tampered: the file is no database, or damaged.
        StoreError: somebody else's database, a newer one, a folder, one that other users can change, or on a network
            file system.
    """
    refuse_network(path)
    try:
        if path.is_dir():
            raise StoreError(f"{path} is a folder", remedy="Name the database file itself.")
        if path.exists():
            refuse_writable(path, path.stat(), "600")
        elif readonly:
            return _empty(path)
        if readonly:
            return _connect_reader(path, limits)
        _require_writable(path, create)
    except OSError as error:
        raise StoreError(f"can't look at {path}: {error.strerror or error}") from error
    connection = _raw_connection(path, "mode=rw", limits, readonly=False)
    try:
        _configure(connection)
        with connection.snapshot():  # else another process could create the schema between two of the questions
            version = _state(connection)
        if version < VERSION:
            _upgrade(connection)
        _enable_wal(connection, limits)
    except BaseException:
        connection.close()
        raise
    return connection


def _require_writable(path: Path, create: bool) -> None:
    if path.exists():
        if not os.access(path, os.W_OK) or not os.access(path.parent, os.W_OK | os.X_OK):
            raise read_only(path)
    elif create:
        private_folder(path.parent)
        _create_file(path)
    else:
        raise NotFound(f"there is no database {path}", remedy="`fingerprint create` makes one.")


def _create_file(path: Path) -> None:
    """An empty file, which SQLite takes for a new database, so that mode 0600 holds from the start."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        sync_folder(path.parent)
    except PermissionError as error:
        raise read_only(path) from error
    except OSError as error:
        raise write_error(path, error) from error


def _raw_connection(path: Path, options: str, limits: Limits, *, readonly: bool) -> Connection:
    try:
        raw = sqlite3.connect(
            f"{path.as_uri()}?{options}",
            uri=True,
            timeout=limits.busy_ms / 1000,
            isolation_level=None,
            check_same_thread=False,
        )
    except sqlite3.Error as error:
        raise translate(error, path) from error
    return Connection(raw, path, readonly=readonly, patience_s=_PATIENCE * limits.busy_ms / 1000)


def _configure(connection: Connection) -> None:
    for pragma in ("foreign_keys = ON", "synchronous = FULL", "trusted_schema = OFF", "cell_size_check = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _state(connection: Connection) -> int:
    """Schema version of the open database; 0 = new.

    Raises:
        StoreError: not ours, or newer than this code.
        Tampered: ours, but the header contradicts the record of applied migrations.
    """
    version, application = _pragma(connection, "user_version"), _pragma(connection, "application_id")
    applied = _applied(connection)
    if applied == 0:
        if version == 0 and not connection.rows("SELECT 1 FROM sqlite_master LIMIT 1"):
            return 0
        raise StoreError(f"{connection.path} is not a fingerprint database", remedy="Choose another with --db.")
    if (version, application) != (applied, APPLICATION_ID):
        raise Tampered(f"the header of {connection.path} contradicts its content", remedy=_RESTORE)
    if version > VERSION:
        raise StoreError(
            f"{connection.path} was written by a newer release (schema {version}, this one knows {VERSION})",
            remedy="Upgrade with: pip install -U dnn-fingerprint",
        )
    return version


def _applied(connection: Connection) -> int:
    """How many of our migrations the database has seen."""
    if not connection.rows("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = '_sqlite_migrations'"):
        return 0
    query = "SELECT count(*) FROM _sqlite_migrations WHERE migration_set = ?"
    return int(connection.rows(query, (MIGRATION_SET,))[0][0])


def _pragma(connection: Connection, name: str) -> int:
    return int(connection.rows(f"PRAGMA {name}")[0][0])


def _upgrade(connection: Connection) -> None:
    from store.migrations import migrate

    with connection.transaction():
        if _state(connection) < VERSION:  # else another process was faster
            from store import ledger

            with connection.translated():
                migrate(connection.raw)
            ledger.append(connection, "schema", str(VERSION), {"sha256": migrations_digest(connection)})


def migrations_digest(connection: Connection) -> str:
    """SHA-256 (hex) of the record of applied migrations, which the ledger commits to."""
    rows = connection.rows("SELECT * FROM _sqlite_migrations ORDER BY id")
    return row_digest("_sqlite_migrations", {str(i): list(row) for i, row in enumerate(rows)})


def _enable_wal(connection: Connection, limits: Limits) -> None:
    """Switch to write-ahead logging. SQLite's busy timeout does not cover the switch itself, so wait here."""
    deadline = time.monotonic() + limits.busy_ms / 1000
    while True:
        try:
            mode = connection.rows("PRAGMA journal_mode")[0][0]
            if mode == "wal" or connection.rows("PRAGMA journal_mode = WAL")[0][0] == "wal":
                return
        except DatabaseBusy:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            raise StoreError(
                f"the file system of {connection.path} has no shared memory, which the database needs",
                remedy="Keep the database on a local disk (--db or FINGERPRINT_HOME).",
            )


def _connect_reader(path: Path, limits: Limits) -> Connection:
    """Open for reading; where even the lock files can't be made, take the file as it lies there."""
    try:
        return _reader(path, "mode=ro", limits)
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _CANT_OPEN or os.access(path.parent, os.W_OK):
            raise translate(error, path) from error
        log = path.with_name(path.name + "-wal")
        if log.exists() and log.stat().st_size:
            raise DatabaseReadOnly(
                f"{path} has unfinished writes in {log.name}, and its folder can't be written",
                remedy="Copy both files to a folder that you may write, and use the copy.",
            ) from error
    try:
        return _reader(path, "mode=ro&immutable=1", limits)
    except sqlite3.Error as error:
        raise translate(error, path) from error


def _reader(path: Path, options: str, limits: Limits) -> Connection:
    connection = _raw_connection(path, options, limits, readonly=True)
    try:
        connection.raw.execute("SELECT count(*) FROM sqlite_master").fetchone()
        _configure(connection)
        with connection.snapshot():
            version = _state(connection)
    except sqlite3.OperationalError:
        connection.close()
        raise
    except (sqlite3.Error, UnicodeDecodeError) as error:
        connection.close()
        raise translate(error, path) from error
    except BaseException:
        connection.close()
        raise
    if version == VERSION:
        return connection
    connection.close()
    if version == 0:
        return _empty(path)
    raise DatabaseOutdated(
        f"{path} is of an older release", remedy="Open it once where it may be written: that upgrades it."
    )


def _empty(path: Path) -> Connection:
    """An empty database in memory, in place of one that does not exist."""
    from store.migrations import migrate

    raw = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    migrate(raw)
    return Connection(raw, path, readonly=True)
