"""fingerprint calibrate: add references, control sets or ancestors to a record, as a new signed version."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import options as flags

if TYPE_CHECKING:
    from collections.abc import Sequence

    from store.database import Database

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command(no_args_is_help=True)
@flags.with_common
def calibrate(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A fingerprint's name or id.", show_default=False)],
    reference: Annotated[
        list[Path] | None,
        typer.Option(
            "--reference", metavar="PATH", show_default=False, help="Unrelated models: a file or a folder. Repeatable."
        ),
    ] = None,
    from_run: Annotated[
        str | None,
        typer.Option(
            "--from-run",
            metavar="RUN",
            show_default=False,
            help="Suspects of an earlier run that you judged unrelated: all but those of --related.",
        ),
    ] = None,
    unrelated: Annotated[
        list[str] | None,
        typer.Option(
            "--unrelated",
            metavar="PATH|SHA256",
            show_default=False,
            help="With --from-run: you judge this one unrelated, though the run called it derived. Repeatable.",
        ),
    ] = None,
    related: Annotated[
        list[str] | None,
        typer.Option(
            "--related",
            metavar="PATH|SHA256",
            show_default=False,
            help="With --from-run: you know this one to be related; it is left out. Repeatable.",
        ),
    ] = None,
    make_references: flags.MakeReferences = 0,
    control_set: flags.Controls = None,
    ancestor: flags.Ancestors = None,
    data: flags.Data = None,
    key: flags.SigningKey = None,
    passphrase_file: flags.PassphraseFile = None,
    factory: flags.Factory = None,
    allow_code: flags.AllowCode = False,
    device: flags.Device = None,
    *,
    common: flags.Common,
) -> None:
    """Add references, control sets or ancestors to a fingerprint.

    The result is a new signed version; the earlier ones stay.

    References are unrelated models; the more there are, and the more authors they have, the smaller the error that a
    verdict can state. What is left out of a run must be left out for what you know of it, not for how it matched:
    leaving out what matches well makes the stated error wrong.

    \b
    Examples:
      fingerprint calibrate my-model --reference more-unrelated/
      fingerprint calibrate my-model --from-run 20260101T101500-1a2b3c4d --related stolen.onnx
      fingerprint calibrate my-model --make-references 20 --data images/
      fingerprint calibrate my-model --ancestor public-base.onnx --data images/ -f json
    """
    from cli.access import load_signing_key, open_writable
    from cli.output import emit
    from cli.storing import describe, require_latest, seal_and_add, table
    from cli.terminal import Terminal
    from fingerprint.errors import UsageError
    from store.home import Home
    from store.keys import trusted_keys

    wanted = common.targets()
    flags.compute_on(device)
    if (unrelated or related) and from_run is None:
        raise UsageError("--unrelated and --related judge the suspects of --from-run RUN")
    home = Home.default()
    signer = load_signing_key(home, key, passphrase_file)
    with open_writable(home, common.db) as database, Terminal(quiet=common.quiet) as terminal:
        row = require_latest(database, name)
        judged = _judged(database, from_run, unrelated or (), related or ()) if from_run is not None else []
        record = database.load(row, trusted_keys(home).plus(signer.key_id, signer.public))
        from fingerprint.api.calibrating import More, recalibrate

        more = More(
            references=reference or (),
            judged=judged,
            run=from_run,
            make_references=make_references,
            control_sets=control_set or (),
            ancestors=ancestor or (),
            data=data,
            allow_code=allow_code,
            factory=factory,
        )
        made = recalibrate(record, more, progress=terminal)
        terminal.close()
        new = seal_and_add(database, made, signer, terminal, replace=True)
        shown = describe(new, made.manifest)
        emit(wanted, {"fingerprint": shown}, lambda page: table(new, made.manifest, page))


def _judged(database: Database, run: str, unrelated: Sequence[str], related: Sequence[str]) -> list[Path]:
    from fingerprint.api.calibrating import judged_unrelated

    return judged_unrelated(database.results(run), unrelated, related)
