"""Signed checkpoints: how far a ledger had come. Kept elsewhere, one shows that a copy was rolled back or rewritten."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fingerprint.errors import HistoryDiverged, StoreError, Tampered
from fingerprint.limits import DEFAULT
from fingerprint.record import PAYLOAD_TYPE
from store import dsse, envelopes, ledger, predicates
from store.files import read_limited

if TYPE_CHECKING:
    from store.connection import Connection
    from store.keys import Keys, Signer


def make(connection: Connection, signers: Sequence[Signer]) -> bytes:
    """Sign where the ledger stands, and store that in it. Returns the envelope.

    Raises:
        StoreError: the ledger is empty.
    """
    with connection.transaction():
        last = ledger.head(connection)
        if last is None:
            raise StoreError(f"there is nothing in {connection.path} yet")
        query = "SELECT (SELECT count(*) FROM fingerprints), (SELECT count(*) FROM runs)"
        fingerprints, runs = connection.rows(query)[0]
        place = predicates.Place.model_validate(last.place())
        predicate = predicates.Checkpoint(time=ledger.now(), ledger=place, fingerprints=fingerprints, runs=runs)
        subjects = [predicates.Subject("ledger", last.hash)]
        payload = predicates.encode(predicates.CHECKPOINT, subjects, predicate)
        envelope = dsse.sign(payload, PAYLOAD_TYPE, *signers)
        added = predicate.time
        sha256 = envelopes.insert(connection, envelope, predicates.CHECKPOINT, added)
        ledger.append(connection, "checkpoint", "", {"envelope": sha256}, time=added)
    return envelope


def read(path: Path, keys: Keys) -> predicates.Checkpoint:
    """The checkpoint in a file, its signature checked.

    Raises:
        StoreError: it can't be read.
        EvidenceError: it does not hold, or is something else.
    """
    try:
        data = read_limited(path, DEFAULT.spec_bytes)
    except OSError as error:
        raise StoreError(f"can't read the checkpoint {path}: {error.strerror or error}") from error
    verified = dsse.verify(data.removesuffix(b"\n"), keys)
    found = predicates.parse(verified.payload, verified.payload_type).predicate
    if not isinstance(found, predicates.Checkpoint):
        raise Tampered(f"{path} holds no checkpoint")
    return found


def compare(connection: Connection, checkpoint: predicates.Checkpoint) -> int:
    """How many entries of its chain came since a checkpoint.

    Raises:
        HistoryDiverged: the ledger does not go through the checkpoint: it was rolled back, rewritten or forked, or is
            that of another database.
        Tampered: the entry found does not hold.
    """
    place = checkpoint.ledger
    entry = ledger.by_hash(connection, place.hash)
    last = ledger.head(connection, place.chain if entry is None else entry.chain)  # a merged branch has its own name
    if entry is not None and entry.seq == place.seq:
        return (last.seq if last else entry.seq) - place.seq
    where = f"the checkpoint of {checkpoint.time} stands at entry {place.seq} ({place.hash[:16]})"
    if last is None:
        raise HistoryDiverged(
            f"{where}, of a history that {connection.path} does not have",
            remedy="Is it the checkpoint of another database, or was this one made anew?",
        )
    if last.seq < place.seq:
        raise HistoryDiverged(
            f"{connection.path} was rolled back: {where}, and its ledger ends at entry {last.seq}",
            remedy="This is an older copy. Find the newer one; what it holds since then is missing here.",
        )
    raise HistoryDiverged(
        f"{connection.path} has another history: {where}, and its entry {place.seq} is another one",
        remedy="Its ledger was rewritten, or the copies parted before and both went on (`store merge` keeps both).",
    )
