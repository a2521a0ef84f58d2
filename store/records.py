"""A stored record's envelope against everything that speaks about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fingerprint.errors import Tampered
from store.rows import FingerprintRow, describe
from store.sealing import envelope_id, read_signed

if TYPE_CHECKING:
    from fingerprint.record import Manifest
    from store.keys import Keys


def verify_row(row: FingerprintRow, envelope: object, keys: Keys) -> Manifest:
    """The manifest of a stored envelope, after comparing it with its id, its signature and its index entry.

    Raises:
        EvidenceError: any of them does not hold, or the signer is not trusted.
    """
    if not isinstance(envelope, bytes) or envelope_id(envelope) != row.id:
        raise Tampered(
            f"the stored envelope of {row.name!r} is not the one of the id {row.id[:16]}",
            remedy="Restore the database from a backup, or import an export of this record into a new one.",
        )
    manifest, verified = read_signed(envelope, keys)
    said = describe(manifest, row.id, verified.signers, row.version, row.added)
    if said != row:
        wrong = [name for name, value in vars(said).items() if value != getattr(row, name)]
        raise Tampered(f"the index of {row.name!r} contradicts its signed manifest ({', '.join(wrong)})")
    return manifest
