"""`store backup`: a whole copy of a database that is in use: SQLite's online backup, and the encrypted tensors."""

from __future__ import annotations

import hashlib
import os
import secrets
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from fingerprint.errors import StoreError, Tampered
from store.blobs import TensorFiles
from store.connection import Connection
from store.data_keys import DataKeys
from store.files import TEMPORARY_PREFIX, private_folder, sync_folder, write_error
from store.mounts import refuse_network

SECRETS = ".secrets"


def backup(
    connection: Connection, tensors: TensorFiles, data_keys: DataKeys, out: Path, *, include_secrets: bool = False
) -> int:
    """Write `out` and `out`.tensors; with `include_secrets` also `out`.secrets. Returns the number of records.

    The database file comes last and whole: after a crash there is none, or a complete one.

    Raises:
        StoreError: `out` exists, or can't be written.
        Tampered: the encrypted probes of a record are gone or damaged.
    """
    refuse_network(out)
    if out.exists():
        raise StoreError(f"{out} exists already", remedy="Give another path: a backup is never overwritten.")
    private_folder(out.absolute().parent)
    temporary = out.with_name(TEMPORARY_PREFIX + secrets.token_hex(8))
    try:
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with connection.translated(), closing(sqlite3.connect(temporary, isolation_level=None)) as copy:
            connection.raw.backup(copy, pages=2048, sleep=0.001)
            copy.execute("PRAGMA journal_mode = DELETE")
            named = [str(row[0]) for row in copy.execute("SELECT tensors_sha256 FROM fingerprints").fetchall()]
        _copy_files(named, tensors, TensorFiles.beside(out))
        if include_secrets:
            _copy_keys(named, data_keys, DataKeys(out.with_name(out.name + SECRETS)))
        descriptor = os.open(temporary, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.rename(out)
        sync_folder(out.absolute().parent)
    except OSError as error:
        raise write_error(out, error) from error
    finally:
        for suffix in ("", "-wal", "-shm", "-journal"):
            with suppress(OSError):
                temporary.with_name(temporary.name + suffix).unlink(missing_ok=True)
    return len(named)


def _copy_files(named: list[str], source: TensorFiles, target: TensorFiles) -> None:
    for sha256 in dict.fromkeys(named):
        data = source.read(sha256)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise Tampered(f"the encrypted probes {source.path(sha256)} are damaged", remedy="Run `store check`.")
        target.write(data)


def _copy_keys(named: list[str], source: DataKeys, target: DataKeys) -> None:
    for sha256 in dict.fromkeys(named):
        wrapped = source.stored(sha256)
        if wrapped is not None:
            target.store(sha256, wrapped)
