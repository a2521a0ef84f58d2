"""The verbs of the store that take care of a whole database: merge, rebuild, backup, checkpoint, lock, browse."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import options as flags

if TYPE_CHECKING:
    from store.database import Database
    from store.home import Home

Which = Annotated[str, typer.Argument(metavar="NAME|ID", help="A name, an id or the start of one.", show_default=False)]


def add_to(app: typer.Typer) -> None:
    """Make them verbs of `fingerprint store`."""
    for verb in (merge, rebuild, backup, checkpoint, lock, browse):
        app.command(no_args_is_help=verb in (merge, backup))(verb)
    app.command("log")(log)
    app.command("clean")(clean)


def existing(home: Home, db: Path | None) -> Database:
    """The database, for writing. Raises NotFound."""
    from cli.access import database_path, open_writable
    from fingerprint.errors import NotFound

    path = database_path(home, db)
    if not path.exists():
        raise NotFound(f"there is no database {path}", remedy="`fingerprint create` makes one.")
    return open_writable(home, db)


@flags.with_common
def merge(
    others: Annotated[list[Path], typer.Argument(metavar="DB", help="Databases to take over.", show_default=False)],
    replace: Annotated[
        bool, typer.Option("--replace", help="Where a name stands for unrelated records, make theirs its next version.")
    ] = False,
    key: flags.TrustedKeys = None,
    *,
    common: flags.Common,
) -> None:
    """Take over what other databases hold, and keep both histories.

    Each is checked first, every byte of it; then all of it comes in, or nothing. The ledgers' chains stay side by side.

    \b
    Examples:
      fingerprint store merge shard-2.db shard-3.db
      fingerprint store merge other.db --key their.pub --replace
    """
    from cli.access import open_writable
    from cli.output import emit
    from cli.terminal import Terminal
    from store.home import Home
    from store.keys import trusted_keys

    wanted = common.targets()
    home = Home.default()
    made = []
    with open_writable(home, common.db) as database, Terminal(quiet=common.quiet) as terminal:
        for path in others:
            merged = database.merge(path, trusted_keys(home, key or ()), replacing=replace)
            made.append({"path": str(path), **vars(merged)})
            if merged.parted_at is not None:
                terminal.note(f"{path} is a copy that parted from this history at entry {merged.parted_at}.")
    emit(wanted, {"merged": made}, lambda page: "".join(_merged(one) for one in made))


def _merged(one: dict[str, object]) -> str:
    from fingerprint.report.text import plural, printable

    counts = [plural(int(str(one[f"{name}s"])), name) for name in ("fingerprint", "run", "result")]
    counts.append(plural(int(str(one["entries"])), "ledger entry", "ledger entries"))
    return f"{printable(str(one['path']))}: {', '.join(counts)}\n"


@flags.with_common
def rebuild(
    key: flags.TrustedKeys = None,
    *,
    common: flags.Common,
) -> None:
    """Make every index anew from the signed envelopes and the ledger.

    What was signed comes back whole. Runs that nobody signed stay as they are; `store check` tells whether they hold.

    \b
    Examples:
      fingerprint store rebuild
      fingerprint store rebuild --db damaged.db
    """
    from cli.exits import EVIDENCE
    from cli.output import emit
    from fingerprint.report.text import plural, printable
    from store.home import Home
    from store.keys import trusted_keys

    wanted = common.targets()
    home = Home.default()
    keys = trusted_keys(home, key or ())
    with existing(home, common.db) as database:
        made = database.rebuild(keys)
        problems = [problem for problem in database.check(keys) if problem.kind == "error"]
    document = {"rebuilt": vars(made), "problems": [vars(problem) for problem in problems]}
    text = f"{plural(made.fingerprints, 'fingerprint')}, {plural(made.runs, 'signed run')}; "
    text += f"{plural(made.results, 'result')} replaced.\n"
    text += "".join(f"error: {printable(p.subject)}: {printable(p.message)}\n" for p in problems)
    emit(wanted, document, lambda page: text)
    raise typer.Exit(EVIDENCE if problems else 0)


@flags.with_common
def backup(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="File to write.", show_default=False)],
    include_secrets: Annotated[
        bool, typer.Option("--include-secrets", help="Copy the data keys too, to PATH.secrets.")
    ] = False,
    *,
    common: flags.Common,
) -> None:
    """Copy the database while it is in use.

    Writes PATH and PATH.tensors; without the data keys the copy can be shown and checked, but not verified with.

    \b
    Examples:
      fingerprint store backup /mnt/backup/fingerprint.db
      fingerprint store backup vault.db --include-secrets
    """
    from cli.access import database_path, open_readonly
    from cli.output import emit
    from cli.terminal import Terminal
    from fingerprint.errors import NotFound
    from fingerprint.report.text import plural, printable
    from store.home import Home

    wanted = common.targets()
    home = Home.default()
    source = database_path(home, common.db)
    if not source.exists():
        raise NotFound(f"there is no database {source}", remedy="`fingerprint create` makes one.")
    with open_readonly(home, common.db) as database, Terminal(quiet=common.quiet) as terminal:
        count = database.backup(path, include_secrets=include_secrets)
        if not include_secrets:
            terminal.note("The data keys are not in the copy (--include-secrets): back them up too, and apart from it.")
    shown = {"path": str(path), "fingerprints": count, "includes_secrets": include_secrets}
    emit(wanted, {"backup": shown}, lambda page: f"{plural(count, 'fingerprint')} -> {printable(str(path))}\n")


@flags.with_common
def checkpoint(
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="File to write it to.")] = None,
    key: flags.SigningKey = None,
    passphrase_file: flags.PassphraseFile = None,
    *,
    common: flags.Common,
) -> None:
    """Sign how far the ledger has come.

    Keep the file elsewhere: `store check --checkpoint FILE` then sees whether the database was rolled back to an older
    copy, or its history rewritten.

    \b
    Examples:
      fingerprint store checkpoint --out 2026-11-23.checkpoint.json
      fingerprint store check --checkpoint 2026-11-23.checkpoint.json
    """
    from cli.access import load_signing_key
    from cli.output import emit
    from fingerprint.errors import UsageError
    from fingerprint.report.text import printable
    from store import dsse, predicates
    from store.files import write_atomic
    from store.home import Home

    wanted = common.targets()
    home = Home.default()
    if out is not None and out.exists():
        raise UsageError(f"{out} exists already", remedy="Give another --out.")
    signer = load_signing_key(home, key, passphrase_file)
    with existing(home, common.db) as database:
        envelope = database.checkpoint([signer])
    if out is not None:
        write_atomic(out, envelope)
    made = predicates.parse(dsse.read_unverified(envelope).payload).predicate
    said = made.model_dump(mode="json")
    place = said["ledger"]
    line = f"entry {place['seq']} of the ledger, {place['hash']}, signed by {signer.key_id[:16]}"
    where = f" -> {printable(str(out))}" if out else ""
    emit(wanted, {"checkpoint": {**said, "path": str(out) if out else None}}, lambda page: f"{line}{where}\n")


@flags.with_common
def log(
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="Entries, the latest ones.")] = 50,
    *,
    common: flags.Common,
) -> None:
    """Show the latest entries of the ledger.

    \b
    Examples:
      fingerprint store log
      fingerprint store log --limit 1000 -f json
    """
    from cli.access import open_readonly
    from cli.output import columns, emit
    from fingerprint.report.text import printable
    from store.home import Home

    wanted = common.targets()
    with open_readonly(Home.default(), common.db) as database:
        entries = database.entries(limit)
    several = len({entry.chain for entry in entries}) > 1  # merged histories count their entries by themselves
    rows = [("entry", "time", "what", "about", "hash", *(("chain",) if several else ()))]
    for e in entries:
        line = (str(e.seq), e.time[:19], e.kind, printable(e.subject[:32]), e.hash[:16])
        rows.append((*line, *((e.chain[:16],) if several else ())))
    emit(wanted, {"entries": [vars(entry) for entry in entries]}, lambda page: columns(rows))


@flags.with_common
def clean(
    *,
    common: flags.Common,
) -> None:
    """Remove files that belong to no record.

    Such files are what killed writes left behind. Files younger than ten minutes stay, for a write may go on.

    \b
    Examples:
      fingerprint store clean
    """
    from cli.output import emit
    from fingerprint.report.text import printable
    from store.home import Home

    wanted = common.targets()
    with existing(Home.default(), common.db) as database:
        removed = [str(path) for path in database.collect()]
    text = "".join(f"removed {printable(path)}\n" for path in removed) or "Nothing to remove.\n"
    emit(wanted, {"removed": removed}, lambda page: text)


@flags.with_common
def lock(
    new_passphrase_file: Annotated[
        Path | None,
        typer.Option("--new-passphrase-file", metavar="FILE", help="File with the new passphrase. Else a prompt."),
    ] = None,
    key_file: Annotated[
        Path | None, typer.Option("--key-file", metavar="FILE", help="Lock with the bytes of a file instead (>= 32).")
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Take the lock away: the data keys lie open again.")] = False,
    *,
    common: flags.Common,
) -> None:
    """Lock the probes with a passphrase or key file, or change it.

    The passphrase goes through Argon2id and wraps a master key, which wraps the data keys. A change rewrites the lock
    only; probes are not encrypted anew. To open it, verbs take FINGERPRINT_STORE_PASSPHRASE,
    FINGERPRINT_STORE_PASSPHRASE_FILE or FINGERPRINT_STORE_KEY_FILE, else ask on a terminal.

    \b
    Examples:
      fingerprint store lock
      fingerprint store lock --new-passphrase-file new.txt
      fingerprint store lock --key-file /media/token/key.bin
      fingerprint store lock --remove
    """
    from cli.access import new_secret, open_lock
    from cli.output import emit
    from fingerprint.errors import UsageError
    from store.data_keys import DataKeys
    from store.home import Home

    wanted = common.targets()
    if (remove and (new_passphrase_file or key_file)) or (new_passphrase_file and key_file):
        raise UsageError("--new-passphrase-file, --key-file and --remove exclude each other")
    home = Home.default()
    keys = DataKeys(home.ensure(home.secrets), ask=open_lock)
    keys.unlock()  # before a new passphrase is asked for
    count = keys.change(None if remove else new_secret(new_passphrase_file, key_file))
    said = "The lock is gone" if remove else "The data keys are locked"
    emit(wanted, {"locked": not remove, "rewrapped": count}, lambda page: f"{said}; {count} rewrapped.\n")


@flags.with_common
def browse(
    port: Annotated[int, typer.Option("--port", metavar="N", min=0, max=65535, help="0: any free one.")] = 8001,
    *,
    common: flags.Common,
) -> None:
    """Look at the database in a web browser, on this machine only.

    Needs the extra `browse` (Datasette). The file is opened for reading; views leave out what is secret.

    \b
    Examples:
      fingerprint store browse
      fingerprint store browse --db other.db --port 9000
    """
    from cli.access import database_path
    from fingerprint.errors import NotFound
    from store.browse import command, run
    from store.home import Home

    path = database_path(Home.default(), common.db)
    if not path.exists():
        raise NotFound(f"there is no database {path}", remedy="`fingerprint create` makes one.")
    raise typer.Exit(run(command(path, port)))
