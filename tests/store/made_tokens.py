"""Timestamp tokens of any make, written byte by byte: those that an honest authority would not give, too."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
SHA256 = bytes.fromhex("0609608648016503040201")
SIGNED_DATA = bytes.fromhex("06092a864886f70d010702")
TST_INFO = bytes.fromhex("060b2a864886f70d0109100104")
CONTENT_TYPE = bytes.fromhex("06092a864886f70d010903")
MESSAGE_DIGEST = bytes.fromhex("06092a864886f70d010904")
SIGNING_CERTIFICATE_V2 = bytes.fromhex("060b2a864886f70d010910022f")
ECDSA_SHA256 = bytes.fromhex("06082a8648ce3d040302")
POLICY = bytes.fromhex("06032a0304")


def tlv(tag: int, *parts: bytes) -> bytes:
    """A value of a tag, in DER."""
    content = b"".join(parts)
    size = len(content)
    digits = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag]) + (bytes([size]) if size < 0x80 else bytes([0x80 | len(digits)]) + digits) + content


def sequence(*parts: bytes) -> bytes:
    """A SEQUENCE."""
    return tlv(0x30, *parts)


def set_of(*parts: bytes) -> bytes:
    """A SET, in DER order."""
    return tlv(0x31, *sorted(parts))


def integer(value: int) -> bytes:
    """An INTEGER that is not negative."""
    return tlv(2, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def octets(data: bytes) -> bytes:
    """An OCTET STRING."""
    return tlv(4, data)


Key = ec.EllipticCurvePrivateKey


@dataclass
class Maker:
    """An authority and a root. Every field is what can be wrong with it.

    purpose: of the authority's certificate; critical: whether that is marked so; signs: whether the root may sign
    certificates; until: when the authority's certificate ends; time: of the token; accuracy: in seconds, if it says so;
    digest: in the signed attributes, of the token's content; named: the certificate that the signed attributes name
    (None: the authority's own).
    """

    purpose: list[x509.ObjectIdentifier] = field(default_factory=lambda: [ExtendedKeyUsageOID.TIME_STAMPING])
    critical: bool = True
    signs: bool = True
    until: datetime = NOW + timedelta(days=30)
    time: str = "20261128120000Z"
    accuracy: int | None = None
    status: int = 0
    version: int = 1
    signed_by: Key | None = None
    digest: Callable[[bytes], bytes] = lambda content: hashlib.sha256(content).digest()
    named: bytes | None = None
    root_key: Key = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    key: Key = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def certificate(self, name: str, key: Key, *, root: bool) -> x509.Certificate:
        """A certificate by the root."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root")])
        made = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
        made = made.serial_number(7 if root else 8).not_valid_before(NOW - timedelta(days=30))
        made = made.not_valid_after(NOW + timedelta(days=60) if root else self.until)
        if root:
            made = made.add_extension(x509.BasicConstraints(self.signs, None), critical=True)
        else:
            made = made.add_extension(x509.ExtendedKeyUsage(self.purpose), critical=self.critical)
        return made.sign(self.root_key, hashes.SHA256())

    @property
    def root(self) -> x509.Certificate:
        """The root's own."""
        return self.certificate("root", self.root_key, root=True)

    def root_pem(self) -> bytes:
        """The same as PEM."""
        return self.root.public_bytes(serialization.Encoding.PEM)

    def at(self, time: str, accuracy: int | None = None) -> Maker:
        """The same authority at another time."""
        return replace(self, time=time, accuracy=accuracy)

    def answer(self, message: bytes) -> bytes:
        """A response over a message."""
        own = self.certificate("authority", self.key, root=False)
        whole = own.public_bytes(serialization.Encoding.DER)
        imprint = sequence(sequence(SHA256, tlv(5)), octets(hashlib.sha256(message).digest()))
        accuracy = b"" if self.accuracy is None else sequence(integer(self.accuracy))
        content = sequence(integer(self.version), POLICY, imprint, integer(99), tlv(0x18, self.time.encode()), accuracy)
        named = hashlib.sha256(whole).digest() if self.named is None else self.named
        attributes = set_of(
            sequence(CONTENT_TYPE, set_of(TST_INFO)),
            sequence(MESSAGE_DIGEST, set_of(octets(self.digest(content)))),
            sequence(SIGNING_CERTIFICATE_V2, set_of(sequence(sequence(sequence(octets(named)))))),
        )
        signature = (self.signed_by or self.key).sign(attributes, ec.ECDSA(hashes.SHA256()))
        signer = sequence(
            integer(1),
            sequence(own.issuer.public_bytes(), integer(own.serial_number)),
            sequence(SHA256),
            b"\xa0" + attributes[1:],
            sequence(ECDSA_SHA256),
            octets(signature),
        )
        signed = sequence(
            integer(3),
            set_of(sequence(SHA256)),
            sequence(TST_INFO, tlv(0xA0, octets(content))),
            tlv(0xA0, whole),
            set_of(signer),
        )
        return sequence(sequence(integer(self.status)), sequence(SIGNED_DATA, tlv(0xA0, signed)))
