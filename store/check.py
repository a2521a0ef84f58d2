"""`store check`: look at every stored byte, and tell what does not hold."""

from __future__ import annotations

import sqlite3
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from fingerprint.errors import FingerprintError, KeyFileError, RevokedSigner
from store import exposures, takeovers, timestamps
from store.blobs import TensorFiles, is_temporary
from store.check_envelopes import check_envelopes
from store.connection import Connection, migrations_digest
from store.data_keys import UNLOCK, DataKeys
from store.index import COLUMNS, all_rows
from store.migrations import expected_schema, schema_of
from store.problems import Problem, failure, warning
from store.problems import error as problem
from store.records import verify_row
from store.rows import FingerprintRow, RunRow, result_value, verified
from store.runs import SELECT_RESULTS, SELECT_RUNS, count
from store.sealing import check_ciphertext, open_tensors
from store.trail import Trail
from store.vouching import revoked

if TYPE_CHECKING:
    from store.keys import Keys


def check(connection: Connection, tensors: TensorFiles, data_keys: DataKeys, keys: Keys) -> Iterator[Problem]:
    """Everything that does not hold, as it is found. Reads one state of the database throughout.

    Where the data keys are locked and nothing that opens them is given, the encrypted probes are compared with their
    digests and not opened: a warning.

    Raises:
        KeyFileError: what was given does not open the lock.
    """
    trail, opens = Trail(), True
    try:
        opens = data_keys.openable()
    except KeyFileError:
        raise
    except FingerprintError as error:
        yield failure("data keys", error)
    parts: tuple[Callable[[], Iterator[Problem]], ...] = (
        lambda: _file(connection),
        lambda: _schema(connection),
        lambda: trail.read(connection),
        lambda: _locked(opens),
        lambda: _fingerprints(connection, trail, tensors, data_keys if opens else None, keys),
        lambda: _versions(connection),
        lambda: _migrations(connection, trail),
        lambda: _records(connection, trail),
        lambda: _runs(connection, trail),
        lambda: _results(connection),
        lambda: _taken(connection, trail),
        lambda: _rows(connection, trail),
        lambda: check_envelopes(connection, trail, keys),
        lambda: _leftovers(connection, tensors),
        lambda: _permissions(connection.path, tensors, data_keys),
    )
    try:
        with connection.snapshot():
            for part in parts:
                yield from _guarded(part, connection)
    except FingerprintError as error:
        yield failure("database", error)


def _guarded(part: Callable[[], Iterator[Problem]], connection: Connection) -> Iterator[Problem]:
    """A part that a damaged page cuts short is a problem of its own; the other parts still run."""
    try:
        with connection.translated():
            yield from part()
    except FingerprintError as error:
        yield failure("database", error)


def _file(connection: Connection) -> Iterator[Problem]:
    page_size = int(connection.rows("PRAGMA page_size")[0][0])
    if connection.path.exists() and connection.path.stat().st_size % page_size:
        yield problem("database", "was cut off: its size is no multiple of its page size")
    for (line,) in connection.iterate("PRAGMA integrity_check"):
        if line != "ok":
            yield problem("database", str(line))
    for row in connection.iterate("PRAGMA foreign_key_check"):
        yield problem(f"table {row[0]}", f"row {row[1]} refers to nothing in {row[2]}")


def _schema(connection: Connection) -> Iterator[Problem]:
    actual, expected = schema_of(connection.raw), expected_schema()
    for key, sql in expected.items():
        if actual.get(key) != sql:
            yield problem(" ".join(key), "is missing from the database or was changed")
    for kind, name in actual.keys() - expected.keys():
        yield (problem if kind == "trigger" else warning)(f"{kind} {name}", "is not part of the schema")


def _locked(opens: bool) -> Iterator[Problem]:
    if not opens:
        yield warning("data keys", "are locked: the probes were compared with their digests, and not opened", UNLOCK)


def _fingerprints(
    connection: Connection, trail: Trail, tensors: TensorFiles, data_keys: DataKeys | None, keys: Keys
) -> Iterator[Problem]:
    query = (
        f"SELECT {COLUMNS}, (SELECT envelope FROM envelopes WHERE sha256 = id) AS envelope "  # noqa: S608 (constants)
        "FROM fingerprints ORDER BY name, version"
    )
    for raw in connection.iterate(query):
        subject = f"{str(raw['name'])[:80]} ({str(raw['id'])[:16]})"
        try:
            row = FingerprintRow.from_sql(raw)
            yield from _record(row, raw, tensors, data_keys, keys)
        except RevokedSigner as error:
            yield revoked(connection, trail, keys, subject, str(raw["id"]), error)
        except FingerprintError as error:
            yield failure(subject, error)


def _record(
    row: FingerprintRow, raw: sqlite3.Row, tensors: TensorFiles, data_keys: DataKeys | None, keys: Keys
) -> Iterator[Problem]:
    manifest = verify_row(row, raw["envelope"], keys)
    ciphertext = tensors.read(row.tensors_sha256)
    check_ciphertext(manifest, ciphertext)
    if data_keys is None:
        return
    try:
        data_key = data_keys.read(row.tensors_sha256)
    except KeyFileError as error:
        yield warning(f"{row.name} ({row.id[:16]})", f"{error.message}: the probes were not opened", error.remedy)
        return
    if data_key is None:
        yield warning(f"{row.name} ({row.id[:16]})", "its data key is not here: the probes were not opened")
    else:
        open_tensors(manifest, row.id, ciphertext, data_key)


def _versions(connection: Connection) -> Iterator[Problem]:
    """A name's versions are 1, 2, ..., and each comes after the one that it says it replaces."""
    rows = all_rows(connection)  # Tampered where `_fingerprints` found a damaged row already
    known, expected = {row.id: row for row in rows}, Counter[str]()
    for row in rows:
        expected[row.name] += 1
        if row.version != expected[row.name]:
            yield problem(row.name, f"version {expected[row.name]} is missing")
        previous = known.get(row.previous or "")
        if previous is not None and previous.name == row.name and previous.version >= row.version:
            yield problem(row.name, f"version {row.version} stands before the one that it replaces")


def _migrations(connection: Connection, trail: Trail) -> Iterator[Problem]:
    if trail.schema is not None and migrations_digest(connection) != trail.schema:
        yield problem("schema", "the record of applied migrations is not what the ledger says")
    elif trail.schema is None and connection.rows("SELECT 1 FROM fingerprints UNION ALL SELECT 1 FROM runs LIMIT 1"):
        yield problem("ledger", "is empty, though there is something stored")


def _records(connection: Connection, trail: Trail) -> Iterator[Problem]:
    """The index of fingerprints against the ledger."""
    places = {i: (name, version) for name, ids in trail.names.items() for version, i in enumerate(ids, start=1)}
    for row in connection.iterate("SELECT id, name, version, added, previous FROM fingerprints ORDER BY name, version"):
        subject = f"{str(row['name'])[:80]} ({str(row['id'])[:16]})"
        place, body = places.pop(str(row["id"]), None), trail.records.get(str(row["id"]), {})
        if place is None:
            yield problem(subject, "is not in the ledger")
        elif (row["name"], row["version"]) != place:
            yield problem(subject, f"is version {row['version']} here, and {place[1]} of {place[0]!r} by the ledger")
        elif (row["added"], row["previous"]) != (body.get("added"), body.get("previous")):
            yield problem(subject, "was not added when, or does not follow what, the ledger says")
    for identity, (name, _) in places.items():
        yield problem(f"{name} ({identity[:16]})", "is in the ledger, and missing from the database")


def _runs(connection: Connection, trail: Trail) -> Iterator[Problem]:
    left = dict(trail.runs)
    for raw in connection.iterate(f"{SELECT_RUNS} ORDER BY id"):
        try:
            run = RunRow.from_sql(raw)
        except FingerprintError as error:
            yield failure(f"run {str(raw['id'])[:80]}", error)
            left.pop(str(raw["id"]), None)
            continue
        found, said = count(connection, run.id), left.pop(run.id, None)
        if run.results is not None and run.results != found:
            yield problem(f"run {run.id}", f"has {found} results, and ended with {run.results}")
        if said is None:
            yield problem(f"run {run.id}", "is not in the ledger")
        elif said.row_sha256 != raw["row_sha256"]:
            yield problem(f"run {run.id}", "is not what the ledger says")
        elif said.results != found:
            yield problem(f"run {run.id}", f"has {found} results, and {said.results} by the ledger")
    for identity in left:
        yield problem(f"run {identity}", "is in the ledger, and missing from the database")


def _results(connection: Connection) -> Iterator[Problem]:
    for raw in connection.iterate(f"{SELECT_RESULTS} ORDER BY number"):
        try:
            result_value(raw)
        except FingerprintError as error:
            yield failure(f"result {str(raw['position'])[:20]} of run {str(raw['run_id'])[:80]}", error)


def _taken(connection: Connection, trail: Trail) -> Iterator[Problem]:
    """What runs take over from earlier ones: each row by itself, and all of them against the ledger."""
    left = {(one.run_id, one.first): one for run in trail.runs.values() for one in run.taken}
    for raw in connection.iterate(f"{takeovers.SELECT} ORDER BY run_id, first"):
        subject = f"what run {str(raw['run_id'])[:80]} takes over at {str(raw['first'])[:20]}"
        said = left.pop((raw["run_id"], raw["first"]), None)
        try:
            found = takeovers.taken_of(raw)
        except FingerprintError as error:
            yield failure(subject, error)
            continue
        if found != said:
            yield problem(subject, "is not in the ledger" if said is None else "is not what the ledger says")
    for run_id, first in left:
        yield problem(f"what run {run_id} takes over at {first}", "is in the ledger, and missing from the database")


def _rows(connection: Connection, trail: Trail) -> Iterator[Problem]:
    """Exposures, exports and timestamps: each row by itself, and all of them against the ledger."""
    for table, columns, subject in (
        ("exposures", exposures.EXPOSURE_COLUMNS, "number"),
        ("exports", exposures.EXPORT_COLUMNS, "id"),
        ("timestamps", timestamps.COLUMNS, "sha256"),
    ):
        said = Counter(trail.rows[table])
        for raw in connection.iterate(f"SELECT * FROM {table} ORDER BY rowid"):  # noqa: S608 (constant names)
            name = f"{table} {str(raw[subject])[:20]}"
            try:
                verified(table, columns, raw)
            except FingerprintError as error:
                yield failure(name, error)
            if not said[str(raw["row_sha256"])]:
                yield problem(name, "is not in the ledger")
            said[str(raw["row_sha256"])] -= 1
        for row_sha256 in +said:
            yield problem(f"{table} row {row_sha256[:16]}", "is in the ledger, and missing from the database")


def _leftovers(connection: Connection, tensors: TensorFiles) -> Iterator[Problem]:
    known = [str(row[0]) for row in connection.iterate("SELECT tensors_sha256 FROM fingerprints")]
    for path in tensors.strangers(known):
        what = "was left by an interrupted write" if is_temporary(path) else "belongs to no record"
        yield warning(str(path), what)


def _permissions(database: Path, tensors: TensorFiles, data_keys: DataKeys) -> Iterator[Problem]:
    home = [data_keys.folder.parent] if data_keys.folder.is_dir() else []
    for folder in (tensors.folder, data_keys.folder, *home):
        if folder.is_dir() and stat.S_IMODE(folder.stat().st_mode) & 0o077:
            yield warning(str(folder), f"is open to other users; run: chmod 700 {folder}")
    for path in (database, *sorted(tensors.folder.glob("*.bin")), *sorted(data_keys.folder.glob("*.key"))):
        if path.is_file() and stat.S_IMODE(path.stat().st_mode) & 0o077:
            yield warning(str(path), f"is open to other users; run: chmod 600 {path}")
