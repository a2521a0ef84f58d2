"""`store check`: look at every stored byte, and tell what does not hold."""

from __future__ import annotations

import sqlite3
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fingerprint.errors import FingerprintError
from store import exposures
from store.blobs import DataKeys, TensorFiles, is_temporary
from store.connection import Connection
from store.index import COLUMNS, all_rows
from store.migrations import expected_schema, schema_of
from store.records import verify_row
from store.rows import FingerprintRow, RunRow, result_value, verified
from store.runs import SELECT_RESULTS, SELECT_RUNS, count
from store.sealing import check_ciphertext, open_tensors

if TYPE_CHECKING:
    from store.keys import Keys


@dataclass(frozen=True)
class Problem:
    """Something that `check` found. An error means that stored evidence does not hold (exit 4); a warning does not."""

    kind: Literal["error", "warning"]
    subject: str
    message: str


def check(connection: Connection, tensors: TensorFiles, data_keys: DataKeys, keys: Keys) -> Iterator[Problem]:
    """Everything that does not hold, as it is found. Reads one state of the database throughout."""
    parts: tuple[Callable[[], Iterator[Problem]], ...] = (
        lambda: _file(connection),
        lambda: _schema(connection),
        lambda: _fingerprints(connection, tensors, data_keys, keys),
        lambda: _versions(connection),
        lambda: _runs(connection),
        lambda: _results(connection),
        lambda: _exposures(connection),
        lambda: _leftovers(connection, tensors),
        lambda: _permissions(connection.path, tensors, data_keys),
    )
    try:
        with connection.snapshot():
            for part in parts:
                yield from _guarded(part, connection)
    except FingerprintError as error:
        yield Problem("error", "database", error.message)


def _guarded(part: Callable[[], Iterator[Problem]], connection: Connection) -> Iterator[Problem]:
    """A part that a damaged page cuts short is a problem of its own; the other parts still run."""
    try:
        with connection.translated():
            yield from part()
    except FingerprintError as error:
        yield Problem("error", "database", error.message)


def _file(connection: Connection) -> Iterator[Problem]:
    page_size = int(connection.rows("PRAGMA page_size")[0][0])
    if connection.path.exists() and connection.path.stat().st_size % page_size:
        yield Problem("error", "database", "was cut off: its size is no multiple of its page size")
    for (line,) in connection.iterate("PRAGMA integrity_check"):
        if line != "ok":
            yield Problem("error", "database", str(line))
    for row in connection.iterate("PRAGMA foreign_key_check"):
        yield Problem("error", f"table {row[0]}", f"row {row[1]} refers to nothing in {row[2]}")


def _schema(connection: Connection) -> Iterator[Problem]:
    actual, expected = schema_of(connection.raw), expected_schema()
    for key, sql in expected.items():
        if actual.get(key) != sql:
            yield Problem("error", " ".join(key), "is missing from the database or was changed")
    for kind, name in actual.keys() - expected.keys():
        yield Problem("error" if kind == "trigger" else "warning", f"{kind} {name}", "is not part of the schema")


def _fingerprints(connection: Connection, tensors: TensorFiles, data_keys: DataKeys, keys: Keys) -> Iterator[Problem]:
    query = f"SELECT {COLUMNS}, envelope FROM fingerprints ORDER BY name, version"  # noqa: S608 (constant names)
    for raw in connection.iterate(query):
        subject = f"{str(raw['name'])[:80]} ({str(raw['id'])[:16]})"
        try:
            row = FingerprintRow.from_sql(raw)
            yield from _record(row, raw, tensors, data_keys, keys)
        except FingerprintError as error:
            yield Problem("error", subject, error.message)


def _record(
    row: FingerprintRow, raw: sqlite3.Row, tensors: TensorFiles, data_keys: DataKeys, keys: Keys
) -> Iterator[Problem]:
    manifest = verify_row(row, raw["envelope"], keys)
    ciphertext = tensors.read(row.tensors_sha256)
    check_ciphertext(manifest, ciphertext)
    data_key = data_keys.read(row.tensors_sha256)
    if data_key is None:
        yield Problem("warning", f"{row.name} ({row.id[:16]})", "its data key is not here: the probes were not opened")
    else:
        open_tensors(manifest, row.id, ciphertext, data_key)


def _versions(connection: Connection) -> Iterator[Problem]:
    """A name's versions are 1, 2, ..., and each comes after the one that it says it replaces."""
    rows = all_rows(connection)  # Tampered where `_fingerprints` found a damaged row already
    known, expected = {row.id: row for row in rows}, Counter[str]()
    for row in rows:
        expected[row.name] += 1
        if row.version != expected[row.name]:
            yield Problem("error", row.name, f"version {expected[row.name]} is missing")
        previous = known.get(row.previous or "")
        if previous is not None and previous.name == row.name and previous.version >= row.version:
            yield Problem("error", row.name, f"version {row.version} stands before the one that it replaces")


def _runs(connection: Connection) -> Iterator[Problem]:
    for raw in connection.iterate(f"{SELECT_RUNS} ORDER BY id"):
        try:
            run = RunRow.from_sql(raw)
        except FingerprintError as error:
            yield Problem("error", f"run {str(raw['id'])[:80]}", error.message)
            continue
        found = count(connection, run.id)
        if run.results is not None and run.results != found:
            yield Problem("error", f"run {run.id}", f"has {found} results, and ended with {run.results}")


def _results(connection: Connection) -> Iterator[Problem]:
    for raw in connection.iterate(f"{SELECT_RESULTS} ORDER BY number"):
        try:
            result_value(raw)
        except FingerprintError as error:
            yield Problem(
                "error", f"result {str(raw['position'])[:20]} of run {str(raw['run_id'])[:80]}", error.message
            )


def _exposures(connection: Connection) -> Iterator[Problem]:
    for table, columns, subject in (
        ("exposures", exposures.EXPOSURE_COLUMNS, "number"),
        ("exports", exposures.EXPORT_COLUMNS, "id"),
    ):
        for raw in connection.iterate(f"SELECT * FROM {table}"):  # noqa: S608 (constant names)
            try:
                verified(table, columns, raw)
            except FingerprintError as error:
                yield Problem("error", f"{table} {str(raw[subject])[:20]}", error.message)


def _leftovers(connection: Connection, tensors: TensorFiles) -> Iterator[Problem]:
    known = [str(row[0]) for row in connection.iterate("SELECT tensors_sha256 FROM fingerprints")]
    for path in tensors.strangers(known):
        what = "was left by an interrupted write" if is_temporary(path) else "belongs to no record"
        yield Problem("warning", str(path), what)


def _permissions(database: Path, tensors: TensorFiles, data_keys: DataKeys) -> Iterator[Problem]:
    for path in (database, *sorted(tensors.folder.glob("*.bin")), *sorted(data_keys.folder.glob("*.key"))):
        if path.is_file() and stat.S_IMODE(path.stat().st_mode) & 0o077:
            yield Problem("warning", str(path), f"is open to other users; run: chmod 600 {path}")
