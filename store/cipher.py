"""The cipher of a record's tensors: ChaCha20-Poly1305 (RFC 8439), bound to what the signed manifest says of them.

Nothing here needs the manifest's model, which takes long to import.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from fingerprint.errors import Tampered

_ASSOCIATED = b"dnn-fingerprint/tensors/v1"


def associated_data(merkle_root: str, owner_sha256: str) -> bytes:
    """What binds a ciphertext to the probes' Merkle root and the owner's digest (both hex)."""
    return _ASSOCIATED + bytes.fromhex(merkle_root) + bytes.fromhex(owner_sha256)


def encrypt(key: bytes, nonce: bytes, plaintext: bytes, associated: bytes) -> bytes:
    """The ciphertext with its tag. A nonce is used once per key."""
    return ChaCha20Poly1305(key).encrypt(nonce, plaintext, associated)


def decrypt(key: bytes, nonce: str, ciphertext: bytes, associated: bytes, name: str) -> bytes:
    """The plaintext; `nonce` is hex, `name` is for the error.

    Raises:
        Tampered: the key does not open it, or anything was changed.
    """
    try:
        return ChaCha20Poly1305(key).decrypt(bytes.fromhex(nonce), ciphertext, associated)
    except (InvalidTag, ValueError) as error:
        raise Tampered(f"the data key does not open the probes of {name!r}") from error
