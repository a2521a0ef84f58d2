"""Signed envelopes: DSSE v1 (github.com/secure-systems-lab/dsse) with Ed25519, in one canonical encoding.

The bytes that were verified are the bytes that get used, and an envelope has one encoding only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature

from fingerprint.errors import SignatureInvalid, Tampered, UntrustedSigner
from fingerprint.record import canonical
from store.encoding import decode_base64, encode_base64, fields, parse_canonical, text

if TYPE_CHECKING:
    from store.keys import Keys, Signer

_ENVELOPE = frozenset({"payload", "payloadType", "signatures"})
_SIGNATURE = frozenset({"keyid", "sig"})
_KEY_ID = re.compile(r"[0-9a-f]{64}")
MAX_SIGNATURES = 16


@dataclass(frozen=True)
class VerifiedEnvelope:
    """What a signature vouches for.

    `key_ids` are the trusted keys whose signatures hold; `signers` are all key ids that the envelope names, of which
    the others were not checked.
    """

    payload: bytes
    payload_type: str
    key_ids: tuple[str, ...]
    signers: tuple[str, ...]


def pae(payload_type: str, payload: bytes) -> bytes:
    """Pre-authentication encoding: the bytes that are signed."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def sign(payload: bytes, payload_type: str, *signers: Signer) -> bytes:
    """The envelope's bytes, signed by each of `signers` (at least one, each once)."""
    if not 0 < len({signer.key_id for signer in signers}) == len(signers) <= MAX_SIGNATURES:
        raise ValueError(f"need 1 to {MAX_SIGNATURES} different signers")
    message = pae(payload_type, payload)
    return canonical(
        {
            "payload": encode_base64(payload),
            "payloadType": payload_type,
            "signatures": [
                {"keyid": signer.key_id, "sig": encode_base64(signer.sign(message))}
                for signer in sorted(signers, key=lambda signer: signer.key_id)
            ],
        }
    )


def verify(envelope: bytes, keys: Keys) -> VerifiedEnvelope:
    """Check an envelope's encoding and signatures. The payload is not looked into.

    Every signature by a key in `keys` must hold, and there must be one.

    Raises:
        Tampered: not an envelope, or not in its canonical encoding.
        UntrustedSigner: no signature is by a key in `keys`.
        SignatureInvalid: a signature by a key in `keys` does not match.
    """
    value = fields(parse_canonical(envelope, "the envelope"), _ENVELOPE, "the envelope")
    payload = decode_base64(value["payload"], "the envelope's payload")
    payload_type = text(value["payloadType"], "the envelope's payloadType")
    signatures = _signatures(value["signatures"])
    known = tuple(signer for signer in signatures if signer in keys)
    if not known:
        raise UntrustedSigner(
            f"signed by {', '.join(signer[:16] for signer in signatures)}, which is no trusted key",
            remedy="If you trust the signer, pass the public key with `--key PUB` or put it in the trusted/ folder.",
        )
    message = pae(payload_type, payload)
    for signer in known:
        try:
            keys[signer].verify(signatures[signer], message)
        except InvalidSignature as error:
            raise SignatureInvalid(
                f"the signature by {signer[:16]} does not match", remedy="The bytes were changed after signing."
            ) from error
    return VerifiedEnvelope(payload, payload_type, known, tuple(signatures))


def _signatures(value: object) -> dict[str, bytes]:
    """Key id -> signature; sorted and without repeats, as `sign` writes them. Raises Tampered."""
    if not isinstance(value, list) or not 0 < len(value) <= MAX_SIGNATURES:
        raise Tampered("the envelope does not hold a list of signatures")
    found: dict[str, bytes] = {}
    for item in value:
        entry = fields(item, _SIGNATURE, "a signature")
        signer = text(entry["keyid"], "a signature's keyid")
        found[signer] = decode_base64(entry["sig"], "a signature")
        if not _KEY_ID.fullmatch(signer) or len(found[signer]) != 64:
            raise Tampered("a signature is not of the form that Ed25519 gives")
    if list(found) != sorted(found) or len(found) != len(value):
        raise Tampered("the envelope's signatures are repeated or out of order")
    return found
