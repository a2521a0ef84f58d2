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


def _export(database: Database, record: Fingerprint, identity: str, out: Path, budget: int | None) -> tuple[str, int]:
    """Draw, record, then write: the export's id and the number of probes."""
    from fingerprint.api.answers import draw
    from fingerprint.remote import byhand
    from store.exposures import ExportRow
    from store.runs import now

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
