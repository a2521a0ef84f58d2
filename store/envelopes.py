"""The table of signed envelopes: the truth, of which the other tables are an index."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from fingerprint.errors import NotFound, Tampered
from store.connection import Connection

if TYPE_CHECKING:
    from collections.abc import Iterator


def insert(connection: Connection, envelope: bytes, predicate_type: str, added: str) -> str:
    """Store an envelope; one that is there already is left. Returns its digest. The caller holds the transaction."""
    sha256 = hashlib.sha256(envelope).hexdigest()
    connection.execute(
        "INSERT OR IGNORE INTO envelopes (sha256, predicate_type, added, envelope) VALUES (?, ?, ?, ?)",
        (sha256, predicate_type, added, envelope),
    )
    return sha256


def read(connection: Connection, sha256: str) -> bytes:
    """The envelope of a digest, compared with it.

    Raises:
        NotFound: it is not here.
        Tampered: what is stored is something else.
    """
    found = connection.rows("SELECT envelope FROM envelopes WHERE sha256 = ?", (sha256,))
    if not found:
        raise NotFound(f"there is no envelope {sha256[:16]} in {connection.path}")
    envelope = found[0]["envelope"]
    if not isinstance(envelope, bytes) or hashlib.sha256(envelope).hexdigest() != sha256:
        raise Tampered(
            f"the stored envelope {sha256[:16]} is not the one of that digest",
            remedy="Restore the database from a backup, or import an export of this record into a new one.",
        )
    return envelope


def of_type(connection: Connection, predicate_type: str) -> Iterator[tuple[str, bytes]]:
    """(digest, envelope) of every envelope of a kind, in the order in which they came. Not checked."""
    query = "SELECT sha256, envelope FROM envelopes WHERE predicate_type = ? ORDER BY rowid"
    for row in connection.rows(query, (predicate_type,)):
        yield row["sha256"], row["envelope"]
