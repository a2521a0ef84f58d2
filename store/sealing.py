"""Sealing: encrypt a fingerprint's tensors, then sign its manifest; and the way back.

ChaCha20-Poly1305 (RFC 8439) under a data key of its own for every record. The ciphertext's digest stands in the signed
manifest; the associated data bind the ciphertext to the probes' Merkle root and the owner's digest.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from dataclasses import field
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fingerprint.errors import StoreError, Tampered
from fingerprint.frozen import dataclass
from fingerprint.record import PAYLOAD_TYPE, Fingerprint, Manifest, Payload, Tensors, parse_statement, statement
from store import cipher, dsse

if TYPE_CHECKING:
    from store.keys import Keys, Signer

KEY_BYTES = 32
NONCE_BYTES = 12
_DERIVATION = b"dnn-fingerprint/seal/v1"


@dataclass(frozen=True)
class Sealed:
    """A record as it is stored and exchanged. `id` = SHA-256 of `envelope`; `key_ids` = the signers it names.

    `manifest` is what the envelope says; `data_key` opens `tensors`, and is None where this machine does not have it.
    """

    id: str
    envelope: bytes = field(repr=False)
    tensors: bytes = field(repr=False)
    data_key: bytes | None = field(repr=False)
    manifest: Manifest = field(repr=False)
    key_ids: tuple[str, ...]


def seal(fingerprint: Fingerprint, signer: Signer, data_key: bytes | None = None) -> Sealed:
    """Encrypt and sign. The data key is random, or `data_key`; a non-evidential record derives it from its secret K.

    Raises:
        Tampered: payload and manifest contradict each other.
    """
    fingerprint.check()
    manifest, plaintext = fingerprint.manifest, fingerprint.payload.to_bytes()
    associated = _associated(manifest)
    if manifest.seed.evidential:
        key, nonce = secrets.token_bytes(KEY_BYTES), secrets.token_bytes(NONCE_BYTES)
    else:
        key, nonce = _derive(fingerprint.payload.secret.tobytes(), plaintext, associated)
    key = data_key or key
    ciphertext = cipher.encrypt(key, nonce, plaintext, associated)
    tensors = Tensors(
        sha256=hashlib.sha256(ciphertext).hexdigest(),
        size=len(ciphertext),
        cipher="ChaCha20-Poly1305",
        nonce=nonce.hex(),
    )
    complete = manifest.model_copy(update={"tensors": tensors})
    envelope = dsse.sign(statement(complete), PAYLOAD_TYPE, signer)
    return Sealed(envelope_id(envelope), envelope, ciphertext, key, complete, (signer.key_id,))


def unseal(envelope: bytes, tensors: bytes, data_key: bytes | None, keys: Keys) -> Fingerprint:
    """Check the signature, then everything it vouches for, and decrypt.

    Raises:
        EvidenceError: a signature, digest, ciphertext or payload does not hold, or the signer is not trusted.
        StoreError: there is no data key.
    """
    manifest = read_manifest(envelope, keys)
    return open_tensors(manifest, envelope_id(envelope), tensors, data_key)


def read_manifest(envelope: bytes, keys: Keys) -> Manifest:
    """The public part, after checking the signature.

    Raises:
        EvidenceError: the signature does not hold, the signer is not trusted, or it is no fingerprint.
    """
    return read_signed(envelope, keys)[0]


def read_signed(envelope: bytes, keys: Keys) -> tuple[Manifest, dsse.VerifiedEnvelope]:
    """The public part and who signed it. Raises as `read_manifest`."""
    verified = dsse.verify(envelope, keys)
    if verified.payload_type != PAYLOAD_TYPE:
        raise Tampered(f"the envelope holds {verified.payload_type!r}, which is not a fingerprint")
    return parse_statement(verified.payload), verified


def open_tensors(manifest: Manifest, identity: str, tensors: bytes, data_key: bytes | None) -> Fingerprint:
    """Decrypt the tensors of a manifest whose signature was checked.

    Raises:
        EvidenceError: ciphertext or payload is not what the manifest says.
        StoreError: there is no data key.
    """
    digest: list[str] = []
    hashing = threading.Thread(target=lambda: digest.append(hashlib.sha256(tensors).hexdigest()))
    hashing.start()  # beside the decryption: both take their time on large records
    try:
        plaintext = _decrypt(manifest, tensors, data_key)
    finally:  # what was changed is told first: by this, whatever else is wrong
        hashing.join()
        check_ciphertext(manifest, tensors, digest[0])
    fingerprint = Fingerprint(manifest, Payload.from_bytes(plaintext), identity)
    fingerprint.check()
    return fingerprint


def _decrypt(manifest: Manifest, tensors: bytes, data_key: bytes | None) -> bytes:
    if data_key is None:
        raise missing_data_key(manifest.name)
    nonce = manifest.tensors.nonce if manifest.tensors is not None else ""
    return cipher.decrypt(data_key, nonce, tensors, _associated(manifest), manifest.name)


def check_ciphertext(manifest: Manifest, tensors: bytes, sha256: str | None = None) -> Tensors:
    """Compare the ciphertext (and its digest, where it is known already) with what was signed, and return that.

    Raises:
        Tampered: size or digest differs, or the manifest names no ciphertext.
    """
    described = manifest.tensors
    if described is None:
        raise Tampered("the signed manifest does not name its tensors")
    if len(tensors) != described.size or (sha256 or hashlib.sha256(tensors).hexdigest()) != described.sha256:
        raise Tampered(
            f"the encrypted probes of {manifest.name!r} are not what was signed",
            remedy="Restore them from a backup, or import an export of this record.",
        )
    return described


def missing_data_key(name: str) -> StoreError:
    """The error for a record whose probes can't be opened here."""
    return StoreError(
        f"the probes of {name!r} are encrypted and their data key is not on this machine",
        remedy="On the machine that made the record, `fingerprint store export --include-secrets` writes a file that "
        "carries the key; import that.",
    )


def envelope_id(envelope: bytes) -> str:
    """SHA-256 (hex) of the envelope's bytes: the fingerprint's id."""
    return hashlib.sha256(envelope).hexdigest()


def _associated(manifest: Manifest) -> bytes:
    return cipher.associated_data(manifest.probes.merkle_root, manifest.owner.sha256)


def _derive(secret: bytes, plaintext: bytes, associated: bytes) -> tuple[bytes, bytes]:
    """Key and nonce from K (RFC 5869): a nonce never repeats under a key, for both depend on all that is encrypted."""
    info = _DERIVATION + hashlib.sha256(plaintext).digest() + hashlib.sha256(associated).digest()
    stream = HKDF(algorithm=SHA256(), length=KEY_BYTES + NONCE_BYTES, salt=None, info=info).derive(secret)
    return stream[:KEY_BYTES], stream[KEY_BYTES:]
