"""RFC 3161 timestamps: a token (CMS SignedData, RFC 5652) over an envelope, and the certificates that it leads to.

Checked: the response was granted; its only signer signed these attributes, which name the token's content and his own
certificate; that is for timestamps alone; it leads, over certificates that may sign others, to a given authority, each
valid at the time of the token; and the token is over the digest of the envelope. Not checked: whether an authority
revoked a certificate, and name constraints or policies in certificates.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timezone

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from . import der
from .reading import Wrong

SIGNED_DATA, TST_INFO = "1.2.840.113549.1.7.2", "1.2.840.113549.1.9.16.1.4"
CONTENT_TYPE, MESSAGE_DIGEST = "1.2.840.113549.1.9.3", "1.2.840.113549.1.9.4"
SIGNING_CERTIFICATE, SIGNING_CERTIFICATE_V2 = "1.2.840.113549.1.9.16.2.12", "1.2.840.113549.1.9.16.2.47"
DIGESTS = {
    "2.16.840.1.101.3.4.2.1": ("sha256", hashes.SHA256()),
    "2.16.840.1.101.3.4.2.2": ("sha384", hashes.SHA384()),
    "2.16.840.1.101.3.4.2.3": ("sha512", hashes.SHA512()),
}
RSA_ANY = "1.2.840.113549.1.1.1"  # the digest of the signer info counts
RSA = {"1.2.840.113549.1.1.%d" % n: name for n, name in ((11, "sha256"), (12, "sha384"), (13, "sha512"))}
ECDSA = {"1.2.840.10045.4.3.%d" % n: name for n, name in ((2, "sha256"), (3, "sha384"), (4, "sha512"))}
ED25519 = "1.3.101.112"
LONGEST_CHAIN = 8


def check(response, envelope, authorities):
    """(time, name of the authority) of a response over an envelope. Raises Wrong.

    `authorities`: certificates that are trusted for this.
    """
    return check_over(response, lambda name: hashlib.new(name, envelope).digest(), authorities)[:2]


def check_digest(response, sha256, authorities):
    """(time, name of the authority, accuracy in seconds or None) of a response over a SHA-256 (hex). Raises Wrong."""
    return check_over(response, lambda name: bytes.fromhex(sha256) if name == "sha256" else None, authorities)


def check_over(response, digest, authorities):
    """The same; `digest` gives what must have been stamped by the name of a hash."""
    status, token = granted(response)
    if status != 0:
        raise Wrong("the authority did not grant the timestamp")
    content, signer, certificates = signed_data(token)
    info = der.read_only(content, der.SEQUENCE).parts()
    algorithm, stamped = info[2].parts()
    name, _ = digest_named(algorithm)
    if info[0].integer() != 1 or stamped.octets() != digest(name):
        raise Wrong("the timestamp is over other bytes")
    time = time_of(info[4])
    own = signing_certificate(signer, certificates)
    check_signature(signer, content, own)
    check_purpose(own)
    check_chain(own, certificates, authorities, time)
    return time, own.subject.rfc4514_string(), accuracy_of(info[5:])


def granted(response):
    """(status, token) of a response."""
    parts = der.read_only(response, der.SEQUENCE).parts()
    if len(parts) != 2:
        raise Wrong("the response holds no timestamp")
    return parts[0].parts()[0].integer(), parts[1]


def signed_data(token):
    """(content, the only signer info, certificates) of a token."""
    kind, explicit = token.parts()
    if kind.oid() != SIGNED_DATA or explicit.tag != 0xA0:
        raise Wrong("the timestamp is no signed data")
    parts = der.read_only(explicit.content, der.SEQUENCE).parts()
    contained, rest = parts[2].parts(), parts[3:]
    if contained[0].oid() != TST_INFO or contained[1].tag != 0xA0:
        raise Wrong("what was signed is no timestamp")
    content = der.read_only(contained[1].content, der.OCTETS).octets()
    certificates = [x509.load_der_x509_certificate(v.whole) for part in rest if part.tag == 0xA0 for v in part.parts()]
    signers = rest[-1].parts()
    if rest[-1].tag != der.SET or len(signers) != 1:
        raise Wrong("a timestamp has one signer")
    return content, signers[0].parts(), certificates


def digest_named(algorithm):
    """(name, hash) of an algorithm identifier."""
    parts = algorithm.parts()
    found = DIGESTS.get(parts[0].oid())
    if found is None:
        raise Wrong("digests by %s are not accepted" % parts[0].oid())
    return found


def time_of(value):
    """The time of a GeneralizedTime in UTC."""
    text = value.content.decode("ascii")
    whole, _, fraction = text.rstrip("Z").partition(".")
    if value.tag != der.TIME or not text.endswith("Z") or not (whole + fraction).isdigit() or len(whole) != 14:
        raise Wrong("the time of the timestamp is malformed")
    time = datetime.strptime(whole, "%Y%m%d%H%M%S").replace(tzinfo=timezone.utc)
    return time.replace(microsecond=int((fraction + "000000")[:6]))


def accuracy_of(rest):
    """Seconds, or None, of what follows the time: an Accuracy of seconds, milli- and microseconds, if there is one."""
    if not rest or rest[0].tag != der.SEQUENCE:
        return None
    units = {der.INTEGER: 1.0, 0x80: 1e3, 0x81: 1e6}
    return sum(int.from_bytes(part.content, "big") / units[part.tag] for part in rest[0].parts())


def signing_certificate(signer, certificates):
    """The certificate that a signer info names."""
    if signer[1].tag == der.SEQUENCE:  # issuer and serial number
        issuer, serial = signer[1].parts()
        found = [
            c for c in certificates if c.issuer.public_bytes() == issuer.whole and c.serial_number == serial.integer()
        ]
    else:  # subject key identifier
        found = [c for c in certificates if key_identifier(c) == signer[1].content]
    if not found:
        raise Wrong("the certificate of the timestamp's signer is not in it")
    return found[0]


def key_identifier(certificate):
    """The subject key identifier, or None."""
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except x509.ExtensionNotFound:
        return None


def check_signature(signer, content, certificate):
    """The signed attributes are of this content and by this certificate, and the signature over them holds."""
    name, algorithm = digest_named(signer[2])
    if signer[3].tag != 0xA0:
        raise Wrong("the timestamp has no signed attributes")
    attributes = {}
    for attribute in signer[3].parts():
        kind, values = attribute.parts()
        if kind.oid() in attributes:
            raise Wrong("a signed attribute stands twice")
        attributes[kind.oid()] = values.parts()
    if [v.oid() for v in attributes.get(CONTENT_TYPE, [])] != [TST_INFO]:
        raise Wrong("the signed attributes are of another content")
    if [v.octets() for v in attributes.get(MESSAGE_DIGEST, [])] != [hashlib.new(name, content).digest()]:
        raise Wrong("the signed attributes are not of this timestamp")
    check_named(attributes, certificate)
    signed = bytes([der.SET]) + signer[3].whole[1:]
    verify(certificate.public_key(), signer[4].parts()[0].oid(), signer[5].octets(), signed, name, algorithm)


def check_named(attributes, certificate):
    """The attribute of RFC 5035 or 2634 that names the signer's certificate names this one."""
    data = certificate.public_bytes(Encoding.DER)
    newer = SIGNING_CERTIFICATE_V2 in attributes
    named = attributes.get(SIGNING_CERTIFICATE_V2 if newer else SIGNING_CERTIFICATE)
    if not named:
        raise Wrong("the timestamp does not name its signer's certificate")
    first = named[0].parts()[0].parts()[0].parts()  # ESSCertID(v2)
    name = "sha256" if newer else "sha1"
    if newer and first[0].tag == der.SEQUENCE:
        name, first = digest_named(first[0])[0], first[1:]
    if first[0].octets() != hashlib.new(name, data).digest():
        raise Wrong("the timestamp names another certificate than its signer's")


def verify(key, kind, signature, message, name, algorithm):
    """The signature of a message by a key, by the algorithm that is named."""
    try:
        if isinstance(key, rsa.RSAPublicKey) and (kind == RSA_ANY or RSA.get(kind) == name):
            key.verify(signature, message, padding.PKCS1v15(), algorithm)
        elif isinstance(key, ec.EllipticCurvePublicKey) and ECDSA.get(kind) == name:
            key.verify(signature, message, ec.ECDSA(algorithm))
        elif isinstance(key, ed25519.Ed25519PublicKey) and kind == ED25519:
            key.verify(signature, message)
        else:
            raise Wrong("timestamps signed by %s are not checked here; see README.txt for OpenSSL" % kind)
    except InvalidSignature as error:
        raise Wrong("the signature of the timestamp does not hold") from error


def check_purpose(certificate):
    """The certificate is for timestamps, and says so as critical."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    except x509.ExtensionNotFound as error:
        raise Wrong("the certificate of the timestamp's signer is not for timestamps") from error
    if not extension.critical or list(extension.value) != [ExtendedKeyUsageOID.TIME_STAMPING]:
        raise Wrong("the certificate of the timestamp's signer is not for timestamps alone")


def check_chain(certificate, others, authorities, time):
    """The certificate leads to a trusted authority, and all were valid at a time."""
    current, trusted = certificate, {a.public_bytes(Encoding.DER): a for a in authorities}
    for _ in range(LONGEST_CHAIN):
        if not current.not_valid_before_utc <= time <= current.not_valid_after_utc:
            raise Wrong("a certificate of the timestamp was not valid at its time")
        if current.public_bytes(Encoding.DER) in trusted:
            return
        current = next((c for c in [*authorities, *others] if c != current and issued(c, current)), None)
        if current is None:
            break
    raise Wrong("the timestamp leads to no authority in authorities/ or --ca")


def issued(issuer, certificate):
    """Whether one certificate, which may sign others, signed another one."""
    try:
        certificate.verify_directly_issued_by(issuer)
        constraints = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, x509.ExtensionNotFound):
        return False
    try:
        signs = issuer.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except x509.ExtensionNotFound:
        signs = True
    return bool(constraints.ca and signs)
