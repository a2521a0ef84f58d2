"""Signed statements that the ledger names: of a run, about a fingerprint, about keys."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from store import envelopes, ledger
from store.connection import Connection

if TYPE_CHECKING:
    from store.keys import Signer


def of_run(connection: Connection, run_id: str) -> dict[str, bytes]:
    """Digest -> envelope of the latest signing of a run, part by part. Raises Tampered."""
    found: list[str] = []
    for entry in ledger.about(connection, run_id):
        named = entry.body.get("envelopes")
        if isinstance(named, list) and named:
            found = [str(name) for name in named]
    return {sha256: envelopes.read(connection, sha256) for sha256 in found}


def about(connection: Connection, kind: str, subject: str | None) -> dict[str, bytes]:
    """Digest -> envelope of the entries of a kind, about `subject` or anything. Raises Tampered."""
    query = "SELECT body FROM ledger WHERE kind = ?1 AND (?2 IS NULL OR subject = ?2) ORDER BY position"
    bodies = [json.loads(row["body"]) for row in connection.rows(query, (kind, subject))]
    names = [str(body["envelope"]) for body in bodies if "envelope" in body]
    return {sha256: envelopes.read(connection, sha256) for sha256 in names}


def add(connection: Connection, kind: str, subject: str, envelope: bytes, predicate_type: str, **said: object) -> str:
    """Store an envelope with an entry in the ledger that names it. Returns its digest."""
    with connection.transaction():
        added = ledger.now()
        sha256 = envelopes.insert(connection, envelope, predicate_type, added)
        ledger.append(connection, kind, subject, {"envelope": sha256, **said}, time=added)
    return sha256


def sign_run(
    connection: Connection, run_id: str, signers: Sequence[Signer], correction: Mapping[str, object] | None = None
) -> list[str]:
    """Sign a run that ended earlier.

    Raises:
        NotFound: no such run.
        StoreError: it goes on.
    """
    from store.signing import signed_parts

    with connection.transaction():
        added = ledger.now()
        made = [
            envelopes.insert(connection, envelope, kind, added)
            for envelope, kind in signed_parts(connection, run_id, signers, correction)
        ]
        ledger.append(connection, "sign", run_id, {"envelopes": made}, time=added)
    return made
