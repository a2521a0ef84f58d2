"""Signatures: in-toto statements in DSSE v1 envelopes, by Ed25519 or ECDSA P-256."""

from __future__ import annotations

import hashlib

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils

from .reading import Wrong, decode64, strict_json

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def load_key(data):
    """(key id, public key) of a PEM file."""
    key = serialization.load_pem_public_key(data)
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest(), key


def verify_one(key, signature, message):
    """Raise InvalidSignature unless the signature is the one of the message."""
    if isinstance(key, ed25519.Ed25519PublicKey):
        key.verify(signature, message)
        return
    r, s = utils.decode_dss_signature(signature)
    if utils.encode_dss_signature(r, s) != signature or s > P256_ORDER // 2:
        raise InvalidSignature
    key.verify(signature, message, ec.ECDSA(hashes.SHA256()))


def refuse_renamed(entry, keys, message, what):
    """A signature by a known key under the id of another one."""
    for key_id, key in keys.items():
        try:
            verify_one(key, decode64(entry["sig"], what), message)
        except (InvalidSignature, ValueError):
            continue
        raise Wrong(what + ": the signature by " + key_id[:16] + " is under another name")


def open_envelope(data, keys, what):
    """(statement, ids of the keys that signed it); every signature by a known key must hold, and there must be one."""
    envelope = strict_json(data, what)
    payload, kind = decode64(envelope["payload"], what), envelope["payloadType"].encode()
    message = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
    signed = []
    for entry in envelope["signatures"]:
        key = keys.get(entry["keyid"])
        if key is None:
            refuse_renamed(entry, keys, message, what)
            continue
        try:
            verify_one(key, decode64(entry["sig"], what), message)
        except (InvalidSignature, ValueError) as error:
            raise Wrong(what + ": the signature by " + entry["keyid"][:16] + " does not match") from error
        signed.append(entry["keyid"])
    if not signed:
        raise Wrong(what + " is signed by no key that was given")
    return strict_json(payload, what + ", its statement"), signed
