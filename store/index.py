"""The table of fingerprints: names, versions, and finding one."""

from __future__ import annotations

import difflib
import re
from dataclasses import replace
from typing import TypeAlias

from fingerprint.errors import NameTaken, NotFound
from store import envelopes
from store.connection import Connection
from store.rows import FINGERPRINT_COLUMNS, FingerprintRow
from store.schema import row_digest

Rows: TypeAlias = list[FingerprintRow]
PREDICATE_TYPE = "urn:dnn-fingerprint:fingerprint:v1"  # as in `fingerprint.record`, which takes long to import

COLUMNS = ", ".join((*FINGERPRINT_COLUMNS, "row_sha256"))
_SELECT = f"SELECT {COLUMNS} FROM fingerprints"  # noqa: S608 (constant column names)
_PREFIX = re.compile(r"[0-9a-f]{4,64}")


def all_rows(connection: Connection) -> Rows:
    """Every version of every record, by name and version. Raises Tampered."""
    return _rows(connection, "ORDER BY name, version")


def latest_rows(connection: Connection) -> Rows:
    """The latest version of every name. Raises Tampered."""
    newest = {row.name: row for row in all_rows(connection)}
    return list(newest.values())


def by_name(connection: Connection, name: str) -> Rows:
    """The versions of a name, oldest first. Raises Tampered."""
    return _rows(connection, "WHERE name = ? ORDER BY version", name)


def by_id(connection: Connection, identity: str) -> FingerprintRow | None:
    """The record of that id. Raises Tampered."""
    found = _rows(connection, "WHERE id = ?", identity)
    return found[0] if found else None


def _rows(connection: Connection, rest: str, *values: str) -> Rows:
    return [FingerprintRow.from_sql(row) for row in connection.rows(f"{_SELECT} {rest}", values)]


def find(connection: Connection, text: str) -> FingerprintRow:
    """Resolve an id, a name (its latest version) or the start of an id (4 digits or more), in this order.

    Raises:
        NotFound: nothing or several.
        Tampered: a row that was found does not hold.
    """
    exact = by_id(connection, text)
    if exact is not None:
        return exact
    versions = by_name(connection, text)
    if versions:
        return versions[-1]
    between = "WHERE id >= ?1 AND id < ?1 || 'g' LIMIT 9"
    starts = _rows(connection, between, text) if _PREFIX.fullmatch(text) else []
    if len(starts) == 1:
        return starts[0]
    if starts:
        listed = ", ".join(f"{row.id[:16]} ({row.name})" for row in starts)
        raise NotFound(f"{text!r} begins several ids: {listed}", remedy="Give more digits.")
    raise not_found(connection, text)


def not_found(connection: Connection, text: str) -> NotFound:
    """The error for a name that is not there, with the ones that look like it."""
    # Only its neighbours in alphabetical order where there are very many: comparing takes long.
    names = [
        row["name"]
        for where in ("name >= ? ORDER BY name", "name < ? ORDER BY name DESC")
        for row in connection.rows(f"SELECT DISTINCT name FROM fingerprints WHERE {where} LIMIT 100", (text,))  # noqa: S608
    ]
    close = difflib.get_close_matches(text, names, n=3)
    hint = f"Did you mean {' or '.join(map(repr, close))}?" if close else "`fingerprint store list` shows all."
    return NotFound(f"there is no fingerprint {text!r} in {connection.path}", remedy=hint)


def require_free(versions: Rows, row: FingerprintRow, replacing: bool) -> None:
    """A name may be used again by `replacing`, or by a record that says which version it follows or precedes.

    Raises:
        NameTaken: otherwise.
    """
    related = versions and (row.previous == versions[-1].id or any(old.previous == row.id for old in versions))
    if versions and not replacing and not related:
        raise NameTaken(
            f"there is a fingerprint named {row.name!r} already ({versions[-1].id[:16]})",
            remedy="Choose another name, or pass `--replace` to make this its next version.",
        )


def insert(connection: Connection, row: FingerprintRow, envelope: bytes) -> FingerprintRow:
    """Add a record as the latest version, or before the version that names it as its predecessor.

    The caller holds the write transaction.
    """
    versions = by_name(connection, row.name)
    later = [old for old in versions if old.previous == row.id]
    position = later[0].version if later else len(versions) + 1
    for old in reversed(versions[position - 1 :]):
        _update_version(connection, replace(old, version=old.version + 1))
    placed = replace(row, version=position)
    envelopes.insert(connection, envelope, PREDICATE_TYPE, row.added)
    insert_row(connection, placed)
    return placed


def insert_row(connection: Connection, row: FingerprintRow) -> None:
    """Add an index entry as it is. The caller holds the write transaction."""
    values = row.to_sql()
    columns = [*values, "row_sha256"]
    connection.execute(
        f"INSERT INTO fingerprints ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})",  # noqa: S608
        (*values.values(), row_digest("fingerprints", values)),
    )


def _update_version(connection: Connection, row: FingerprintRow) -> None:
    connection.execute(
        "UPDATE fingerprints SET version = ?, row_sha256 = ? WHERE id = ?",
        (row.version, row_digest("fingerprints", row.to_sql()), row.id),
    )


def page(connection: Connection, limit: int) -> Rows:
    """The first `limit` versions by name and version. Raises Tampered."""
    return _rows(connection, f"ORDER BY name, version LIMIT {int(limit)}")


def count(connection: Connection) -> int:
    """How many versions of all names there are."""
    return int(connection.rows("SELECT count(*) FROM fingerprints")[0][0])
