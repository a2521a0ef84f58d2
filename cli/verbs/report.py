"""fingerprint report: a run of the past, in any format."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import options as flags

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cli.output import Target
    from cli.terminal import Terminal
    from fingerprint.report.interface import Row, Summary
    from store.database import Database
    from store.keys import Keys, Signer
    from store.rows import RunRow

LAST = "last"
app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command(no_args_is_help=True)
@flags.with_reports
def report(
    run: Annotated[
        str | None,
        typer.Argument(metavar="RUN", help="A run's id, the start of one, or 'last'.", show_default=False),
    ] = None,
    list_runs: Annotated[bool, typer.Option("--list", help="List the runs that the database holds.")] = False,
    key: flags.TrustedKeys = None,
    verbose: flags.Verbose = False,
    show_probes: flags.ShowProbes = False,
    bundle: Annotated[
        Path | None,
        typer.Option(
            "--bundle",
            metavar="ZIP",
            show_default=False,
            help="Also write all evidence, with a checker, to a new file.",
        ),
    ] = None,
    sign_with: Annotated[
        Path | None,
        typer.Option("--sign-with", metavar="FILE", show_default=False, help="Private key that signs the bundle."),
    ] = None,
    passphrase_file: flags.PassphraseFile = None,
    *,
    common: flags.Common,
) -> None:
    """Show a stored run again, in any format.

    Nothing is asked again. Stored rows and the signatures of the records are checked; an audit is corrected for the
    number of its tests as it was. A bundle is a zip for somebody else: envelopes, keys, timestamps, revealed probes,
    this report, and a small program that checks them offline.

    \b
    Examples:
      fingerprint report --list
      fingerprint report last -o html=report.html
      fingerprint report 20261123T093000-1a2b3c4d -f sarif
      fingerprint report last --show-probes -o html=secret.html
      fingerprint report last --bundle evidence.zip
    """
    from cli.access import database_path, load_signing_key, open_readonly, open_writable
    from cli.output import emit
    from cli.reporting import wanted
    from cli.terminal import Terminal
    from fingerprint.errors import UsageError
    from store.home import Home
    from store.keys import trusted_keys

    targets = common.targets()
    if list_runs == (run is not None):
        raise UsageError("give a RUN, or --list", remedy="For example: fingerprint report last -f markdown")
    if sign_with is not None and bundle is None:
        raise UsageError("--sign-with goes with --bundle")
    wanted(targets, show_probes=show_probes)
    home = Home.default()
    writes = show_probes and database_path(home, common.db).exists()
    opened = open_writable(home, common.db) if writes else open_readonly(home, common.db)
    with opened as database, Terminal(quiet=common.quiet) as terminal:
        if run is None:
            runs = database.runs()
            emit(targets, {"runs": [vars(r) for r in runs]}, lambda page: _list(runs))
            return
        found = _find(database, run)
        reporting = _Reporting(database, trusted_keys(home, key or ()), targets, terminal)
        if bundle is not None:
            signers = [load_signing_key(home, sign_with, passphrase_file)] if sign_with else []
            reporting.pack(found, bundle, signers)
        reporting.show(found, verbose=verbose, show_probes=show_probes)


class _Reporting:
    """One run of the past on its way to paper."""

    def __init__(self, database: Database, keys: Keys, targets: Sequence[Target], terminal: Terminal) -> None:
        self.database, self.keys, self.targets, self.terminal = database, keys, targets, terminal

    def show(self, run: RunRow, *, verbose: bool, show_probes: bool) -> None:
        """Write all reports. Raises EvidenceError, StoreError."""
        from dataclasses import replace

        from cli import reporting
        from cli.output import Reports

        stored = self.database.results(run.id)
        rows, summary = _corrected(stored, run)
        needed = reporting.wanted(self.targets, show_probes=show_probes)
        if needed.records:
            views = reporting.stored_views(self.database, rows, self.keys, probes=show_probes)
            summary = replace(summary, records=views)
        if show_probes:
            summary = replace(summary, answers=reporting.answers_of(map(reporting.restored, stored)))
            reporting.expose(rows, summary, self.targets, self.database.expose, self.terminal)
        if summary.partial:
            self.terminal.note("This run did not end: the report holds what was recorded of it.")
        with Reports(self.targets, verbose=verbose, private=show_probes) as reports:
            if summary.correction is None:
                for row in rows:
                    reports.stream(row, final=True)
            reports.finish(rows, summary)

    def pack(self, run: RunRow, out: Path, signers: Sequence[Signer]) -> None:
        """Write the evidence pack. Raises EvidenceError, StoreError."""
        from dataclasses import replace

        from cli import reporting
        from fingerprint.report.registry import report_class
        from store.bundle import write_bundle

        rows, summary = _corrected(self.database.results(run.id), run)
        views = reporting.stored_views(self.database, rows, self.keys, probes=False)
        summary = replace(summary, records=views)
        html, markdown = (str(report_class(name)().finish(rows, summary)) for name in ("html", "markdown"))
        made = write_bundle(
            self.database, run.id, out, html=html, markdown=markdown, keys=self.keys, signers=tuple(signers)
        )
        self.terminal.note(f"{made.path}: {len(made.files)} files, {made.probes} probes shown, SHA-256 {made.sha256}")
        if made.closed:
            names = ", ".join(made.closed)
            self.terminal.note(f"{names} can't be opened here: the bundle lacks what is needed to recompute integrity.")
        if not made.signed:
            self.terminal.note("The run itself carries no signature: the bundle shows what was recorded, not by whom.")


def _corrected(stored: Sequence[Row], run: RunRow) -> tuple[list[Row], Summary]:
    """The rows as the run ended with them, and what there is to say of it. What is stored is not corrected yet."""
    from cli.reporting import about_run, restored
    from fingerprint.api.results import correct
    from fingerprint.report.interface import Summary

    results, correction = [restored(row) for row in stored], None
    if run.kind == "audit" or _pairs(run) > 1:
        results, used = correct(results, float(str(run.parameters["alpha"])))
        correction = vars(used)
    kind = "audit" if run.kind == "audit" else "verify"
    summary = Summary(kind, correction=correction, partial=run.finished is None)  # type: ignore[arg-type]
    return [r.to_dict() for r in results], about_run(summary, run)


def _pairs(run: RunRow) -> int:
    """How many comparisons were asked for."""
    asked = [run.parameters.get(name) for name in ("places", "against")]
    return math.prod(len(part) for part in asked if isinstance(part, list))


def _find(database: Database, text: str) -> RunRow:
    """The run meant. Raises NotFound."""
    from fingerprint.errors import NotFound

    runs = database.runs()
    found = (
        runs[-1:] if text == LAST else [r for r in runs if r.id == text] or [r for r in runs if r.id.startswith(text)]
    )
    if len(found) != 1:
        many = f"{len(found)} runs begin with {text!r}" if found else f"there is no run {text!r} in {database.path}"
        raise NotFound(many, remedy="fingerprint report --list shows all.")
    return found[0]


def _list(runs: Sequence[RunRow]) -> str:
    from cli.output import columns
    from fingerprint.report.text import printable

    if not runs:
        return "There is no run yet: fingerprint verify and audit record theirs.\n"
    table: list[tuple[str, ...]] = [("run", "kind", "started", "results", "of")]
    for run in runs:
        places = run.parameters.get("places")
        of = ", ".join(map(str, places)) if isinstance(places, list) else ""
        count = "did not end" if run.results is None else str(run.results)
        shown = of if len(of) <= 60 else of[:57] + "..."
        table.append((run.id, run.kind, run.started[:16].replace("T", " "), count, printable(shown)))
    return columns(table)
