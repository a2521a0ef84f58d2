"""The data keys that open the encrypted tensors: small files in the home folder, wrapped by its lock if it has one."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from fingerprint.errors import KeyFileError, StoreError, Tampered
from fingerprint.limits import DEFAULT, Limits
from store.files import open_regular, private_folder, read_descriptor, write_atomic

if TYPE_CHECKING:
    from pydantic import JsonValue

    from store.locks import Lock, Secret

LOCK = "lock.json"
KEY_FORMAT = "dnn-fingerprint-data-key/1"
UNLOCK = (
    "Answer the prompt, or set FINGERPRINT_STORE_PASSPHRASE, FINGERPRINT_STORE_PASSPHRASE_FILE or "
    "FINGERPRINT_STORE_KEY_FILE."
)
Ask: TypeAlias = Callable[["Lock"], "Secret | None"]  # what opens a lock: from a person, a file, the environment


class DataKeys:
    """Data keys by the digest of the ciphertext that they open: `folder`/<sha256>.key, mode 0600.

    Where the folder has a lock, each is wrapped under its master key, which `ask` opens when it is first needed.
    """

    def __init__(self, folder: Path, limits: Limits = DEFAULT, ask: Ask | None = None) -> None:
        self.folder, self.limits = folder, limits
        self._ask = ask
        self._master: tuple[str, bytes] | None = None

    def path(self, sha256: str) -> Path:
        """Where the key for the ciphertext of that digest lies."""
        return self.folder / f"{sha256}.key"

    def __iter__(self) -> Iterator[str]:
        """The digests whose keys are here."""
        return (path.stem for path in sorted(self.folder.glob("*.key")))

    def write(self, sha256: str, key: bytes) -> None:
        """Store a key durably, wrapped if there is a lock.

        Raises:
            KeyFileError: the lock can't be opened.
            StoreError: it can't be written.
        """
        if self._kept(sha256) != key:
            self.store(sha256, self._encode(sha256, key))

    def _kept(self, sha256: str) -> bytes | None:
        try:
            return self.read(sha256)
        except Tampered:
            return None  # damaged: it is written anew

    def store(self, sha256: str, data: bytes) -> None:
        """Put a key file in place as it is. Raises StoreError."""
        private_folder(self.folder)
        write_atomic(self.path(sha256), data)

    def read(self, sha256: str) -> bytes | None:
        """The key, or None where this machine does not have it.

        Raises:
            Tampered: the file is damaged.
            KeyFileError: it is locked, and the lock can't be opened.
            StoreError: it can't be read, or a newer release wrapped it.
        """
        data = self.stored(sha256)
        return None if data is None else self._decode(data, sha256)

    def wrapped(self, sha256: str) -> bool:
        """Whether a key is wrapped by a lock; False where it is not here. Raises as `read`, but opens no lock."""
        data = self.stored(sha256)
        return data is not None and self._parse(data, sha256)[1] is not None

    def stored(self, sha256: str) -> bytes | None:
        """The bytes of a key file, or None.

        Raises:
            KeyFileError: it is ours, and open to other users.
            StoreError: it can't be read.
        """
        path = self.path(sha256)
        try:
            with open_regular(path) as (descriptor, status):
                if status.st_mode & 0o077 and status.st_uid == os.geteuid():
                    mode = status.st_mode & 0o777
                    raise KeyFileError(
                        f"the data key {path} is open to other users (mode {mode:04o})",
                        remedy=f"Run: chmod 700 {self.folder}; chmod 600 {self.folder}/*",
                    )
                return read_descriptor(descriptor, status, self.limits.spec_bytes)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                return None
            raise StoreError(f"can't read the data key {path}: {error.strerror or error}") from error

    # -- the lock ----------------------------------------------------------------------------------------------------

    def unlock(self) -> bytes | None:
        """Open the lock now, so that nothing has to ask later. Returns the master key, or None where there is no lock.

        Raises:
            KeyFileError: it can't be opened.
        """
        if not (self.folder / LOCK).exists():
            return None
        from store import locks

        lock = locks.read(self.folder)
        return None if lock is None else self._open(lock)

    def openable(self) -> bool:
        """Whether the keys can be read: there is no lock, or what was given opens it. It is asked for once.

        Raises:
            KeyFileError: what was given does not open it.
            Tampered: the lock is damaged.
        """
        if not (self.folder / LOCK).exists():
            return True
        from store import locks

        lock = locks.read(self.folder)
        if lock is None or (self._master is not None and self._master[0] == lock.id):
            return True
        secret = self._ask(lock) if self._ask is not None else None
        if secret is not None:
            self._master = (lock.id, lock.open(secret))
        return secret is not None

    def change(self, secret: Secret | None) -> int:
        """Lock with another passphrase or key file, or with None remove the lock. Returns how many keys were rewrapped.

        Where there was a lock already and there stays one, only the lock's own file is written.

        Raises:
            KeyFileError: the present lock can't be opened. Nothing was written.
            StoreError: it can't be written.
        """
        from store import locks

        lock = locks.read(self.folder)
        if lock is None and secret is None:
            return 0
        master = secrets.token_bytes(32) if lock is None else self._open(lock)
        if secret is not None:
            made = locks.make(master, secret, lock.id if lock else None)
            locks.write(self.folder, made)
            self._master = (made.id, master)
        plain = {sha256: self.read(sha256) for sha256 in self if self.wrapped(sha256) != (secret is not None)}
        for sha256, key in plain.items():
            if key is not None:
                self.store(sha256, self._encode(sha256, key, locked=secret is not None))
        if secret is None:
            (self.folder / LOCK).unlink()
        return len(plain)

    def _open(self, lock: Lock) -> bytes:
        if self._master is None or self._master[0] != lock.id:
            secret = self._ask(lock) if self._ask is not None else None
            if secret is None:
                raise KeyFileError(
                    f"the probes are locked with a {lock.kind}, and none was given",
                    remedy=UNLOCK,
                )
            self._master = (lock.id, lock.open(secret))
        return self._master[1]

    # -- the files ---------------------------------------------------------------------------------------------------

    def _encode(self, sha256: str, key: bytes, *, locked: bool = True) -> bytes:
        from fingerprint.canonical import canonical
        from store import locks
        from store.encoding import encode_base64

        lock = locks.read(self.folder) if locked else None
        if lock is None:
            return canonical({"format": KEY_FORMAT, "key": encode_base64(key), "wrap": None}) + b"\n"
        from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

        nonce = secrets.token_bytes(12)
        wrapped = ChaCha20Poly1305(self._open(lock)).encrypt(nonce, key, _associated(lock.id, sha256))
        wrap: dict[str, JsonValue] = {"lock": lock.id, "nonce": nonce.hex()}
        return canonical({"format": KEY_FORMAT, "key": encode_base64(wrapped), "wrap": wrap}) + b"\n"

    def _parse(self, data: bytes, sha256: str) -> tuple[bytes, dict[str, JsonValue] | None]:
        from store.encoding import decode_base64, fields, parse_canonical

        what = f"the data key {self.path(sha256)}"
        value = fields(parse_canonical(data.removesuffix(b"\n"), what), frozenset({"format", "key", "wrap"}), what)
        if value["format"] != KEY_FORMAT or not data.endswith(b"\n"):
            raise Tampered(f"{what} is not of the format {KEY_FORMAT}")
        wrap = value["wrap"]
        if wrap is not None and (not isinstance(wrap, dict) or wrap.keys() != {"lock", "nonce"}):
            raise StoreError(
                f"{what} is wrapped in a way that this release does not know", remedy="Upgrade dnn-fingerprint."
            )
        return decode_base64(value["key"], what), wrap

    def _decode(self, data: bytes, sha256: str) -> bytes:
        key, wrap = self._parse(data, sha256)
        if wrap is None:
            return key
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

        from store import locks

        lock = locks.read(self.folder)
        if lock is None or lock.id != wrap["lock"]:
            raise Tampered(
                f"the data key {self.path(sha256)} is wrapped by a lock that is not here",
                remedy=f"Restore {self.folder / LOCK} from a backup.",
            )
        try:
            nonce = bytes.fromhex(str(wrap["nonce"]))
            return ChaCha20Poly1305(self._open(lock)).decrypt(nonce, key, _associated(lock.id, sha256))
        except (InvalidTag, ValueError) as error:
            raise Tampered(
                f"the data key {self.path(sha256)} is damaged", remedy="Restore it from a backup."
            ) from error


def _associated(lock: str, sha256: str) -> bytes:
    return f"{KEY_FORMAT} {lock} {sha256}".encode()
