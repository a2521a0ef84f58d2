"""The schema, as steps that are applied once each. Never edit a step that was released: add one.

Imported only when a database is created, upgraded or checked, for it pulls in sqlite-utils.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import cast

import sqlite_utils
from sqlite_utils import Migrations

from store.schema import APPLICATION_ID, MIGRATION_SET, VERSION

MIGRATIONS = Migrations(MIGRATION_SET)


@MIGRATIONS()
def m001_fingerprints_and_runs(database: sqlite_utils.Database, /) -> None:
    """First release. `envelope` is the truth and stands last; every other column is an index to it."""
    database.executescript(
        """
        CREATE TABLE fingerprints (
            id TEXT PRIMARY KEY NOT NULL,
            name TEXT NOT NULL,
            version INTEGER NOT NULL CHECK (version > 0),
            created TEXT NOT NULL,
            added TEXT NOT NULL,
            owner_sha256 TEXT NOT NULL,
            owner_weights_sha256 TEXT,
            owner_format TEXT NOT NULL,
            key_ids TEXT NOT NULL,
            evidential INTEGER NOT NULL CHECK (evidential IN (0, 1)),
            probes INTEGER NOT NULL,
            tensors_sha256 TEXT NOT NULL,
            tensors_size INTEGER NOT NULL,
            previous TEXT,
            row_sha256 TEXT NOT NULL,
            envelope BLOB NOT NULL,
            UNIQUE (name, version)
        ) STRICT;
        CREATE INDEX fingerprints_by_owner ON fingerprints (owner_sha256);
        CREATE TABLE runs (
            id TEXT PRIMARY KEY NOT NULL,
            kind TEXT NOT NULL,
            started TEXT NOT NULL,
            finished TEXT,
            tool_version TEXT NOT NULL,
            parameters TEXT NOT NULL,
            results INTEGER,
            row_sha256 TEXT NOT NULL
        ) STRICT;
        CREATE TABLE results (
            number INTEGER PRIMARY KEY,
            run_id TEXT NOT NULL REFERENCES runs (id),
            position INTEGER NOT NULL,
            suspect_sha256 TEXT,
            suspect_path TEXT NOT NULL,
            format TEXT,
            runtime TEXT,
            fingerprint_id TEXT,
            settings_sha256 TEXT,
            status TEXT NOT NULL,
            row TEXT NOT NULL,
            row_sha256 TEXT NOT NULL,
            UNIQUE (run_id, position)
        ) STRICT;
        CREATE INDEX results_known ON results (suspect_sha256, fingerprint_id, settings_sha256, status, number);
        """
    )


@MIGRATIONS()
def m002_exposures_and_exports(database: sqlite_utils.Database, /) -> None:
    """Which probes left this machine, and in which order probes were exported. `probes` is a JSON list of indices."""
    database.executescript(
        """
        CREATE TABLE exposures (
            number INTEGER PRIMARY KEY,
            merkle_root TEXT NOT NULL,
            place TEXT NOT NULL,
            probes TEXT NOT NULL,
            time TEXT NOT NULL,
            row_sha256 TEXT NOT NULL
        ) STRICT;
        CREATE INDEX exposures_by_root ON exposures (merkle_root);
        CREATE TABLE exports (
            id TEXT PRIMARY KEY NOT NULL,
            merkle_root TEXT NOT NULL,
            fingerprint_id TEXT NOT NULL,
            name TEXT NOT NULL,
            probes TEXT NOT NULL,
            time TEXT NOT NULL,
            row_sha256 TEXT NOT NULL
        ) STRICT;
        """
    )


# Nothing is ever changed or removed in these tables; `store rebuild` alone replaces results, under the ledger's eyes.
APPEND_ONLY = ("ledger", "envelopes", "timestamps", "results", "exposures", "exports", "taken")


@MIGRATIONS()
def m003_ledger_and_envelopes(database: sqlite_utils.Database, /) -> None:
    """Envelopes get a table of their own, which tables are an index of; a ledger commits to every row."""
    database.executescript(
        """
        CREATE TABLE envelopes (
            sha256 TEXT PRIMARY KEY NOT NULL,
            predicate_type TEXT NOT NULL,
            added TEXT NOT NULL,
            envelope BLOB NOT NULL
        ) STRICT;
        CREATE INDEX envelopes_by_type ON envelopes (predicate_type);
        INSERT INTO envelopes (sha256, predicate_type, added, envelope)
            SELECT id, 'urn:dnn-fingerprint:fingerprint:v1', added, envelope FROM fingerprints ORDER BY rowid;
        ALTER TABLE fingerprints DROP COLUMN envelope;
        CREATE TABLE timestamps (
            sha256 TEXT PRIMARY KEY NOT NULL,
            envelope_sha256 TEXT NOT NULL REFERENCES envelopes (sha256),
            added TEXT NOT NULL,
            row_sha256 TEXT NOT NULL,
            response BLOB NOT NULL
        ) STRICT;
        CREATE INDEX timestamps_by_envelope ON timestamps (envelope_sha256);
        CREATE TABLE ledger (
            position INTEGER PRIMARY KEY,
            chain TEXT NOT NULL,
            seq INTEGER NOT NULL CHECK (seq > 0),
            kind TEXT NOT NULL,
            subject TEXT NOT NULL,
            time TEXT NOT NULL,
            body TEXT NOT NULL,
            previous TEXT NOT NULL,
            hash TEXT NOT NULL UNIQUE,
            UNIQUE (chain, seq)
        ) STRICT;
        CREATE INDEX ledger_by_subject ON ledger (subject);
        CREATE INDEX runs_by_start ON runs (started, id);
        """
    )
    for sql in triggers(APPEND_ONLY[:6]).values():
        database.execute(sql)
    for name, sql in (VIEWS | {"verdicts": _VERDICTS_3}).items():
        database.execute(f"CREATE VIEW {name} AS {sql}")
    _adopt(database.conn)


@MIGRATIONS()
def m004_what_audits_remember(database: sqlite_utils.Database, /) -> None:
    """How files looked when their results were stored (store/audits.py): no evidence, and forgotten at no loss."""
    database.executescript(
        """
        CREATE TABLE audit_files (
            question TEXT NOT NULL,
            name TEXT NOT NULL,
            stamp TEXT NOT NULL,
            run_id TEXT NOT NULL REFERENCES runs (id),
            first INTEGER NOT NULL,
            count INTEGER NOT NULL,
            row_sha256 TEXT NOT NULL,
            PRIMARY KEY (question, name)
        ) STRICT;
        """
    )


@MIGRATIONS()
def m005_results_taken_over(database: sqlite_utils.Database, /) -> None:
    """Results that are rows of an earlier run (store/takeovers.py)."""
    database.executescript(
        """
        CREATE TABLE taken (
            run_id TEXT NOT NULL REFERENCES runs (id),
            first INTEGER NOT NULL,
            count INTEGER NOT NULL CHECK (count > 0),
            source_run TEXT NOT NULL REFERENCES runs (id),
            source_first INTEGER NOT NULL,
            row_sha256 TEXT NOT NULL,
            PRIMARY KEY (run_id, first)
        ) STRICT;
        DROP VIEW verdicts;
        """
    )
    for sql in triggers(("taken",)).values():
        database.execute(sql)
    database.execute(f"CREATE VIEW verdicts AS {VIEWS['verdicts']}")


def triggers(tables: Sequence[str] = APPEND_ONLY) -> dict[str, str]:
    """Name -> SQL of the triggers that keep tables append-only."""
    return {
        f"{table}_never_{verb.lower()}": f"CREATE TRIGGER {table}_never_{verb.lower()} BEFORE {verb} ON {table} "
        f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
        for table in tables
        for verb in ("UPDATE", "DELETE")
    }


# What was found, of the rows `results` that a run has (as `{runs}` says), without what was answered to single probes.
_VERDICT = (
    "SELECT {run_id} AS run_id, runs.kind, runs.started, results.suspect_path, results.suspect_sha256, "
    "results.format, results.runtime, json_extract(results.row, '$.fingerprint.name') AS fingerprint, "
    "results.fingerprint_id, results.status, json_extract(results.row, '$.verdict.lineage') AS lineage, "
    "json_extract(results.row, '$.verdict.integrity') AS integrity, "
    "json_extract(results.row, '$.verdict.match_rate') AS match_rate, "
    "json_extract(results.row, '$.verdict.error') AS error FROM {runs}"
)
_OWN = "results JOIN runs ON runs.id = results.run_id"
_TAKEN = (
    "taken JOIN runs ON runs.id = taken.run_id JOIN results ON results.run_id = taken.source_run "
    "AND results.position >= taken.source_first AND results.position < taken.source_first + taken.count"
)
_VERDICTS_3 = _VERDICT.format(run_id="results.run_id", runs=_OWN).replace(" AS run_id", "", 1)
# What a person browses: no probe, no order of an export, no envelope.
VIEWS = {
    "fingerprint_overview": "SELECT name, version, id, created, added, owner_sha256, owner_format, probes, evidential, "
    "key_ids AS signed_by FROM fingerprints",
    "run_overview": "SELECT id, kind, started, finished, tool_version, results FROM runs",
    "verdicts": f"{_VERDICT.format(run_id='results.run_id', runs=_OWN)} UNION ALL "
    f"{_VERDICT.format(run_id='taken.run_id', runs=_TAKEN)}",
    "ledger_overview": "SELECT position, seq, kind, subject, time, hash FROM ledger",
    "exposure_overview": "SELECT merkle_root, place, json_array_length(probes) AS probes, time FROM exposures",
}


def _adopt(raw: sqlite3.Connection) -> None:
    """Put what an earlier release stored under the ledger."""
    from store.adoption import adopt

    adopt(raw)


def migrate(connection: sqlite3.Connection) -> None:
    """Apply what is pending. The caller holds the write transaction, so that all of it happens or nothing."""
    MIGRATIONS.apply(sqlite_utils.Database(connection, execute_plugins=False, strict=True))
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {VERSION}")


def schema_of(connection: sqlite3.Connection) -> dict[tuple[str, str], str]:
    """(type, name) -> SQL of everything in a database but SQLite's own."""
    rows = connection.execute("SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'")
    return {(cast(str, kind), cast(str, name)): cast(str, sql) for kind, name, sql in rows}


def expected_schema() -> dict[tuple[str, str], str]:
    """The schema that `migrate` gives a new database."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        migrate(connection)
        return schema_of(connection)
    finally:
        connection.close()
