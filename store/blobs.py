"""Files beside the database: encrypted tensors by their digest."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from fingerprint.errors import StoreError, Tampered
from fingerprint.frozen import dataclass
from fingerprint.limits import DEFAULT, Limits
from store.files import TEMPORARY_PREFIX, private_folder, read_limited, write_atomic

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
        else:
            with suppress(OSError):
                os.utime(self.path(sha256))  # in use again: `orphans.collect` leaves young files alone

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


def is_temporary(path: Path) -> bool:
    """Whether a file is what a killed write left behind."""
    return path.name.startswith(TEMPORARY_PREFIX)
