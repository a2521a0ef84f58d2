"""The probes of a stored record, as early as possible: before its manifest is checked in full.

The signature is checked first, and the ciphertext by its digest and tag. What is returned may be sent to a suspect's
isolated process, whose answers are used only if the record, opened in full, holds these very probes.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from fingerprint.errors import Tampered
from store import cipher, dsse

if TYPE_CHECKING:
    from fingerprint.model import Images
    from store.keys import Keys


def probes_of(envelope: bytes, ciphertext: bytes, data_key: bytes, keys: Keys) -> Images:
    """(N, H, W, C) uint8.

    Raises:
        EvidenceError: the signature, the digest or the tag does not hold, or the signer is not trusted.
    """
    verified = dsse.verify(envelope, keys)
    try:
        manifest = json.loads(verified.payload)["predicate"]
        tensors, name = manifest["tensors"], str(manifest["name"])
        associated = cipher.associated_data(manifest["probes"]["merkle_root"], manifest["owner"]["sha256"])
        nonce, sha256 = str(tensors["nonce"]), tensors["sha256"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Tampered("the signed statement is not a fingerprint") from error
    if hashlib.sha256(ciphertext).hexdigest() != sha256:
        raise Tampered(f"the encrypted probes of {name!r} are not what was signed")
    plaintext = cipher.decrypt(data_key, nonce, ciphertext, associated, name)
    from safetensors.numpy import load

    return load(plaintext)["probes"]
