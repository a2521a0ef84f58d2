"""fingerprint keygen: make a signing key pair."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli import options as flags

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
@flags.with_common
def keygen(
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Folder for the pair. Default: keys/ in the home folder."),
    ] = None,
    no_passphrase: Annotated[
        bool, typer.Option("--no-passphrase", help="Leave the private key unencrypted (mode 0600).")
    ] = False,
    passphrase_file: flags.PassphraseFile = None,
    kind: flags.KeyKind = flags.KeyType.ed25519,
    *,
    common: flags.Common,
) -> None:
    """Make a signing key pair, and trust its public half.

    DIR/fingerprint.key (mode 0600) signs; DIR/fingerprint.pub is for those who verify.

    \b
    Examples:
      fingerprint keygen
      fingerprint keygen --out ci-keys --passphrase-file passphrase.txt
      fingerprint keygen --no-passphrase
      fingerprint keygen --type ecdsa-p256 --out keys-for-the-hsm
    """
    from cli.access import open_writable
    from cli.output import emit
    from store.algorithms import key_id
    from store.home import Home
    from store.keys import generate, load_public, trust

    wanted = common.targets()
    home = Home.default()
    passphrase = None if no_passphrase else new_passphrase(passphrase_file)
    paths = generate(home.ensure(home.keys) if out is None else out, passphrase, algorithm=kind.value)
    trusted = trust(home, paths.public)
    with open_writable(home, common.db) as database:
        database.add_key_event(key_id(load_public(paths.public)), "generate")
    made = {
        "id": key_id(load_public(paths.public)),
        "private": str(paths.private.absolute()),
        "public": str(paths.public.absolute()),
        "trusted": str(trusted),
        "encrypted": passphrase is not None,
    }
    emit(wanted, {"key": made}, lambda page: _table(made))


def new_passphrase(file: Path | None) -> bytes:
    """The passphrase of a key that is being made, asked for twice. Raises KeyFileError: none was given."""
    from cli.access import read_passphrase
    from fingerprint.errors import KeyFileError

    found = read_passphrase(file, "Passphrase for the new key: ", confirm=True)
    if found is None:
        raise KeyFileError(
            "there is no terminal to ask for a passphrase on",
            remedy="Give --passphrase-file FILE or FINGERPRINT_PASSPHRASE, or --no-passphrase for an unencrypted key.",
        )
    return found


def _table(made: dict[str, object]) -> str:
    how = "encrypted with the passphrase" if made["encrypted"] else "NOT encrypted: whoever reads it can sign"
    return (
        f"key id       {made['id']}\n"
        f"private key  {made['private']}  ({how})\n"
        f"public key   {made['public']}  (give it to those who verify)\n"
        f"trusted as   {made['trusted']}\n"
    )
