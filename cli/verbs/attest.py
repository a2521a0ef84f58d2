"""fingerprint attest: signed statements: who signed what, and when."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import options as flags
from cli.verbs.attest_keys import revoke, rotate
from cli.verbs.attest_time import timestamp
from cli.verbs.claims import challenge, reproduce

if TYPE_CHECKING:
    from cli.attesting import Attested
    from store.database import Database
    from store.keys import Keys, Signer

HELP = """Check, sign, timestamp and revoke statements; settle disputes.

\b
Examples:
  fingerprint attest verify my-model.fingerprint --key publisher.pub
  fingerprint attest timestamp my-model --tsa https://freetsa.org/tsr
"""
app = typer.Typer(rich_markup_mode=None, add_completion=False, no_args_is_help=True)
What = Annotated[
    str, typer.Argument(metavar="FILE|NAME|ID|RUN", help="A file, or something in the database.", show_default=False)
]
Authorities = Annotated[
    list[Path] | None,
    typer.Option("--ca", metavar="PEM", show_default=False, help="Root certificate of a timestamp authority."),
]


@app.callback(help=HELP)
def attest() -> None:
    """The verbs of attestations."""


@app.command(no_args_is_help=True)
@flags.with_common
def verify(
    what: What,
    threshold: Annotated[int, typer.Option("--threshold", metavar="N", min=1, help="Trusted signers needed.")] = 1,
    stamp: Annotated[
        list[Path] | None,
        typer.Option(
            "--timestamp", metavar="TSR", show_default=False, help="A timestamp. FILE.tsr is found by itself."
        ),
    ] = None,
    ca: Authorities = None,
    key: flags.TrustedKeys = None,
    *,
    common: flags.Common,
) -> None:
    """Check the signatures and timestamps of a statement; exit 4 if one does not hold.

    FILE: a signed envelope, an exported fingerprint, a checkpoint, or a folder that `probes reveal` wrote. Only keys
    given with --key or in the home's trusted/ folder count; only authorities given with --ca or in authorities/.

    \b
    Examples:
      fingerprint attest verify my-model.fingerprint --key publisher.pub
      fingerprint attest verify my-model --threshold 2
      fingerprint attest verify statement.json --timestamp statement.json.tsr --ca tsa-root.pem
      fingerprint attest verify revealed/
    """
    from cli import attesting
    from cli.output import emit
    from store import timestamps
    from store.home import Home
    from store.keys import trusted_keys

    wanted = common.targets()
    home = Home.default()
    keys = trusted_keys(home, key or ()).at_least(threshold)
    authorities = [*timestamps.trusted(home.authorities), *timestamps.certificates(ca or ())]
    shown: dict[str, object] = {}
    if Path(what).is_dir():
        from store.reveals import STATEMENT, check_folder

        revealed = check_folder(Path(what), keys)
        found = [attesting.from_file(Path(what) / STATEMENT, stamp or ())]
        shown = {"proven": [probe.index for probe in revealed.probes], "of": revealed.count, "to": revealed.audience}
    else:
        found = _find(what, stamp, common.db)
    told = [attesting.account(one, keys, authorities) | ({"revealed": shown} if shown else {}) for one in found]
    emit(wanted, {"attestations": told}, lambda page: "\n".join(map(attesting.lines, told)))


@app.command(no_args_is_help=True)
@flags.with_common
def show(
    what: What,
    *,
    common: flags.Common,
) -> None:
    """Show what a statement says and who claims to have signed it; nothing is checked.

    \b
    Examples:
      fingerprint attest show statement.json
      fingerprint attest show my-model -f json
    """
    from cli import attesting
    from cli.output import emit

    wanted = common.targets()
    told = [attesting.describe(one) for one in _find(what, None, common.db)]
    emit(wanted, {"attestations": told}, lambda page: "\n".join(map(attesting.lines, told)))


@app.command(no_args_is_help=True)
@flags.with_common
def sign(
    what: What,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", show_default=False, help="File to write; for a FILE.")
    ] = None,
    key: flags.SigningKey = None,
    passphrase_file: flags.PassphraseFile = None,
    *,
    common: flags.Common,
) -> None:
    """Add a signature to a statement in a file, or to a fingerprint or run that is stored.

    What has one signature more has another digest: a fingerprint that is signed again has a new id, and is its name's
    next version. That is the way on when its key was revoked: sign it with the new one.

    \b
    Examples:
      fingerprint attest sign statement.json --out both.json --key second.key
      fingerprint attest sign 20261123T120000-0a1b2c3d
      fingerprint attest sign my-model --key keys-2027/fingerprint.key
    """
    from cli.access import load_signing_key, open_writable
    from cli.output import emit
    from fingerprint.errors import UsageError
    from store.home import Home
    from store.keys import trusted_keys

    wanted = common.targets()
    home = Home.default()
    signer = load_signing_key(home, key, passphrase_file)
    if Path(what).is_file():
        if out is None or out.exists():
            raise UsageError("--out must name a new file" if out is None else f"{out} exists already")
        sha256 = [_cosign(Path(what), out, signer)]
    else:
        with open_writable(home, common.db) as database:
            sha256 = _sign_stored(database, what, signer, trusted_keys(home))
    emit(wanted, {"signed": sha256, "by": signer.key_id}, lambda page: "".join(f"{s}\n" for s in sha256))


def _sign_stored(database: Database, what: str, signer: Signer, keys: Keys) -> list[str]:
    """Sign a fingerprint or run in the database; answers the new envelopes' digests. Raises NotFound."""
    from fingerprint.errors import NotFound
    from store.cosigning import cosign

    try:
        row = database.find(what)
    except NotFound as missing:
        try:
            return database.sign_run(what, [signer])
        except NotFound:
            raise missing from None
    return [cosign(database, row, signer, keys).id]


def _cosign(path: Path, out: Path, signer: Signer) -> str:
    """Write the file with one signature more; answers the new envelope's digest."""
    import hashlib

    from cli.attesting import from_file
    from fingerprint.errors import UsageError
    from store import dsse, exchange
    from store.files import write_atomic

    data, old = path.read_bytes(), from_file(path).envelope
    try:
        new = dsse.add_signature(old, signer)
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from error
    write_atomic(out, new if data.removesuffix(b"\n") == old else exchange.with_envelope(data, new))
    return hashlib.sha256(new).hexdigest()


def _find(what: str, stamp: list[Path] | None, db: Path | None) -> list[Attested]:
    from cli import attesting
    from cli.access import open_readonly
    from store.home import Home

    if Path(what).exists():
        return [attesting.from_file(Path(what), stamp or ())]
    with open_readonly(Home.default(), db) as database:
        return attesting.from_database(database, what)


for verb in (timestamp, revoke, rotate, reproduce, challenge):
    app.command(no_args_is_help=True)(verb)
