"""Key events: a key hands over to its successor, or is revoked. Signed statements, kept as files in the home folder."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from fingerprint.errors import EvidenceError, StoreError, Tampered
from fingerprint.limits import DEFAULT
from fingerprint.record import PAYLOAD_TYPE
from store import dsse, predicates
from store.algorithms import PublicKey
from store.files import read_limited, write_atomic
from store.home import Home
from store.trust import Revocation

if TYPE_CHECKING:
    from store.keys import Signer


def event(
    action: str, key_id: str, time: str, signers: Sequence[Signer], *, successor: str | None = None, reason: str = ""
) -> bytes:
    """The signed envelope of a key event."""
    predicate = predicates.KeyEvent.model_validate(
        {"action": action, "key_id": key_id, "successor": successor, "time": time, "reason": reason}
    )
    subjects = [predicates.Subject("key", key_id)]
    return dsse.sign(predicates.encode(predicates.KEY_EVENT, subjects, predicate), PAYLOAD_TYPE, *signers)


def keep(home: Home, key_id: str, envelope: bytes) -> Path:
    """Put a revocation where `trusted_keys` finds it, beside earlier ones of the same key: the earliest time holds.

    Raises:
        StoreError: it can't be written.
    """
    path = home.ensure(home.revoked) / f"{key_id[:16]}-{hashlib.sha256(envelope).hexdigest()[:16]}.json"
    write_atomic(path, envelope)
    return path


def revocations(home: Home, keys: Mapping[str, PublicKey]) -> Iterator[Revocation]:
    """The revocations in the home folder.

    Each is signed by the key itself or by a trusted one. A file that does not hold is an error rather than ignored: it
    may have been damaged in order to bring a key back.

    Raises:
        EvidenceError: one does not hold.
        StoreError: one can't be read.
    """
    for path in sorted(home.revoked.glob("*.json")):
        try:
            data = read_limited(path, DEFAULT.spec_bytes)
        except OSError as error:
            raise StoreError(f"can't read the revocation {path}: {error.strerror or error}") from error
        try:
            yield read(data, keys)
        except EvidenceError as error:
            raise type(error)(f"the revocation {path} does not hold: {error.message}", remedy=error.remedy) from error


def read(envelope: bytes, keys: Mapping[str, PublicKey]) -> Revocation:
    """Check a revocation: the signer must be among `keys`, where the revoked key still counts for this.

    Raises:
        EvidenceError: it does not hold, or is something else.
    """
    verified = dsse.verify(envelope, dict(keys))
    found = predicates.parse(verified.payload, verified.payload_type).predicate
    if not isinstance(found, predicates.KeyEvent) or found.action != "revoke":
        raise Tampered("the envelope holds no revocation")
    try:
        time = datetime.fromisoformat(found.time)
    except ValueError as error:
        raise Tampered(f"the revocation's time can't be read: {found.time[:40]}") from error
    if time.tzinfo is None:
        raise Tampered("the revocation's time has no time zone")
    return Revocation(found.key_id, time, found.reason)
