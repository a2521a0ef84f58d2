"""Signature algorithms: Ed25519 (RFC 8032), and ECDSA over P-256 with SHA-256 (FIPS 186-5), deterministic (RFC 6979).

A message and a key have one signature here. For ECDSA that takes two rules beyond the standard: the encoding is DER,
and s is the smaller of its two values; for who has (r, s) also has (r, n - s), and an envelope has one encoding only.
"""

from __future__ import annotations

import hashlib
from typing import Literal, TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

PublicKey: TypeAlias = Ed25519PublicKey | ec.EllipticCurvePublicKey
PrivateKey: TypeAlias = Ed25519PrivateKey | ec.EllipticCurvePrivateKey
Algorithm: TypeAlias = Literal["ed25519", "ecdsa-p256"]
ALGORITHMS: tuple[Algorithm, ...] = ("ed25519", "ecdsa-p256")
LONGEST = 72  # bytes of a signature; an ECDSA one in DER
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def key_id(public: PublicKey) -> str:
    """SHA-256 (hex) of the key's SubjectPublicKeyInfo in DER."""
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def generate_key(algorithm: Algorithm) -> PrivateKey:
    """A new private key."""
    return Ed25519PrivateKey.generate() if algorithm == "ed25519" else ec.generate_private_key(ec.SECP256R1())


def algorithm_of(key: object) -> Algorithm | None:
    """The algorithm of a private or public key, or None for one that this tool does not use."""
    if isinstance(key, Ed25519PublicKey | Ed25519PrivateKey):
        return "ed25519"
    if isinstance(key, ec.EllipticCurvePublicKey | ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
        return "ecdsa-p256"
    return None


def sign(private: PrivateKey, data: bytes) -> bytes:
    """The signature of `data`: 64 bytes (Ed25519), or DER (ECDSA)."""
    if isinstance(private, Ed25519PrivateKey):
        return private.sign(data)
    r, s = decode_dss_signature(private.sign(data, ec.ECDSA(hashes.SHA256(), deterministic_signing=True)))
    return encode_dss_signature(r, min(s, P256_ORDER - s))


def verify(public: PublicKey, signature: bytes, data: bytes) -> None:
    """Check a signature.

    Raises:
        InvalidSignature: it does not match, or is another spelling of the one that does.
    """
    if isinstance(public, Ed25519PublicKey):
        public.verify(signature, data)
        return
    try:
        r, s = decode_dss_signature(signature)
        one_form = encode_dss_signature(r, s) == signature and s <= P256_ORDER // 2
    except ValueError as error:
        raise InvalidSignature from error
    if not one_form:
        raise InvalidSignature
    public.verify(signature, data, ec.ECDSA(hashes.SHA256()))
