"""fingerprint audit: verify everything in a registry, then correct for the number of tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cli import options as flags
from cli.exits import FailOn

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence

    from cli.access import Selection
    from cli.comparing import Request
    from cli.output import Reports
    from cli.records import Records
    from cli.terminal import Terminal
    from fingerprint.api.audit import AuditOptions
    from fingerprint.api.results import Result
    from fingerprint.api.verify import Known
    from fingerprint.sources.interface import Artifact

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command(no_args_is_help=True)
@flags.with_reports
def audit(
    sources: Annotated[
        list[str], typer.Argument(metavar="SOURCE", help="Files or folders (recursive).", show_default=False)
    ],
    against: flags.Against = None,
    data: flags.Data = None,
    alpha: Annotated[
        float, typer.Option("--alpha", metavar="P", help="False discovery rate over all tests of the audit.")
    ] = 0.01,
    calibration: flags.CalibrationKind = flags.Calibration.auto,
    fail_on: Annotated[FailOn, typer.Option("--fail-on", help="The least finding that gives exit 1.")] = FailOn.derived,
    label_only: flags.LabelOnly = False,
    factory: flags.Factory = None,
    allow_code: flags.AllowCode = False,
    workers: Annotated[int, typer.Option("--workers", metavar="N", min=1, help="Suspects examined at a time.")] = 1,
    key: flags.TrustedKeys = None,
    no_cache: flags.NoCache = False,
    threads: flags.Threads = 0,
    verbose: flags.Verbose = False,
    show_probes: flags.ShowProbes = False,
    *,
    common: flags.Common,
) -> None:
    """Verify every model in a registry.

    The verdicts are corrected for the number of tests (false discovery rate). What an earlier run decided is not
    asked again. Ctrl-C prints what is known so far and exits with 3.

    \b
    Examples:
      fingerprint audit models/
      fingerprint audit /srv/registry --against my-model --workers 4 -f json -o table=audit.txt
      fingerprint audit uploads/ --fail-on inconclusive -f jsonl
    """
    from cli.comparing import Request
    from cli.reporting import wanted
    from cli.terminal import Terminal
    from fingerprint.api.audit import AuditOptions
    from fingerprint.api.verify import VerifyOptions

    request = Request(
        against or (),
        key or (),
        common.db,
        common.targets(),
        verbose,
        not no_cache,
        fail_on,
        show_probes=show_probes,
    )
    wanted(request.targets, show_probes=show_probes)
    options = VerifyOptions(
        alpha=alpha,
        calibration=calibration.value,
        label_only=label_only,
        data=data,
        allow_code=allow_code,
        factory=factory,
        threads=threads,
    )
    with Terminal(quiet=common.quiet) as terminal:
        code = _audit(sources, AuditOptions(options, workers), request, terminal)
    raise typer.Exit(code)


def _audit(sources: Sequence[str], options: AuditOptions, request: Request, terminal: Terminal) -> int:
    """Audit, print, record; answer the exit code."""
    from cli import comparing
    from cli.output import Reports
    from cli.records import Records
    from store.home import Home
    from store.keys import trusted_keys

    home = Home.default()
    artifacts = _artifacts(sources)
    with (
        Records(home, request.db, terminal, create=bool(request.against)) as records,
        Reports(request.targets, verbose=request.verbose, private=request.show_probes) as reports,
    ):
        selection = records.select(request.against, trusted_keys(home, request.keys))
        records.begin("audit", comparing.parameters(sources, selection, options.verify), now=True)
        known = records.known if request.known else None
        audited = _Audit(selection, options, records, reports, terminal)
        return audited.run(artifacts, known, request)


class _Audit:
    """One audit under way."""

    def __init__(
        self, selection: Selection, options: AuditOptions, records: Records, reports: Reports, terminal: Terminal
    ) -> None:
        self.selection, self.options = selection, options
        self.records, self.reports, self.terminal = records, reports, terminal
        self.results: list[Result] = []

    def run(self, artifacts: Iterable[Artifact], known: Known | None, request: Request) -> int:
        """Examine everything, or as much as there was time for."""
        from cli import comparing
        from cli.exits import exit_code
        from fingerprint.api.audit import audit as examine
        from fingerprint.api.audit import correct

        found = examine(artifacts, self.selection.fingerprints, self.options, known=known, progress=self.terminal)
        partial = not self._collect(comparing.with_closed(found, self.selection))
        self.terminal.close()
        if not self.results and not partial:
            self.terminal.note("There is no model in these places: nothing was examined.")
        final, correction = correct(self.results, self.options.verify.alpha)
        self._finish(final, vars(correction), request, partial=partial)
        return exit_code([comparing.finding(r) for r in final], request.fail_on, partial=partial)

    def _collect(self, found: Generator[Result]) -> bool:
        """Take results as they come; whether all of them came."""
        try:
            for result in found:
                self.results.append(result)
                self.records.add(result)
                self.reports.stream(result.to_dict(), final=False)
        except KeyboardInterrupt:
            self.terminal.say("Interrupted: this report holds what was examined so far.")
            return False
        finally:
            found.close()
        return True

    def _finish(
        self, final: Sequence[Result], correction: dict[str, object], request: Request, *, partial: bool
    ) -> None:
        from cli.reporting import after
        from fingerprint.report.interface import Summary

        self.records.finish()
        summary = Summary("audit", run=self.records.run, correction=correction, partial=partial)
        compared = self.selection.fingerprints
        summary = after(summary, final, compared, request, self.records, self.terminal)
        self.reports.finish([r.to_dict() for r in final], summary)


def _artifacts(sources: Sequence[str]) -> Iterator[Artifact]:
    """Everything in all sources, each read by the first kind of source that accepts it."""
    from fingerprint.errors import UsageError
    from fingerprint.sources.directory import DirectorySource
    from fingerprint.sources.interface import Source

    opened: list[Source] = []
    for place in sources:
        kind = DirectorySource if DirectorySource.accepts(place) else _plugin_for(place)
        if kind is None:
            raise UsageError(f"no such file or folder: {place}")
        opened.append(kind(place))
    return (artifact for source in opened for artifact in source.artifacts())


def _plugin_for(place: str) -> type | None:
    from importlib.metadata import entry_points

    kinds = (point.load() for point in entry_points(group="fingerprint.sources"))
    return next((kind for kind in kinds if kind.accepts(place)), None)
