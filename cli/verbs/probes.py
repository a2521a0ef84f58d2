"""fingerprint probes: give probes away, to be run by hand on a phone, an NPU or any other device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import options as flags

if TYPE_CHECKING:
    from fingerprint.record import Fingerprint
    from store.database import Database

HELP = """Give probes away, to be run by hand on a device.

\b
Examples:
  fingerprint probes export my-model --out for-the-phone/
  fingerprint verify --responses answers.csv
"""
app = typer.Typer(rich_markup_mode=None, add_completion=False, no_args_is_help=True)


@app.callback(help=HELP)
def probes() -> None:
    """The verbs of probes."""


@app.command(no_args_is_help=True)
@flags.with_common
def export(
    which: Annotated[str, typer.Argument(metavar="NAME|ID", help="A fingerprint.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="New folder to write to.", show_default=False)],
    budget: Annotated[
        int | None, typer.Option("--budget", metavar="N", min=1, help="Probes at most. Default: all.")
    ] = None,
    key: flags.TrustedKeys = None,
    *,
    common: flags.Common,
) -> None:
    """Write probes as PNG files and one .npz, in a new random order.

    The folder holds no targets and no answers of the owner. The order is kept in the database, so that
    `fingerprint verify --responses` can match the answers. Exported probes count as exposed.

    \b
    Examples:
      fingerprint probes export my-model --out for-the-phone/
      fingerprint probes export my-model --out small/ --budget 50
    """
    from cli.access import database_path, open_writable
    from cli.output import emit
    from cli.terminal import Terminal
    from fingerprint.errors import NotFound
    from fingerprint.report.text import printable
    from store.home import Home
    from store.keys import trusted_keys

    wanted = common.targets()
    home = Home.default()
    path = database_path(home, common.db)
    if not path.exists():
        raise NotFound(f"there is no database {path}", remedy="`fingerprint create` makes one.")
    with open_writable(home, common.db) as database, Terminal(quiet=common.quiet) as terminal:
        row = database.find(which)
        record = database.load(row, trusted_keys(home, key or ()))
        identity, count = _export(database, record, row.id, out, budget)
        terminal.note(f"{count} of {row.probes} probes count as exposed from now on.")
    shown = {"id": identity, "fingerprint": {"id": row.id, "name": row.name}, "path": str(out), "probes": count}
    emit(
        wanted,
        {"exported": shown},
        lambda page: f"{count} probes of {printable(row.name)} -> {printable(str(out))} (export {identity[:16]})\n",
    )


@app.command(no_args_is_help=True)
@flags.with_common
def reveal(
    which: Annotated[str, typer.Argument(metavar="NAME|ID", help="A fingerprint.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="New folder to write to.", show_default=False)],
    to: Annotated[str, typer.Option("--to", metavar="TEXT", help="Who gets to see them; it is signed too.")],
    probes: Annotated[
        str | None, typer.Option("--probes", metavar="I,J,...", show_default=False, help="Which ones, from 0 on.")
    ] = None,
    count: Annotated[
        int | None, typer.Option("--count", metavar="N", min=1, show_default=False, help="So many, drawn at random.")
    ] = None,
    key: flags.SigningKey = None,
    passphrase_file: flags.PassphraseFile = None,
    *,
    common: flags.Common,
) -> None:
    """Show probes to a third party, with proofs that they are in the signed fingerprint.

    DIR holds their images, a signed statement with a salt and a Merkle proof for each, and the fingerprint's own signed
    statement. What is revealed is burnt: later verifications avoid it. `fingerprint attest verify DIR` checks it.

    \b
    Examples:
      fingerprint probes reveal my-model --count 5 --to "District Court, case 12/345" --out revealed/
      fingerprint probes reveal my-model --probes 0,17,99 --to auditor --out revealed/
    """
    from cli.access import load_signing_key
    from cli.output import emit
    from cli.terminal import Terminal
    from cli.verbs.store_care import existing
    from fingerprint.report.text import printable
    from store.home import Home
    from store.keys import trusted_keys

    wanted = common.targets()
    home = Home.default()
    signer = load_signing_key(home, key, passphrase_file)
    with existing(home, common.db) as database, Terminal(quiet=common.quiet) as terminal:
        row = database.find(which)
        record = database.load(row, trusted_keys(home).plus(signer.key_id, signer.public))
        chosen = _chosen(database, record, probes, count)
        sha256 = database.reveal(record, chosen, to, [signer], out)
        terminal.note(f"{len(chosen)} of {row.probes} probes are burnt from now on.")
    shown = {"statement": sha256, "fingerprint": {"id": row.id, "name": row.name}, "probes": chosen, "path": str(out)}
    emit(wanted, {"revealed": shown}, lambda page: f"{len(chosen)} probes of {printable(row.name)} -> {out}\n")


def _chosen(database: Database, record: Fingerprint, probes: str | None, count: int | None) -> list[int]:
    """The probes asked for, or `count` drawn at random from those that are not burnt yet. Raises UsageError."""
    import secrets

    from fingerprint.errors import UsageError
    from store.reveals import burnt

    if (probes is None) == (count is None):
        raise UsageError("give either --probes or --count")
    if probes is not None:
        try:
            return sorted({int(text) for text in probes.split(",")})
        except ValueError as error:
            raise UsageError(f"--probes {probes!r} is no list of numbers", remedy="For example: 0,17,99") from error
    gone = burnt(database.exposed(record.manifest.probes.merkle_root))
    left = [i for i in range(record.manifest.probes.count) if i not in gone]
    if count is None or count > len(left):
        raise UsageError(f"{len(left)} probes are not burnt yet")
    return sorted(secrets.SystemRandom().sample(left, count))


def _export(database: Database, record: Fingerprint, identity: str, out: Path, budget: int | None) -> tuple[str, int]:
    """Draw, record, then write: the export's id and the number of probes."""
    from fingerprint.api.answers import draw
    from fingerprint.remote import byhand
    from store.exposures import ExportRow
    from store.ledger import now

    byhand.require_free(out)
    root = record.manifest.probes.merkle_root
    exposed = frozenset[int]().union(*database.exposed(root).values())
    drawn = draw(record, min(budget or record.manifest.probes.count, record.manifest.probes.count), exposed)
    order = byhand.shuffled(drawn.index.tolist())
    images = byhand.images_of(record, order)
    made = ExportRow(byhand.export_id(images), root, identity, record.manifest.name, tuple(order), now())
    database.record_export(made)  # first: what was written and not recorded could never be matched
    byhand.write(out, record, order)
    return made.id, len(order)
