"""Signing keys (Ed25519, ECDSA P-256): PKCS#8 and SubjectPublicKeyInfo PEM files, and which of them are trusted."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias, cast

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from fingerprint.errors import KeyFileError
from fingerprint.frozen import dataclass
from fingerprint.limits import DEFAULT, Limits
from store import algorithms
from store.algorithms import Algorithm, PrivateKey, PublicKey, algorithm_of, key_id
from store.files import (
    open_regular,
    private_folder,
    read_descriptor,
    read_limited,
    refuse_writable,
    write_atomic,
)
from store.home import Home
from store.trust import Trust

PRIVATE_NAME = "fingerprint.key"
PUBLIC_NAME = "fingerprint.pub"
_ENCRYPTED = b"-----BEGIN ENCRYPTED PRIVATE KEY-----"
_PRIVATE = b"PRIVATE KEY-----"
_KEYGEN = "Make a key pair with `fingerprint keygen`."

Keys: TypeAlias = Mapping[str, PublicKey]  # key id -> trusted public key; a `Trust` knows more


@dataclass(frozen=True)
class KeyPaths:
    """Where `generate` put the pair."""

    private: Path
    public: Path


class Signer:
    """A private key that signs. Its repr shows the key id only."""

    __slots__ = ("_private", "key_id")

    def __init__(self, private: PrivateKey) -> None:
        self._private = private
        self.key_id = key_id(private.public_key())

    @property
    def public(self) -> PublicKey:
        """The public half."""
        return self._private.public_key()

    def sign(self, data: bytes) -> bytes:
        """The signature of `data`, as `algorithms.sign` makes it."""
        return algorithms.sign(self._private, data)

    def __repr__(self) -> str:
        return f"Signer({self.key_id})"


def generate(
    out: Path, passphrase: bytes | None, overwrite: bool = False, algorithm: Algorithm = "ed25519"
) -> KeyPaths:
    """Make a pair: `out`/fingerprint.key (mode 0600, encrypted under `passphrase` if given), `out`/fingerprint.pub.

    Raises:
        KeyFileError: one of the files exists and `overwrite` is False, or the passphrase is empty.
        StoreError: the files can't be written.
    """
    if passphrase is not None and not passphrase:
        raise KeyFileError("the passphrase is empty", remedy="Give one, or ask for none with --no-passphrase.")
    paths = KeyPaths(private_folder(out) / PRIVATE_NAME, out / PUBLIC_NAME)
    existing = [path for path in (paths.private, paths.public) if path.exists() or path.is_symlink()]
    if existing and not overwrite:
        raise _exists(existing[0])
    private = algorithms.generate_key(algorithm)
    try:
        write_atomic(paths.private, _private_pem(private, passphrase), overwrite=overwrite)
        write_atomic(paths.public, public_pem(private.public_key()), overwrite=overwrite)
    except FileExistsError as error:
        raise _exists(paths.private) from error
    return paths


def _exists(path: Path) -> KeyFileError:
    return KeyFileError(
        f"{path} exists already", remedy="Choose another --out folder: records signed with a lost key can't be renewed."
    )


def _private_pem(private: PrivateKey, passphrase: bytes | None) -> bytes:
    none, form = serialization.NoEncryption(), serialization.PrivateFormat.PKCS8
    if passphrase is None:
        return private.private_bytes(serialization.Encoding.PEM, form, none)
    from store.pkcs8 import encrypted_pem

    return encrypted_pem(private.private_bytes(serialization.Encoding.DER, form, none), passphrase)


def public_pem(public: PublicKey) -> bytes:
    """SubjectPublicKeyInfo PEM, as *.pub files hold it."""
    return public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def is_encrypted(path: Path, limits: Limits = DEFAULT) -> bool:
    """Whether a private key file asks for a passphrase.

    Raises:
        KeyFileError: it can't be read.
    """
    try:
        return _ENCRYPTED in read_limited(path, limits.spec_bytes)
    except OSError as error:
        raise _unreadable(path, error) from error


def load_signer(path: Path, passphrase: bytes | None, limits: Limits = DEFAULT) -> Signer:
    """Read a private key. A passphrase given for a key that needs none is ignored.

    Raises:
        KeyFileError: missing, open to others, of no kind used here, passphrase missing or wrong, or not the other
            half of the .pub file beside it.
    """
    try:
        with open_regular(path) as (descriptor, status):
            if status.st_mode & 0o077:
                mode = status.st_mode & 0o777
                raise KeyFileError(
                    f"the private key {path} is open to other users (mode {mode:04o})", remedy=f"Run: chmod 600 {path}"
                )
            data = read_descriptor(descriptor, status, limits.spec_bytes)
    except OSError as error:
        raise _unreadable(path, error) from error
    signer = Signer(_parse_private(path, data, passphrase))
    _compare_with_public(path, signer)
    return signer


def _compare_with_public(path: Path, signer: Signer) -> None:
    """A damaged private key can be another valid key; the public one beside it tells."""
    beside = path.with_suffix(".pub")
    try:
        other = key_id(load_public(beside))
    except KeyFileError:
        return  # absent, or a file of somebody else's making
    if other != signer.key_id:
        raise KeyFileError(f"{path} and {beside} are not a pair", remedy="Restore the damaged one from a backup.")


def _parse_private(path: Path, data: bytes, passphrase: bytes | None) -> PrivateKey:
    encrypted = _ENCRYPTED in data
    if encrypted and not passphrase:
        raise KeyFileError(
            f"{path} needs a passphrase and none was given",
            remedy="Answer the prompt, or give it by file or environment variable.",
        )
    try:
        key = serialization.load_pem_private_key(data, passphrase if encrypted else None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        if encrypted:
            raise KeyFileError(
                f"wrong passphrase for {path} (or the file is damaged)", remedy="Try the passphrase again."
            ) from error
        if b"BEGIN PUBLIC KEY" in data:
            raise KeyFileError(f"{path} is a public key", remedy=f"Give the private one, {PRIVATE_NAME}.") from error
        raise KeyFileError(f"{path} is not a private key in PKCS#8 PEM form", remedy=_KEYGEN) from error
    if algorithm_of(key) is None:
        raise KeyFileError(f"{path} is neither an Ed25519 nor an ECDSA P-256 key", remedy=_KEYGEN)
    return cast("PrivateKey", key)


def load_public(path: Path, limits: Limits = DEFAULT) -> PublicKey:
    """Read a public key.

    Raises:
        KeyFileError: missing, no public key, or neither Ed25519 nor ECDSA P-256.
    """
    try:
        data = read_limited(path, limits.spec_bytes)
    except OSError as error:
        raise _unreadable(path, error) from error
    if _PRIVATE in data:
        raise KeyFileError(f"{path} is a private key", remedy=f"Give the public one, {PUBLIC_NAME}.")
    try:
        key = serialization.load_pem_public_key(data)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeyFileError(f"{path} is not a public key in PEM form", remedy=_KEYGEN) from error
    if algorithm_of(key) is None:
        raise KeyFileError(f"{path} is neither an Ed25519 nor an ECDSA P-256 key", remedy=_KEYGEN)
    return cast("PublicKey", key)


def _unreadable(path: Path, error: OSError) -> KeyFileError:
    if error.errno == errno.ENOENT:
        return KeyFileError(f"there is no key file {path}", remedy=_KEYGEN)
    return KeyFileError(f"can't read the key file {path}: {error.strerror or error}")


def trust(home: Home, public: Path) -> Path:
    """Copy a public key into the trusted folder, named by its key id. Returns the copy's path.

    Raises:
        KeyFileError: `public` is no public key.
        StoreError: the folder can't be written.
    """
    key = load_public(public)
    target = home.ensure(home.trusted) / f"{key_id(key)[:16]}.pub"
    write_atomic(target, public_pem(key))
    return target


def trusted_keys(home: Home, extra: Sequence[Path] = ()) -> Trust:
    """All keys whose signatures count: those in the trusted folder, and those passed; and which were revoked.

    Raises:
        KeyFileError: one of the files is no public key.
        StoreError: other users can change what is trusted.
        EvidenceError: a revocation in the home folder does not hold.
    """
    for folder in (home.trusted, home.revoked, home.authorities):
        _refuse_open(folder)
    found = [load_public(path) for path in (*sorted(home.trusted.glob("*.pub")), *extra)]
    keys = {key_id(key): key for key in found}
    if not home.revoked.is_dir():
        return Trust(keys)
    from store.revocation import revocations

    return Trust(keys, revocations(home, keys))


def _refuse_open(folder: Path) -> None:
    """Whoever can write to one of these folders decides what is trusted. Raises StoreError."""
    try:
        status = folder.stat()
    except OSError:
        return  # absent, or not ours to look at: then nothing in it counts either
    refuse_writable(folder, status, "700")
    if status.st_mode & 0o011:  # others come in, so that the files' own modes matter
        for path in sorted(folder.iterdir()):
            refuse_writable(path, path.stat(), "600")
