"""Statements whose key was revoked since: whether somebody who is trusted vouched for the ledger later."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fingerprint.errors import FingerprintError, RevokedSigner
from store import dsse, envelopes, ledger, predicates
from store.problems import Problem, failure, warning

if TYPE_CHECKING:
    from store.connection import Connection
    from store.keys import Keys
    from store.trail import Trail

COUNTS_NO_LONGER = "and it counts no longer"
_REMEDY = (
    "If nothing was forged before: `fingerprint store checkpoint --key NEW.key` vouches for the ledger as it stands, "
    "`fingerprint attest sign NAME --key NEW.key` for a fingerprint. Without that, only a timestamp from before helps."
)


def revoked(
    connection: Connection, trail: Trail, keys: Keys, subject: str, sha256: str, raised: RevokedSigner
) -> Problem:
    """What `check` says of a statement by a key that was revoked.

    A warning where a later checkpoint of this ledger, by a trusted key that was not revoked, covers its entry: then the
    order of events is vouched for, though the statement itself counts for nobody. An error otherwise.
    """
    place = trail.positions.get(sha256)
    if place is None or place > _vouched(connection, trail, keys):
        problem = failure(subject, raised)
        return Problem(problem.kind, subject, problem.message, _REMEDY)
    return warning(subject, f"{raised.message}; a later checkpoint vouches that it was there, {COUNTS_NO_LONGER}")


def _vouched(connection: Connection, trail: Trail, keys: Keys) -> int:
    """How far the checkpoints by trusted keys reach: the position of an entry of this database's own chain, or 0."""
    if trail.vouched is None:
        trail.vouched = max(_reach(connection, trail, sha256, keys) for sha256 in ("", *trail.envelopes))
    return trail.vouched


def _reach(connection: Connection, trail: Trail, sha256: str, keys: Keys) -> int:
    kinds = connection.rows("SELECT predicate_type FROM envelopes WHERE sha256 = ?", (sha256,))
    if not kinds or kinds[0][0] != predicates.CHECKPOINT:
        return 0
    try:
        verified = dsse.verify(envelopes.read(connection, sha256), keys)
        found = predicates.parse(verified.payload, verified.payload_type).predicate
    except FingerprintError:
        return 0
    entry = ledger.by_hash(connection, found.ledger.hash) if isinstance(found, predicates.Checkpoint) else None
    own = next(iter(trail.heads), None)
    return entry.position if entry is not None and entry.chain == own else 0
