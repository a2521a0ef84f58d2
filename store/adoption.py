"""Rows that were stored before there was a ledger, put under it when the database is upgraded."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from store.connection import Connection
from store.ledger import append, batch, digest_rows

BATCH = 1000  # results under one entry


def adopt(raw: sqlite3.Connection) -> None:
    """One entry for each record, run, batch of results, exposure and export. The caller holds the transaction.

    The rows are taken as they are: what was changed before the upgrade, only their signatures can tell.
    """
    connection = Connection(raw, Path("database"), readonly=False)
    if not connection.rows("SELECT 1 FROM fingerprints UNION ALL SELECT 1 FROM runs UNION ALL SELECT 1 FROM exposures"):
        return
    query = "SELECT id, name, added, previous, tensors_sha256 FROM fingerprints ORDER BY name, version"
    for row in connection.rows(query):
        body = {name: row[name] for name in ("name", "added", "previous", "tensors_sha256")}
        append(connection, "import", row["id"], {**body, "adopted": True})
    for run in connection.rows("SELECT id, kind, finished, results, row_sha256 FROM runs ORDER BY started, id"):
        _adopt_run(connection, run)
    for table, kind in (("exposures", "expose"), ("exports", "export")):
        for row in connection.rows(f"SELECT merkle_root, row_sha256 FROM {table} ORDER BY rowid"):  # noqa: S608
            append(connection, kind, row["merkle_root"], {"row_sha256": row["row_sha256"], "adopted": True})


def _adopt_run(connection: Connection, run: sqlite3.Row) -> None:
    append(connection, "start", run["id"], {"row_sha256": run["row_sha256"], "adopted": True})
    query = "SELECT row_sha256 FROM results WHERE run_id = ? ORDER BY position"
    digests = [row["row_sha256"] for row in connection.rows(query, (run["id"],))]
    for first in range(0, len(digests), BATCH):
        append(connection, "results", run["id"], {**batch(first, digests[first : first + BATCH]), "adopted": True})
    if run["finished"] is not None:
        body = {"row_sha256": run["row_sha256"], "results": run["results"], "sha256": digest_rows(digests)}
        append(connection, run["kind"], run["id"], {**body, "envelopes": [], "adopted": True})
