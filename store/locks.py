"""The lock of the data keys: a master key that wraps them, itself wrapped by a passphrase or a key file.

A passphrase goes through Argon2id (RFC 9106, second recommended option); the master key and the data keys are wrapped
with ChaCha20-Poly1305. Another passphrase rewrites one small file; no data key and no probe is encrypted anew.
"""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fingerprint.canonical import canonical
from fingerprint.errors import KeyFileError, StoreError, Tampered
from fingerprint.frozen import dataclass
from fingerprint.limits import DEFAULT
from store.data_keys import LOCK
from store.encoding import decode_base64, encode_base64, fields, parse_canonical
from store.files import private_folder, read_limited, write_atomic

if TYPE_CHECKING:
    from pydantic import JsonValue

FORMAT = "dnn-fingerprint-lock/1"
MEMORY_KIB, ITERATIONS, LANES = 64 * 1024, 3, 4  # RFC 9106, section 4
KEY_FILE_BYTES = 32  # a key file has at least so many
_FIELDS = frozenset({"format", "id", "kind", "salt", "memory_kib", "iterations", "lanes", "nonce", "key", "sha256"})
_MOST_MEMORY_KIB, _MOST_ITERATIONS, _MOST_LANES = 4 * 1024 * 1024, 1000, 64
Kind = Literal["passphrase", "key-file"]


@dataclass(frozen=True)
class Secret:
    """What opens a lock: a passphrase, or the bytes of a key file."""

    kind: Kind
    value: bytes

    def __repr__(self) -> str:
        return f"Secret({self.kind})"


@dataclass(frozen=True)
class Lock:
    """A lock file as it lies there. `kind` says what opens it."""

    id: str
    kind: Kind
    parameters: tuple[str, int, int, int]  # salt (hex), memory in KiB, iterations, lanes
    nonce: bytes
    wrapped: bytes

    def open(self, secret: Secret) -> bytes:
        """The master key.

        Raises:
            KeyFileError: the passphrase or key file is wrong.
        """
        if secret.kind != self.kind:
            raise KeyFileError(f"the probes are locked with a {self.kind}, not with a {secret.kind}")
        try:
            key = _key_of(secret, self.parameters)
            return ChaCha20Poly1305(key).decrypt(self.nonce, self.wrapped, _associated(self.id, self.parameters))
        except InvalidTag as error:
            raise KeyFileError(
                f"wrong {self.kind.replace('-', ' ')} for the probes", remedy="Try again. Nothing was changed."
            ) from error


def make(master: bytes, secret: Secret, identity: str | None = None) -> Lock:
    """A lock of `master`; `identity` stays the same when only the secret changes.

    Raises:
        KeyFileError: the passphrase is empty, or the key file too short.
    """
    if not secret.value or (secret.kind == "key-file" and len(secret.value) < KEY_FILE_BYTES):
        raise KeyFileError(f"the {secret.kind} is empty or shorter than {KEY_FILE_BYTES} bytes")
    parameters = (secrets.token_hex(16), MEMORY_KIB, ITERATIONS, LANES)
    named, nonce = identity or secrets.token_hex(16), secrets.token_bytes(12)
    key = _key_of(secret, parameters)
    wrapped = ChaCha20Poly1305(key).encrypt(nonce, master, _associated(named, parameters))
    return Lock(named, secret.kind, parameters, nonce, wrapped)


def _key_of(secret: Secret, parameters: tuple[str, int, int, int]) -> bytes:
    salt = bytes.fromhex(parameters[0])
    if secret.kind == "key-file":
        return HKDF(algorithm=SHA256(), length=32, salt=salt, info=FORMAT.encode()).derive(secret.value)
    _, memory, iterations, lanes = parameters
    return Argon2id(salt=salt, length=32, iterations=iterations, lanes=lanes, memory_cost=memory).derive(secret.value)


def _associated(identity: str, parameters: tuple[str, int, int, int]) -> bytes:
    return canonical([FORMAT, identity, *parameters])


def write(folder: Path, lock: Lock) -> None:
    """Put a lock in place, whole. Raises StoreError."""
    value = _value(lock)
    write_atomic(private_folder(folder) / LOCK, canonical({**value, "sha256": _digest(value)}) + b"\n")


def _value(lock: Lock) -> dict[str, JsonValue]:
    salt, memory, iterations, lanes = lock.parameters
    return {
        "format": FORMAT,
        "id": lock.id,
        "kind": lock.kind,
        "salt": salt,
        "memory_kib": memory,
        "iterations": iterations,
        "lanes": lanes,
        "nonce": lock.nonce.hex(),
        "key": encode_base64(lock.wrapped),
    }


def _digest(value: dict[str, JsonValue]) -> str:
    return hashlib.sha256(canonical(value)).hexdigest()


def read(folder: Path) -> Lock | None:
    """The lock in a folder, or None where there is none.

    Raises:
        Tampered: it is damaged.
        StoreError: it can't be read, or a newer release wrote it.
    """
    path = folder / LOCK
    try:
        data = read_limited(path, DEFAULT.spec_bytes)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"can't read the lock {path}: {error.strerror or error}") from error
    value = parse_canonical(data.removesuffix(b"\n"), f"the lock {path}")
    if isinstance(value, dict) and value.get("format") != FORMAT:
        rest = {k: v for k, v in value.items() if k != "sha256"}
        if str(value.get("format")).startswith("dnn-fingerprint-lock/") and value.get("sha256") == _digest(rest):
            raise StoreError(f"the lock {path} is of a newer release", remedy="Upgrade dnn-fingerprint.")
    found = fields(value, _FIELDS, f"the lock {path}")
    said = found.pop("sha256")
    if said != _digest(found) or not data.endswith(b"\n") or found["format"] != FORMAT:
        raise Tampered(f"the lock {path} is damaged", remedy="Restore it from a backup.")
    return _lock(found, path)


def _lock(value: dict[str, JsonValue], path: Path) -> Lock:
    kind, numbers = value["kind"], [value[name] for name in ("memory_kib", "iterations", "lanes")]
    limits = (_MOST_MEMORY_KIB, _MOST_ITERATIONS, _MOST_LANES)
    sound = all(isinstance(n, int) and 0 < n <= most for n, most in zip(numbers, limits, strict=True))
    if kind not in ("passphrase", "key-file") or not sound:
        raise Tampered(f"the lock {path} asks for something that can't be")
    memory, iterations, lanes = (n for n in numbers if isinstance(n, int))
    try:
        nonce, salt = bytes.fromhex(str(value["nonce"])), bytes.fromhex(str(value["salt"])).hex()
    except ValueError as error:
        raise Tampered(f"the lock {path} is damaged") from error
    wrapped = decode_base64(value["key"], f"the lock {path}")
    chosen: Kind = "passphrase" if kind == "passphrase" else "key-file"
    return Lock(str(value["id"]), chosen, (salt, memory, iterations, lanes), nonce, wrapped)
