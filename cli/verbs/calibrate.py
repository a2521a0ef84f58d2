"""fingerprint calibrate: add references to a record, as a new signed version."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli import options as flags

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command(no_args_is_help=True)
@flags.with_common
def calibrate(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A fingerprint's name or id.", show_default=False)],
    reference: Annotated[
        list[Path],
        typer.Option(
            "--reference", metavar="PATH", show_default=False, help="Unrelated models: a file or a folder. Repeatable."
        ),
    ],
    key: flags.SigningKey = None,
    passphrase_file: flags.PassphraseFile = None,
    factory: flags.Factory = None,
    allow_code: flags.AllowCode = False,
    *,
    common: flags.Common,
) -> None:
    """Add references to a fingerprint: a new signed version.

    References are unrelated models; the more there are, the smaller the error that a verdict can state.

    \b
    Examples:
      fingerprint calibrate my-model --reference more-unrelated/
      fingerprint calibrate my-model --reference a.onnx --reference b.onnx -f json
    """
    from cli.access import load_signing_key, open_writable
    from cli.output import emit
    from cli.storing import describe, require_latest, seal_and_add, table
    from cli.terminal import Terminal
    from store.home import Home
    from store.keys import trusted_keys

    wanted = common.targets()
    home = Home.default()
    signer = load_signing_key(home, key, passphrase_file)
    with open_writable(home, common.db) as database, Terminal(quiet=common.quiet) as terminal:
        row = require_latest(database, name)
        record = database.load(row, {**trusted_keys(home), signer.key_id: signer.public})
        from fingerprint.api.references import calibrate as measure

        made = measure(record, reference, allow_code=allow_code, factory=factory, progress=terminal)
        terminal.close()
        new = seal_and_add(database, made, signer, terminal, replace=True)
        shown = describe(new, made.manifest)
        emit(wanted, {"fingerprint": shown}, lambda page: table(new, made.manifest, page))
