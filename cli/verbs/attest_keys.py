"""fingerprint attest revoke and rotate: what becomes of keys."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import options as flags

if TYPE_CHECKING:
    from store.home import Home


@flags.with_common
def revoke(
    public: Annotated[Path, typer.Argument(metavar="PUB", help="The public key to revoke.", show_default=False)],
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it is signed too.")] = "",
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="TIME", show_default=False, help="From when on (ISO 8601, UTC). Default: now."),
    ] = None,
    key: flags.SigningKey = None,
    passphrase_file: flags.PassphraseFile = None,
    *,
    common: flags.Common,
) -> None:
    """Revoke a key: its signatures count only with a timestamp from before.

    Signed by the key itself or by another trusted one, kept in the home's revoked/ folder, and in the ledger.

    \b
    Examples:
      fingerprint attest revoke old.pub --reason "laptop stolen" --since 2026-11-01T00:00:00Z --key new.key
    """
    from cli.access import load_signing_key
    from cli.output import emit
    from fingerprint.errors import KeyFileError
    from store import revocation
    from store.algorithms import key_id
    from store.home import Home
    from store.keys import load_public, trusted_keys

    wanted = common.targets()
    home = Home.default()
    signer = load_signing_key(home, key, passphrase_file, even_revoked=True)
    identity = key_id(load_public(public))
    if signer.key_id not in trusted_keys(home):
        raise KeyFileError(
            f"the signing key {signer.key_id[:16]} is not trusted here, so its revocations don't count",
            remedy=f"Put its public half in {home.trusted}.",
        )
    time = _time(since)
    envelope = revocation.event("revoke", identity, time, [signer], reason=reason)
    path = revocation.keep(home, identity, envelope)
    _record(home, common.db, identity, "revoke", envelope)
    said = {"key_id": identity, "time": time, "reason": reason, "path": str(path), "signed_by": signer.key_id}
    emit(wanted, {"revoked": said}, lambda page: f"{identity} is revoked from {time} on ({path})\n")


@flags.with_common
def rotate(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the new pair.", show_default=False)],
    no_passphrase: Annotated[
        bool, typer.Option("--no-passphrase", help="Leave the new private key unencrypted (mode 0600).")
    ] = False,
    new_passphrase_file: Annotated[
        Path | None, typer.Option("--new-passphrase-file", metavar="FILE", help="File with the new key's passphrase.")
    ] = None,
    kind: flags.KeyKind = flags.KeyType.ed25519,
    key: flags.SigningKey = None,
    passphrase_file: flags.PassphraseFile = None,
    *,
    common: flags.Common,
) -> None:
    """Make a new key that takes over from the present one; both sign that.

    What the old key signed goes on to hold. If it was stolen, revoke it too.

    \b
    Examples:
      fingerprint attest rotate --out keys-2027
      fingerprint attest rotate --out keys-2027 --type ecdsa-p256 --no-passphrase
    """
    from cli.access import load_signing_key
    from cli.output import emit
    from cli.terminal import Terminal
    from cli.verbs.keygen import new_passphrase
    from store import revocation
    from store.files import write_atomic
    from store.home import Home
    from store.keys import generate, load_signer, trust
    from store.ledger import now

    wanted = common.targets()
    home = Home.default()
    old = load_signing_key(home, key, passphrase_file)
    secret = None if no_passphrase else new_passphrase(new_passphrase_file)
    paths = generate(out, secret, algorithm=kind.value)
    new = load_signer(paths.private, secret)
    envelope = revocation.event("rotate", old.key_id, now(), [old, new], successor=new.key_id)
    write_atomic(out / "rotation.json", envelope)
    trust(home, paths.public)
    _record(home, common.db, old.key_id, "rotate", envelope)
    with Terminal(quiet=common.quiet) as terminal:
        terminal.note(f"Verbs sign with the key in {home.keys} unless --key names another: put the new pair there.")
    said = {"key_id": old.key_id, "successor": new.key_id, "private": str(paths.private), "public": str(paths.public)}
    emit(wanted, {"rotated": said}, lambda page: f"{old.key_id[:16]} -> {new.key_id}\n{paths.private}\n")


def _time(since: str | None) -> str:
    """ISO 8601 in UTC. Raises UsageError."""
    from datetime import UTC, datetime

    from fingerprint.errors import UsageError
    from store.ledger import now

    if since is None:
        return now()
    try:
        time = datetime.fromisoformat(since)
    except ValueError as error:
        raise UsageError(f"{since!r} is no time", remedy="For example: 2026-11-23T12:00:00Z") from error
    utc = (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    return utc.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _record(home: Home, db: Path | None, key_id: str, action: str, envelope: bytes | None) -> None:
    """An entry in the ledger."""
    from cli.access import open_writable

    with open_writable(home, db) as database:
        database.add_key_event(key_id, action, envelope)
