"""Files beside the database: encrypted tensors by their digest, and the data keys that open them."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fingerprint.errors import StoreError, Tampered
from fingerprint.limits import DEFAULT, Limits
from store.files import TEMPORARY_PREFIX, private_folder, read_limited, write_atomic

KEY_FORMAT = "dnn-fingerprint-data-key/1"
_SUFFIX = ".bin"


@dataclass(frozen=True)
class TensorFiles:
    """Content-addressed ciphertexts: `folder`/<sha256>.bin."""

    folder: Path
    limits: Limits = DEFAULT

    @classmethod
    def beside(cls, database: Path, limits: Limits = DEFAULT) -> TensorFiles:
        """The folder that belongs to a database."""
        return cls(database.with_name(database.name + ".tensors"), limits)

    def path(self, sha256: str) -> Path:
        """Where the ciphertext of that digest lies."""
        return self.folder / f"{sha256}{_SUFFIX}"

    def write(self, data: bytes) -> None:
        """Store a ciphertext durably; one that is there already is kept, a damaged one is replaced.

        Raises:
            StoreError: it can't be written.
        """
        sha256 = hashlib.sha256(data).hexdigest()
        if not self._holds(sha256):
            private_folder(self.folder)
            write_atomic(self.path(sha256), data)

    def _holds(self, sha256: str) -> bool:
        try:
            return hashlib.sha256(read_limited(self.path(sha256), self.limits.record_bytes)).hexdigest() == sha256
        except OSError:
            return False

    def read(self, sha256: str) -> bytes:
        """The bytes of a ciphertext. The caller compares them with what was signed.

        Raises:
            Tampered: the file is gone.
            StoreError: it can't be read.
        """
        path = self.path(sha256)
        try:
            return read_limited(path, self.limits.record_bytes)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                raise Tampered(
                    f"the encrypted probes {path} are gone",
                    remedy="Restore them from a backup, or import an export of this record.",
                ) from error
            raise StoreError(f"can't read {path}: {error.strerror or error}") from error

    def strangers(self, known: Iterable[str]) -> Iterator[Path]:
        """Files that no record names: what a killed `create` left behind."""
        names = {f"{sha256}{_SUFFIX}" for sha256 in known}
        if self.folder.is_dir():
            yield from (path for path in sorted(self.folder.iterdir()) if path.name not in names)


@dataclass(frozen=True)
class DataKeys:
    """Data keys by the digest of the ciphertext that they open: `folder`/<sha256>.key, mode 0600.

    A file says its format and how the key is wrapped, so that a passphrase can wrap it later.
    """

    folder: Path
    limits: Limits = DEFAULT

    def path(self, sha256: str) -> Path:
        """Where the key for the ciphertext of that digest lies."""
        return self.folder / f"{sha256}.key"

    def write(self, sha256: str, key: bytes) -> None:
        """Store a key durably.

        Raises:
            StoreError: it can't be written.
        """
        if self._stored(sha256) != _encode(key):
            private_folder(self.folder)
            write_atomic(self.path(sha256), _encode(key))

    def read(self, sha256: str) -> bytes | None:
        """The key, or None where this machine does not have it.

        Raises:
            Tampered: the file is damaged.
            StoreError: it can't be read, or a newer release wrapped it.
        """
        data = self._stored(sha256)
        return None if data is None else _decode(data, self.path(sha256))

    def _stored(self, sha256: str) -> bytes | None:
        path = self.path(sha256)
        try:
            return read_limited(path, self.limits.spec_bytes)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                return None
            raise StoreError(f"can't read the data key {path}: {error.strerror or error}") from error


def is_temporary(path: Path) -> bool:
    """Whether a file is what a killed write left behind."""
    return path.name.startswith(TEMPORARY_PREFIX)


def _encode(key: bytes) -> bytes:
    from fingerprint.record import canonical
    from store.encoding import encode_base64

    return canonical({"format": KEY_FORMAT, "key": encode_base64(key), "wrap": None}) + b"\n"


def _decode(data: bytes, path: Path) -> bytes:
    from store.encoding import decode_base64, fields, parse_canonical

    what = f"the data key {path}"
    value = fields(parse_canonical(data.removesuffix(b"\n"), what), frozenset({"format", "key", "wrap"}), what)
    if value["format"] != KEY_FORMAT or not data.endswith(b"\n"):
        raise Tampered(f"{what} is not of the format {KEY_FORMAT}")
    if value["wrap"] is not None:
        raise StoreError(
            f"{what} is wrapped in a way that this release does not know", remedy="Upgrade dnn-fingerprint."
        )
    return decode_base64(value["key"], what)
