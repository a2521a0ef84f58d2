"""Encrypted PKCS#8 (RFC 5958) with scrypt (RFC 7914) and AES-256-CBC, readable by OpenSSL.

`cryptography` reads that form, but writes PBKDF2 with 2048 rounds, which a stolen key file would not withstand.
"""

from __future__ import annotations

import base64
import secrets

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.padding import PKCS7

SCRYPT_N, SCRYPT_R, SCRYPT_P = 1 << 14, 8, 5  # 16 MiB, about 0.2 s: the most memory that OpenSSL's tools accept
_PBES2 = bytes.fromhex("06092a864886f70d01050d")  # object identifiers in DER
_SCRYPT = bytes.fromhex("06092b06010401da47040b")
_AES_256_CBC = bytes.fromhex("060960864801650304012a")
_LABEL = "ENCRYPTED PRIVATE KEY"
_INTEGER, _OCTETS, _SEQUENCE = 0x02, 0x04, 0x30


def encrypted_pem(plain: bytes, passphrase: bytes) -> bytes:
    """PEM of the EncryptedPrivateKeyInfo around `plain`, the DER of a PrivateKeyInfo."""
    salt, vector = secrets.token_bytes(16), secrets.token_bytes(16)
    key = Scrypt(salt=salt, length=32, n=SCRYPT_N, r=SCRYPT_R, p=SCRYPT_P).derive(passphrase)
    padder, encryptor = PKCS7(128).padder(), Cipher(AES(key), CBC(vector)).encryptor()
    ciphertext = encryptor.update(padder.update(plain) + padder.finalize()) + encryptor.finalize()
    derivation = _sequence(_SCRYPT, _sequence(_der(_OCTETS, salt), *map(_integer, (SCRYPT_N, SCRYPT_R, SCRYPT_P))))
    scheme = _sequence(_PBES2, _sequence(derivation, _sequence(_AES_256_CBC, _der(_OCTETS, vector))))
    text = base64.b64encode(_sequence(scheme, _der(_OCTETS, ciphertext))).decode("ascii")
    lines = (text[start : start + 64] for start in range(0, len(text), 64))
    return "\n".join((f"-----BEGIN {_LABEL}-----", *lines, f"-----END {_LABEL}-----", "")).encode()


def _sequence(*parts: bytes) -> bytes:
    return _der(_SEQUENCE, b"".join(parts))


def _integer(value: int) -> bytes:
    return _der(_INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _der(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(octets)]) + octets + content
