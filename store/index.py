"""The table of fingerprints: names, versions, and finding one."""

from __future__ import annotations

import difflib
import re
from dataclasses import replace
from typing import TypeAlias

from fingerprint.errors import NameTaken, NotFound, Tampered
from store.connection import Connection
from store.rows import FINGERPRINT_COLUMNS, FingerprintRow
from store.schema import row_digest

Rows: TypeAlias = list[FingerprintRow]

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
    starts = _rows(connection, "WHERE substr(id, 1, length(?1)) = ?1 LIMIT 9", text) if _PREFIX.fullmatch(text) else []
    if len(starts) == 1:
        return starts[0]
    if starts:
        listed = ", ".join(f"{row.id[:16]} ({row.name})" for row in starts)
        raise NotFound(f"{text!r} begins several ids: {listed}", remedy="Give more digits.")
    raise not_found(connection, text)


def not_found(connection: Connection, text: str) -> NotFound:
    """The error for a name that is not there, with the ones that look like it."""
    names = [row["name"] for row in connection.rows("SELECT DISTINCT name FROM fingerprints")]
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
    values = placed.to_sql()
    columns = [*values, "row_sha256", "envelope"]
    connection.execute(
        f"INSERT INTO fingerprints ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})",  # noqa: S608
        (*values.values(), row_digest("fingerprints", values), envelope),
    )
    return placed


def _update_version(connection: Connection, row: FingerprintRow) -> None:
    connection.execute(
        "UPDATE fingerprints SET version = ?, row_sha256 = ? WHERE id = ?",
        (row.version, row_digest("fingerprints", row.to_sql()), row.id),
    )


def envelope_of(connection: Connection, identity: str) -> bytes:
    """The stored envelope. The caller compares its digest with the id.

    Raises:
        NotFound: no record of that id.
        Tampered: the column holds something else.
    """
    found = connection.rows("SELECT envelope FROM fingerprints WHERE id = ?", (identity,))
    if not found:
        raise not_found(connection, identity)
    envelope = found[0]["envelope"]
    if not isinstance(envelope, bytes):
        raise Tampered(f"the stored envelope of {identity[:16]} is not bytes")
    return envelope
