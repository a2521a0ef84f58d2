"""`reveal`: show chosen probes to a third party, with proofs that they were in the signed fingerprint from the start.

A probe's salt and its audit path (RFC 6962) lead from its pixels to the Merkle root that the owner signed; other probes
stay hidden. What was revealed is burnt: whoever saw it could prepare a model for it, so later verifications avoid it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fingerprint.errors import StoreError, Tampered, UsageError
from fingerprint.record import PAYLOAD_TYPE, Fingerprint, leaf, merkle_root
from fingerprint.remote.interface import REVEALED
from store import dsse, envelopes, exposures, ledger, predicates
from store.files import private_folder, write_atomic

if TYPE_CHECKING:
    from store.connection import Connection
    from store.exposures import Exposed
    from store.keys import Keys, Signer

STATEMENT = "reveal.json"


def audit_path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """The digests that lead from leaf `index` to the root, from the leaf up (RFC 6962, section 2.1.1)."""
    if len(leaves) <= 1:
        return []
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    if index < split:
        return [*audit_path(leaves[:split], index), merkle_root(list(leaves[split:]))]
    return [*audit_path(leaves[split:], index - split), merkle_root(list(leaves[:split]))]


def root_of(start: bytes, index: int, count: int, path: Sequence[bytes]) -> bytes:
    """The root that an audit path leads to (RFC 9162, section 2.1.3.2).

    Raises:
        Tampered: the path is too long or too short for a tree of `count` leaves.
    """
    node, left, last = start, index, count - 1
    for sibling in path:
        if not last:
            raise Tampered("a proof is too long")
        if left & 1 or left == last:
            node = hashlib.sha256(b"\x01" + sibling + node).digest()
            while not left & 1 and left:
                left, last = left >> 1, last >> 1
        else:
            node = hashlib.sha256(b"\x01" + node + sibling).digest()
        left, last = left >> 1, last >> 1
    if last:
        raise Tampered("a proof is too short")
    return node


def statement_of(
    record: Fingerprint, indices: Sequence[int], audience: str, time: str, place: ledger.Entry | None
) -> bytes:
    """The statement's bytes, to be signed.

    Raises:
        UsageError: no index, one twice, or one that is no probe's.
    """
    payload, manifest = record.payload, record.manifest
    count = manifest.probes.count
    if not indices or len(set(indices)) != len(indices) or not all(0 <= i < count for i in indices):
        raise UsageError(f"probes are numbered 0 to {count - 1}, and each can be revealed once at a time")
    leaves = [leaf(s.tobytes(), p.tobytes()) for s, p in zip(payload.salts, payload.probes, strict=True)]
    shown = tuple(
        predicates.RevealedProbe(
            index=i,
            family=manifest.families[int(payload.family[i])].name,
            target=int(payload.targets[i]),
            sha256=hashlib.sha256(payload.probes[i].tobytes()).hexdigest(),
            salt=payload.salts[i].tobytes().hex(),
            proof=tuple(step.hex() for step in audit_path(leaves, i)),
        )
        for i in sorted(indices)
    )
    if record.id is None:
        raise UsageError("a fingerprint that was never signed has nothing to prove")
    predicate = predicates.Reveal(
        fingerprint_id=record.id,
        name=manifest.name,
        merkle_root=manifest.probes.merkle_root,
        count=count,
        shape=manifest.probes.shape,
        probes=shown,
        audience=audience,
        time=time,
        ledger=None if place is None else predicates.Place.model_validate(place.place()),
    )
    subjects = [predicates.Subject(manifest.name, record.id)]
    return predicates.encode(predicates.REVEAL, subjects, predicate)


def reveal(
    connection: Connection,
    record: Fingerprint,
    envelope: bytes,
    indices: Sequence[int],
    audience: str,
    signers: Sequence[Signer],
    out: Path,
) -> str:
    """Burn probes, then write them to a new folder with the signed proofs. Returns the statement's digest.

    They are marked first: what was written and not marked would be used again.

    Raises:
        UsageError: no such probes, or `out` holds something.
        StoreError: it can't be written.
    """
    from store.bundle import image_file

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is not empty", remedy="Give a new folder with --out.")
    with connection.transaction():
        time = ledger.now()
        statement = statement_of(record, indices, audience, time, ledger.head(connection))
        signed = dsse.sign(statement, PAYLOAD_TYPE, *signers)
        sha256 = envelopes.insert(connection, signed, predicates.REVEAL, time)
        exposures.add_within(connection, record.manifest.probes.merkle_root, indices, REVEALED + audience)
        body = {"envelope": sha256, "audience": audience, "probes": sorted(indices)}
        ledger.append(connection, "reveal", str(record.id), body, time=time)
    private_folder(out)
    write_atomic(out / STATEMENT, signed)
    write_atomic(out / "fingerprint.json", envelope)
    for index in indices:
        name, data = image_file(record, index)
        write_atomic(out / name, data)
    return sha256


def burnt(exposed: Exposed) -> frozenset[int]:
    """The probes that were revealed."""
    return frozenset[int]().union(*(probes for place, probes in exposed.items() if place.startswith(REVEALED)))


def check_folder(folder: Path, keys: Keys) -> predicates.Reveal:
    """Check what `reveal` wrote: both signatures, and that every image is in the signed fingerprint.

    Raises:
        StoreError: a file can't be read.
        EvidenceError: something does not hold.
    """
    from fingerprint.record import parse_statement

    found = predicates.parse(dsse.verify(_read(folder / STATEMENT), keys).payload).predicate
    fingerprint = _read(folder / "fingerprint.json")
    manifest = parse_statement(dsse.verify(fingerprint, keys).payload)
    if not isinstance(found, predicates.Reveal):
        raise Tampered(f"{folder / STATEMENT} reveals nothing")
    said = (found.fingerprint_id, found.merkle_root, found.count, found.shape)
    probes = manifest.probes
    if said != (hashlib.sha256(fingerprint).hexdigest(), probes.merkle_root, probes.count, probes.shape):
        raise Tampered("what was revealed is not of the fingerprint beside it")
    for probe in found.probes:
        pixels = _pixels(folder, probe.index, found.shape)
        if hashlib.sha256(pixels).hexdigest() != probe.sha256:
            raise Tampered(f"the image of probe {probe.index} is not the one that was revealed")
        path = [bytes.fromhex(step) for step in probe.proof]
        start = leaf(bytes.fromhex(probe.salt), pixels)
        if root_of(start, probe.index, found.count, path).hex() != found.merkle_root:
            raise Tampered(f"the proof of probe {probe.index} does not lead to the signed root")
    return found


def _read(path: Path) -> bytes:
    from fingerprint.limits import DEFAULT
    from store.files import read_limited

    try:
        return read_limited(path, DEFAULT.record_bytes)
    except OSError as error:
        raise StoreError(f"can't read {path}: {error.strerror or error}") from error


def _pixels(folder: Path, index: int, shape: tuple[int, int, int]) -> bytes:
    if shape[2] not in (1, 3):
        return _read(folder / f"{index:05d}.bin")
    import io

    import numpy as np
    from PIL import Image

    data = _read(folder / f"{index:05d}.png")
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            if (image.height, image.width, len(image.getbands())) != shape:
                raise Tampered(f"the image of probe {index} has another shape than the probes")
            return np.asarray(image).tobytes()
    except (OSError, SyntaxError, ValueError) as error:
        raise Tampered(f"the image of probe {index} can't be read") from error
