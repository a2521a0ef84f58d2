"""fingerprint store: what is in the database."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import options as flags
from cli.verbs.store_care import add_to

if TYPE_CHECKING:
    from collections.abc import Sequence

    from store.database import Database
    from store.keys import Keys
    from store.problems import Problem
    from store.rows import FingerprintRow

HELP = """List, show, check, export, import and care for what is stored.

\b
Examples:
  fingerprint store list
  fingerprint store check
  fingerprint store export my-model --out my-model.fingerprint
"""
Which = Annotated[str, typer.Argument(metavar="NAME|ID", help="A name, an id or the start of one.", show_default=False)]
app = typer.Typer(rich_markup_mode=None, add_completion=False, no_args_is_help=True)


@app.callback(help=HELP)
def store() -> None:
    """The verbs of the store."""


@app.command("list")
@flags.with_common
def list_(
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=0, help="Show N at most; 0: all.")] = 100,
    *,
    common: flags.Common,
) -> None:
    """List every version of every fingerprint, by name.

    \b
    Examples:
      fingerprint store list
      fingerprint store list --limit 0
      fingerprint store list --db other.db -f json
    """
    from cli.access import open_readonly
    from cli.output import emit
    from cli.terminal import Terminal
    from store.home import Home

    wanted = common.targets()
    with open_readonly(Home.default(), common.db) as database, Terminal(quiet=common.quiet) as terminal:
        rows, total = database.page(limit) if limit else database.list(), database.count()
        if len(rows) < total:
            terminal.note(f"These are {len(rows)} of {total}: --limit 0 lists all.")
    emit(wanted, {"fingerprints": [vars(row) for row in rows], "total": total}, lambda page: _list(rows))


@app.command(no_args_is_help=True)
@flags.with_common
def show(
    which: Which,
    key: flags.TrustedKeys = None,
    *,
    common: flags.Common,
) -> None:
    """Show a fingerprint's public part, its signature checked.

    \b
    Examples:
      fingerprint store show my-model
      fingerprint store show 3fa9c1d2 -f json
    """
    from cli.access import open_readonly
    from cli.output import emit
    from cli.storing import describe, table
    from store.home import Home
    from store.keys import trusted_keys

    wanted = common.targets()
    home = Home.default()
    with open_readonly(home, common.db) as database:
        row = database.find(which)
        manifest = database.manifest(row, trusted_keys(home, key or ()))
        exposed = database.exposed(manifest.probes.merkle_root)
    shown = {
        **describe(row, manifest),
        "exposed": {place: sorted(probes) for place, probes in exposed.items()},
        "manifest": manifest.model_dump(mode="json"),
    }
    emit(wanted, {"fingerprint": shown}, lambda page: table(row, manifest, page, exposed))


@app.command()
@flags.with_common
def check(
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option("--checkpoint", metavar="FILE", show_default=False, help="A signed checkpoint. Repeatable."),
    ] = None,
    key: flags.TrustedKeys = None,
    *,
    common: flags.Common,
) -> None:
    """Check every stored byte; exit 4 if one does not hold.

    Signatures, digests, encrypted probes, runs, results, and the ledger that commits to all of them. With a checkpoint
    that was kept elsewhere, also whether this is an older copy, or one whose history was rewritten.

    \b
    Examples:
      fingerprint store check
      fingerprint store check --db backup.db --key publisher.pub
      fingerprint store check --checkpoint 2026-11-23.checkpoint.json
    """
    from cli.access import database_path, open_readonly
    from cli.exits import EVIDENCE
    from cli.output import emit
    from fingerprint.errors import NotFound
    from store.home import Home
    from store.keys import trusted_keys

    wanted = common.targets()
    home = Home.default()
    path = database_path(home, common.db)
    if not path.exists():
        raise NotFound(f"there is no database {path}", remedy="`fingerprint create` makes one.")
    with open_readonly(home, common.db) as database:
        keys = trusted_keys(home, key or ())
        problems = [*database.check(keys), *_compared(database, checkpoint or (), keys)]
        count = database.count() if not _errors(problems) else None
    document = {"ok": not _errors(problems), "problems": [vars(problem) for problem in problems]}
    emit(wanted, document, lambda page: _problems(problems, path, count))
    raise typer.Exit(EVIDENCE if _errors(problems) else 0)


@app.command(no_args_is_help=True)
@flags.with_common
def export(
    which: Which,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="File to write.", show_default=False)],
    include_secrets: Annotated[
        bool, typer.Option("--include-secrets", help="Put in the data key, so that the reader can verify with it.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that exists.")] = False,
    key: flags.TrustedKeys = None,
    *,
    common: flags.Common,
) -> None:
    """Write a fingerprint to one file, its probes encrypted.

    \b
    Examples:
      fingerprint store export my-model --out my-model.fingerprint
      fingerprint store export my-model --include-secrets --out for-the-auditor.fingerprint
    """
    from cli.access import open_readonly
    from cli.output import emit
    from cli.terminal import Terminal
    from fingerprint.errors import UsageError
    from fingerprint.report.text import printable
    from store.home import Home
    from store.keys import trusted_keys

    wanted = common.targets()
    home = Home.default()
    if out.exists() and not overwrite:
        raise UsageError(f"{out} exists already", remedy="Give another --out, or --overwrite.")
    with open_readonly(home, common.db) as database, Terminal(quiet=common.quiet) as terminal:
        row = database.find(which)
        database.export(row, out, include_secrets, trusted_keys(home, key or ()))
        terminal.note(
            "The file carries the data key: whoever has it can read the probes."
            if include_secrets
            else "The file does not carry the data key: elsewhere it can be shown, but not verified with."
        )
    shown = {"id": row.id, "name": row.name, "path": str(out), "includes_secrets": include_secrets}
    emit(wanted, {"exported": shown}, lambda page: f"{printable(row.name)} ({row.id[:16]}) -> {printable(str(out))}\n")


@app.command("import", no_args_is_help=True)
@flags.with_common
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An exported fingerprint.", show_default=False)],
    replace: Annotated[bool, typer.Option("--replace", help="Make this the next version of a name in use.")] = False,
    key: flags.TrustedKeys = None,
    *,
    common: flags.Common,
) -> None:
    """Check an exported file and store what it holds.

    The signer must be trusted, or given with --key.

    \b
    Examples:
      fingerprint store import my-model.fingerprint
      fingerprint store import my-model.fingerprint --key publisher.pub
    """
    from cli.access import open_writable
    from cli.output import emit
    from cli.terminal import Terminal
    from store import exchange
    from store.home import Home
    from store.keys import trusted_keys

    wanted = common.targets()
    home = Home.default()
    sealed = exchange.read(file, trusted_keys(home, key or ()))  # before a database is made for nothing
    with open_writable(home, common.db) as database, Terminal(quiet=common.quiet) as terminal:
        database.data_keys.unlock()
        row = database.add(sealed, replace=replace, kind="import", source=str(file))
        if not set(row.key_ids) & trusted_keys(home).keys():
            terminal.note(f"The signer is not trusted here: later verbs need --key too, or a copy in {home.trusted}.")
    emit(wanted, {"fingerprint": vars(row)}, lambda page: _list([row]))


def _compared(database: Database, files: Sequence[Path], keys: Keys) -> list[Problem]:
    """What checkpoints say of the ledger. Raises StoreError: one can't be read."""
    from fingerprint.errors import EvidenceError
    from store import checkpoints
    from store.problems import failure

    found = []
    for file in files:
        try:
            database.compare_checkpoint(checkpoints.read(file, keys))
        except EvidenceError as error:
            found.append(failure(f"checkpoint {file}", error))
    return found


def _list(rows: Sequence[FingerprintRow]) -> str:
    from cli.output import columns
    from fingerprint.report.text import printable

    if not rows:
        return "There is no fingerprint yet: make one with `fingerprint create MODEL --name NAME`.\n"
    table: list[tuple[str, ...]] = [("id", "name", "version", "created", "probes", "owner", "")]
    for row in rows:
        kind = "" if row.evidential else "non-evidential"
        name, made = printable(row.name), row.created[:16].replace("T", " ")
        table.append((row.id[:16], name, str(row.version), made, str(row.probes), row.owner_sha256[:16], kind))
    return columns(table)


def _errors(problems: Sequence[Problem]) -> list[Any]:
    return [problem for problem in problems if problem.kind == "error"]


def _problems(problems: Sequence[Problem], path: Path, count: int | None) -> str:
    from fingerprint.report.text import plural, printable
    from store.vouching import COUNTS_NO_LONGER

    lines = [f"{p.kind}: {printable(p.subject)}: {printable(p.message)}\n" for p in problems]
    lines += [f"{printable(remedy)}\n" for remedy in dict.fromkeys(p.remedy for p in problems if p.remedy)]
    gone = sum(COUNTS_NO_LONGER in p.message for p in problems)
    if count is not None and gone:
        said = f"what is stored of {plural(count, 'fingerprint')} is what was written"
        lines.append(f"{printable(str(path))}: {said}; {plural(gone, 'statement')} of a revoked key count no longer.\n")
    elif count is not None:
        lines.append(f"{printable(str(path))}: all evidence of {plural(count, 'fingerprint')} holds.\n")
    return "".join(lines)


add_to(app)
