"""Opening what the verbs need: database, keys, passphrases, fingerprints to compare with."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fingerprint.errors import DatabaseOutdated, DatabaseReadOnly, KeyFileError, NotFound, StoreError, UsageError
from fingerprint.frozen import dataclass
from store.home import Home

if TYPE_CHECKING:
    from fingerprint.record import Fingerprint
    from store.data_keys import Ask
    from store.database import Database
    from store.keys import Keys, Signer
    from store.locks import Lock, Secret
    from store.rows import FingerprintRow

PASSPHRASE = "FINGERPRINT_PASSPHRASE"  # noqa: S105  (the variable's name)
STORE_PASSPHRASE = "FINGERPRINT_STORE_PASSPHRASE"  # noqa: S105  (and ..._FILE)
STORE_KEY_FILE = "FINGERPRINT_STORE_KEY_FILE"
PASSPHRASE_BYTES = 64 * 1024


def database_path(home: Home, db: Path | None) -> Path:
    """`--db`, or the database of the home."""
    return db if db is not None else home.database


def open_writable(home: Home, db: Path | None, ask: Ask | None = None) -> Database:
    """The database, made where there is none. `ask` opens the lock of its data keys (default: `open_lock`).

    Raises:
        StoreError, EvidenceError: as `Database.open`.
    """
    from store.database import Database

    return Database.open(database_path(home, db), home, ask=ask or open_lock)


def open_readonly(home: Home, db: Path | None, ask: Ask | None = None) -> Database:
    """The database for reading; one that does not exist reads as empty, one of an older release is upgraded first.

    Raises:
        NotFound: `db` was named and does not exist.
        DatabaseOutdated: it is of an older release, and can't be written.
    """
    from store.database import Database

    if db is not None and not db.exists():
        raise NotFound(f"there is no database {db}", remedy="`fingerprint create` makes one.")
    path = database_path(home, db)
    try:
        return Database.open(path, home, readonly=True, ask=ask or open_lock)
    except DatabaseOutdated as error:
        try:
            Database.open(path, home).close()
        except DatabaseReadOnly:
            raise error from None
        return Database.open(path, home, readonly=True, ask=ask or open_lock)


def open_for_results(home: Home, db: Path | None, *, create: bool, ask: Ask | None = None) -> Database:
    """The database for reading and for recording a run; for reading only where it can't be written.

    One that does not exist is made only where `create` says so: without `--against FILE` there is nothing to find.
    """
    if not create and not database_path(home, db).exists():
        return open_readonly(home, db, ask)
    try:
        return open_writable(home, db, ask)
    except DatabaseReadOnly:
        return open_readonly(home, db, ask)


def signing_key_path(home: Home, given: Path | None) -> Path:
    """`--key`, or the home's own.

    Raises:
        KeyFileError: there is none.
    """
    from store.keys import PRIVATE_NAME

    path = given if given is not None else home.keys / PRIVATE_NAME
    if not path.exists():
        raise KeyFileError(
            f"there is no signing key {path}", remedy="Make one with: fingerprint keygen (or name one with --key FILE)."
        )
    return path


def load_signing_key(
    home: Home, given: Path | None, passphrase_file: Path | None, *, even_revoked: bool = False
) -> Signer:
    """The signer, its passphrase asked for where it needs one.

    Raises:
        KeyFileError: no key, the passphrase is missing or wrong, or it was revoked here.
    """
    from store.keys import is_encrypted, load_signer

    path = signing_key_path(home, given)
    secret = read_passphrase(passphrase_file, f"Passphrase for {path}: ") if is_encrypted(path) else None
    signer = load_signer(path, secret)
    if not even_revoked and _is_revoked(home, signer):
        raise KeyFileError(
            f"the signing key {path} ({signer.key_id[:16]}) was revoked: what it signs counts for nobody",
            remedy=f"Name the new one with --key, or put it in place of {home.keys / 'fingerprint.key'}.",
        )
    return signer


def _is_revoked(home: Home, signer: Signer) -> bool:
    from store.keys import trusted_keys

    return home.revoked.is_dir() and signer.key_id in trusted_keys(home).revoked


def read_passphrase(file: Path | None, prompt: str, *, confirm: bool = False) -> bytes | None:
    """From `file`, else FINGERPRINT_PASSPHRASE, else a prompt on a terminal, else None.

    Raises:
        KeyFileError: the file can't be read, or the two answers differ.
    """
    if file is not None:
        return _from_file(file)
    if PASSPHRASE in os.environ:
        return os.fsencode(os.environ[PASSPHRASE])
    return _prompt(prompt, confirm=confirm)


def quiet_signer(home: Home) -> Signer | None:
    """The home's own signer if nobody has to be asked for it and it was not revoked, else None.

    Runs are signed where that is possible.

    Raises:
        KeyFileError: there is one, and it can't be used.
    """
    from store.keys import PRIVATE_NAME, is_encrypted, load_signer

    path = home.keys / PRIVATE_NAME
    if not path.is_file():
        return None
    secret = os.fsencode(os.environ[PASSPHRASE]) if PASSPHRASE in os.environ else None
    if secret is None and is_encrypted(path):
        return None
    signer = load_signer(path, secret)
    return None if _is_revoked(home, signer) else signer


def open_lock(lock: Lock) -> Secret | None:
    """What opens the lock of the data keys: from the environment, else a prompt on a terminal, else None.

    Raises:
        KeyFileError: a file that the environment names can't be read.
    """
    found = opened_silently(lock)
    if found is not None or lock.kind == "key-file":
        return found
    from store.locks import Secret

    answer = _prompt("Passphrase for the probes: ")
    return None if answer is None else Secret("passphrase", answer)


def opened_silently(lock: Lock) -> Secret | None:
    """As `open_lock`, but nobody is asked."""
    from store.locks import Secret

    if lock.kind == "key-file":
        named = os.environ.get(STORE_KEY_FILE)
        return None if not named else Secret("key-file", _from_file(Path(named), whole=True))
    if STORE_PASSPHRASE in os.environ:
        return Secret("passphrase", os.fsencode(os.environ[STORE_PASSPHRASE]))
    if os.environ.get(STORE_PASSPHRASE + "_FILE"):
        return Secret("passphrase", _from_file(Path(os.environ[STORE_PASSPHRASE + "_FILE"])))
    return None


def _prompt(prompt: str, *, confirm: bool = False) -> bytes | None:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None
    from getpass import getpass

    answer = getpass(prompt, stream=sys.stderr)
    if confirm and getpass("The same again: ", stream=sys.stderr) != answer:
        raise KeyFileError("the two passphrases differ", remedy="Try again.")
    return answer.encode()


def new_secret(passphrase_file: Path | None, key_file: Path | None) -> Secret:
    """What the probes are to be locked with.

    Raises:
        KeyFileError: nothing was given, or it can't be read.
    """
    from store.locks import Secret

    if key_file is not None:
        return Secret("key-file", _from_file(key_file, whole=True))
    if passphrase_file is not None:
        return Secret("passphrase", _from_file(passphrase_file))
    answer = _prompt("New passphrase for the probes: ", confirm=True)
    if answer is None:
        raise KeyFileError(
            "there is no terminal to ask for a passphrase on", remedy="Give --new-passphrase-file or --key-file."
        )
    return Secret("passphrase", answer)


def _from_file(file: Path, *, whole: bool = False) -> bytes:
    from store.files import read_limited

    try:
        data = read_limited(file, PASSPHRASE_BYTES)
    except OSError as error:
        raise KeyFileError(f"can't read the passphrase file {file}: {error.strerror or error}") from error
    return data if whole else data.removesuffix(b"\n").removesuffix(b"\r")


@dataclass(frozen=True)
class Selection:
    """Fingerprints to compare with, and those that were meant but can't be opened here (with the reason)."""

    fingerprints: tuple[Fingerprint, ...]
    closed: tuple[tuple[FingerprintRow, str], ...] = ()


def select(database: Database, against: Sequence[str] | None, keys: Keys) -> Selection:
    """What `--against` names, or all of the database (latest versions; those whose data key is not here are left out).

    Raises:
        NotFound: a name that is nothing.
        UsageError: there is nothing to compare with.
        EvidenceError: a record does not hold, or its signer is not trusted.
        StoreError: none of them can be opened here.
    """
    if against:
        chosen = {f.id: f for f in (_named(database, text, keys) for text in against)}
        return Selection(tuple(chosen.values()))
    opened: list[Fingerprint] = []
    closed: list[tuple[FingerprintRow, str]] = []
    for row in database.latest():
        if not database.has_data_key(row):
            database.manifest(row, keys)  # its signature must hold all the same
            closed.append((row, "Its data key is not on this machine, so its probes can't be asked."))
        else:
            opened.append(database.load(row, keys))
    if not opened and closed:
        raise StoreError(
            "the data key of no fingerprint in the database is on this machine",
            remedy="Import files that were made with: fingerprint store export NAME --include-secrets --out FILE",
        )
    if not opened:
        raise UsageError(
            "there is no fingerprint to compare with", remedy="Make one with: fingerprint create MODEL --name NAME"
        )
    return Selection(tuple(opened), tuple(closed))


def _named(database: Database, text: str, keys: Keys) -> Fingerprint:
    try:
        row = database.find(text)
    except NotFound:
        if not Path(text).is_file():
            raise
    else:
        return database.load(row, keys)
    from store import exchange
    from store.sealing import open_tensors

    sealed = exchange.read(Path(text), keys)
    tensors = sealed.manifest.tensors
    data_key = sealed.data_key or (database.data_keys.read(tensors.sha256) if tensors else None)
    return open_tensors(sealed.manifest, sealed.id, sealed.tensors, data_key)


def data_key_path(home: Home, tensors_sha256: str) -> Path:
    """Where the key lies that opens a record's probes."""
    from store.data_keys import DataKeys

    return DataKeys(home.secrets).path(tensors_sha256)
