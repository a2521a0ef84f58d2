"""A further signature on a record that is stored: what a new key does for what a lost or revoked one signed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fingerprint.errors import UsageError
from store import dsse
from store.records import verify_row
from store.sealing import Sealed, check_ciphertext, envelope_id

if TYPE_CHECKING:
    from store.database import Database
    from store.keys import Keys, Signer
    from store.rows import FingerprintRow


def cosign(database: Database, row: FingerprintRow, signer: Signer, keys: Keys) -> FingerprintRow:
    """Store a record's statement with one signature more, as the next version of its name.

    The old signature must hold under a trusted key, but may be by one that was revoked since: who signs now vouches
    that this record was there before.

    Raises:
        EvidenceError: envelope or ciphertext does not hold, or no trusted key signed it.
        UsageError: this key signed it already.
    """
    envelope = database.envelope(row)
    manifest = verify_row(row, envelope, dict(keys))  # without what was revoked
    tensors = database.ciphertext(row)
    check_ciphertext(manifest, tensors)
    try:
        made = dsse.add_signature(envelope, signer)
    except ValueError as error:
        raise UsageError(f"{row.name} ({row.id[:16]}): {error}") from error
    key_ids = tuple(sorted((*row.key_ids, signer.key_id)))
    sealed = Sealed(envelope_id(made), made, tensors, None, manifest, key_ids)  # its data key stays where it is
    return database.add(sealed, replace=True, kind="import", source=f"{row.id}, signed again")
