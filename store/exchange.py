"""One record as one file: the signed envelope, the encrypted tensors and, if asked for, the data key.

The file is canonical JSON and a newline. It must equal its own canonical re-encoding, so any byte that is changed,
added or removed is seen.
"""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING

from fingerprint.canonical import canonical
from fingerprint.errors import NotFound, StoreError, Tampered
from fingerprint.limits import DEFAULT, Limits
from fingerprint.record import Fingerprint, Manifest
from store.encoding import decode_base64, encode_base64, fields, parse_canonical
from store.files import read_limited, write_atomic
from store.sealing import KEY_BYTES, Sealed, check_ciphertext, envelope_id, missing_data_key, open_tensors, read_signed

if TYPE_CHECKING:
    from store.keys import Keys

FORMAT = "dnn-fingerprint/1"
_FIELDS = frozenset({"data_key", "envelope", "format", "tensors"})


def encode(envelope: bytes, tensors: bytes, data_key: bytes | None) -> bytes:
    """The file's bytes.

    Raises:
        Tampered: `envelope` is not canonical JSON.
    """
    value = canonical(
        {
            "format": FORMAT,
            "envelope": parse_canonical(envelope, "the envelope"),
            "tensors": encode_base64(tensors),
            "data_key": None if data_key is None else encode_base64(data_key),
        }
    )
    return value + b"\n"


def with_envelope(data: bytes, envelope: bytes) -> bytes:
    """An exported file's bytes with another envelope, such as one with a signature more.

    Raises:
        Tampered: `data` is not an exported file.
    """
    if not data.endswith(b"\n"):
        raise Tampered("this is not an exported fingerprint, or it was cut off")
    value = fields(parse_canonical(data[:-1], "the exported file"), _FIELDS, "the exported file")
    return canonical({**value, "envelope": parse_canonical(envelope, "the envelope")}) + b"\n"


def decode(data: bytes, keys: Keys) -> Sealed:
    """Check everything that can be checked, and take the file apart.

    Raises:
        EvidenceError: no export, or any byte does not hold, or the signer is not trusted.
    """
    return _open(data, keys)[0]


def write(path: Path, sealed: Sealed, include_secrets: bool = False) -> None:
    """Write a record to `path` (mode 0600, whole or not at all).

    Raises:
        StoreError: the file can't be written, or the data key is wanted and not there.
    """
    if include_secrets and sealed.data_key is None:
        raise missing_data_key(sealed.manifest.name)
    write_atomic(path, encode(sealed.envelope, sealed.tensors, sealed.data_key if include_secrets else None))


def read(path: Path, keys: Keys, limits: Limits = DEFAULT) -> Sealed:
    """Read and check an exported file.

    Raises:
        NotFound: there is no such file.
        StoreError: it can't be read, or is larger than `limits.record_bytes`.
        EvidenceError: as `decode`.
    """
    return decode(_read(path, limits), keys)


def load(path: Path, keys: Keys, limits: Limits = DEFAULT) -> Fingerprint:
    """The fingerprint in an exported file.

    Raises:
        StoreError: as `read`, or the file does not carry the data key.
        EvidenceError: as `decode`.
    """
    sealed, fingerprint = _open(_read(path, limits), keys)
    return fingerprint or open_tensors(sealed.manifest, sealed.id, sealed.tensors, sealed.data_key)


def _read(path: Path, limits: Limits) -> bytes:
    try:
        return read_limited(path, limits.record_bytes)
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise NotFound(f"there is no file {path}") from error
        raise StoreError(f"can't read {path}: {error.strerror or error}") from error


def _open(data: bytes, keys: Keys) -> tuple[Sealed, Fingerprint | None]:
    if not data.endswith(b"\n"):
        raise Tampered("this is not an exported fingerprint, or it was cut off")
    value = fields(parse_canonical(data[:-1], "the exported file"), _FIELDS, "the exported file")
    if value["format"] != FORMAT:
        raise Tampered(f"the exported file is not of the format {FORMAT}")
    envelope = canonical(value["envelope"])
    manifest, verified = read_signed(envelope, keys)
    tensors = decode_base64(value["tensors"], "the exported tensors")
    check_ciphertext(manifest, tensors)
    data_key = None if value["data_key"] is None else decode_base64(value["data_key"], "the exported data key")
    sealed = Sealed(envelope_id(envelope), envelope, tensors, data_key, manifest, verified.signers)
    return sealed, _opened(manifest, sealed) if data_key is not None else None


def _opened(manifest: Manifest, sealed: Sealed) -> Fingerprint:
    """A data key that is there must open the tensors. Raises Tampered."""
    if sealed.data_key is None or len(sealed.data_key) != KEY_BYTES:
        raise Tampered(f"the exported data key is not {KEY_BYTES} bytes long")
    return open_tensors(manifest, sealed.id, sealed.tensors, sealed.data_key)
