"""Signed envelopes: DSSE v1 (github.com/secure-systems-lab/dsse), in one canonical encoding.

The bytes that were verified are the bytes that get used, and an envelope has one encoding only.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature

from fingerprint.canonical import canonical
from fingerprint.errors import SignatureInvalid, Tampered, UntrustedSigner
from fingerprint.frozen import dataclass
from store import algorithms
from store.algorithms import LONGEST
from store.encoding import decode_base64, encode_base64, fields, parse_canonical, text
from store.trust import Trust

if TYPE_CHECKING:
    from collections.abc import Mapping

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
    return _encoded(payload, payload_type, {signer.key_id: signer.sign(message) for signer in signers})


def _encoded(payload: bytes, payload_type: str, signatures: Mapping[str, bytes]) -> bytes:
    return canonical(
        {
            "payload": encode_base64(payload),
            "payloadType": payload_type,
            "signatures": [{"keyid": k, "sig": encode_base64(s)} for k, s in sorted(signatures.items())],
        }
    )


def verify(envelope: bytes, keys: Keys) -> VerifiedEnvelope:
    """Check an envelope's encoding and signatures. The payload is not looked into.

    Every signature by a key in `keys` must hold, and there must be one, or as many as a `Trust` asks for. Those by
    other keys can't be checked: whoever adds one makes an envelope of another digest that proves the same.

    Raises:
        Tampered: not an envelope, not in its canonical encoding, or a signature names another key than made it.
        UntrustedSigner: no signature is by a key in `keys`, or too few.
        RevokedSigner: one that is needed is by a key that was revoked.
        SignatureInvalid: a signature by a key in `keys` does not match.
    """
    found = read_unverified(envelope)
    payload, payload_type, signatures = found.payload, found.payload_type, found.signatures
    known = tuple(signer for signer in signatures if signer in keys)
    if not known:
        raise UntrustedSigner(
            f"signed by {', '.join(signer[:16] for signer in signatures)}, which is no trusted key",
            remedy="If you trust the signer, pass the public key with `--key PUB` or put it in the trusted/ folder.",
        )
    message = pae(payload_type, payload)
    for signer in known:
        try:
            algorithms.verify(keys[signer], signatures[signer], message)
        except InvalidSignature as error:
            raise SignatureInvalid(
                f"the signature by {signer[:16]} does not match", remedy="The bytes were changed after signing."
            ) from error
    _refuse_renamed(signatures, keys, message)
    counting = keys.counting(envelope, known) if isinstance(keys, Trust) else known
    return VerifiedEnvelope(payload, payload_type, counting, tuple(signatures))


def _refuse_renamed(signatures: Mapping[str, bytes], keys: Keys, message: bytes) -> None:
    """A signature by a key in `keys` under the id of another one was renamed. Raises Tampered."""
    for signer in signatures.keys() - keys.keys():
        for key_id, public in keys.items():
            try:
                algorithms.verify(public, signatures[signer], message)
            except InvalidSignature:
                continue
            raise Tampered(f"the signature by {key_id[:16]} was put under the name of {signer[:16]}")


@dataclass(frozen=True)
class OpenEnvelope:
    """What an envelope says, without any word on whether its signatures hold."""

    payload: bytes
    payload_type: str
    signatures: dict[str, bytes]


def read_unverified(envelope: bytes) -> OpenEnvelope:
    """Take an envelope apart. For showing it, and for adding a signature; nothing in it may be believed.

    Raises:
        Tampered: not an envelope, or not in its canonical encoding.
    """
    value = fields(parse_canonical(envelope, "the envelope"), _ENVELOPE, "the envelope")
    payload = decode_base64(value["payload"], "the envelope's payload")
    payload_type = text(value["payloadType"], "the envelope's payloadType")
    return OpenEnvelope(payload, payload_type, _signatures(value["signatures"]))


def add_signature(envelope: bytes, signer: Signer) -> bytes:
    """The envelope with one signature more; its digest, and so a record's id, is a new one.

    Raises:
        Tampered: not an envelope.
        ValueError: it carries a signature by this key already, or as many as it can.
    """
    found = read_unverified(envelope)
    if signer.key_id in found.signatures or len(found.signatures) >= MAX_SIGNATURES:
        raise ValueError("signed by this key already, or by too many")
    made = found.signatures | {signer.key_id: signer.sign(pae(found.payload_type, found.payload))}
    return _encoded(found.payload, found.payload_type, made)


def _signatures(value: object) -> dict[str, bytes]:
    """Key id -> signature; sorted and without repeats, as `sign` writes them. Raises Tampered."""
    if not isinstance(value, list) or not 0 < len(value) <= MAX_SIGNATURES:
        raise Tampered("the envelope does not hold a list of signatures")
    found: dict[str, bytes] = {}
    for item in value:
        entry = fields(item, _SIGNATURE, "a signature")
        signer = text(entry["keyid"], "a signature's keyid")
        found[signer] = decode_base64(entry["sig"], "a signature")
        if not _KEY_ID.fullmatch(signer) or not 8 <= len(found[signer]) <= LONGEST:
            raise Tampered("a signature is of no form that is known here")
    if list(found) != sorted(found) or len(found) != len(value):
        raise Tampered("the envelope's signatures are repeated or out of order")
    return found
