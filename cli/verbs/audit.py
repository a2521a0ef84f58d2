"""fingerprint audit: verify everything in a registry, then correct for the number of tests."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cli import options as flags
from cli.audits.logs import LogFormat
from cli.exits import FailOn

app = typer.Typer(rich_markup_mode=None, add_completion=False)


class Where(StrEnum):
    """Which executor examines the suspects."""

    local = "local"
    ray = "ray"


@app.command(no_args_is_help=True)
@flags.with_reports
def audit(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE",
            help="Files, folders, archives, @LIST, - (stdin), hf:ORG/NAME, models:/NAME, mlflow:URI.",
            show_default=False,
        ),
    ],
    against: flags.Against = None,
    data: flags.Data = None,
    alpha: Annotated[
        float, typer.Option("--alpha", metavar="P", help="False discovery rate over all tests of the audit.")
    ] = 0.01,
    calibration: flags.CalibrationKind = flags.Calibration.auto,
    fail_on: Annotated[FailOn, typer.Option("--fail-on", help="The least finding that gives exit 1.")] = FailOn.derived,
    label_only: flags.LabelOnly = False,
    weights: flags.Weights = False,
    allow: flags.Allow = None,
    factory: flags.Factory = None,
    allow_code: flags.AllowCode = False,
    workers: Annotated[int, typer.Option("--workers", metavar="N", min=1, help="Suspects examined at a time.")] = 1,
    shard: Annotated[
        str | None,
        typer.Option("--shard", metavar="I/N", help="Examine this share of the files only; see store merge."),
    ] = None,
    executor: Annotated[Where, typer.Option("--executor", help="local: processes here; ray: Ray Data.")] = Where.local,
    ray_address: Annotated[
        str | None,
        typer.Option("--ray-address", metavar="ADDRESS", help="A running cluster. Default: starts Ray here."),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option("--checkpoint", metavar="DIR", help="Where Ray keeps manifest and verdicts; all nodes see it."),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="RUN", help="Leave out what that run (or `last`) saw and has not changed."),
    ] = None,
    ignore: Annotated[
        Path | None,
        typer.Option("--ignore", metavar="FILE", help="Accepted findings, each with reason and expiry."),
    ] = None,
    metrics: Annotated[
        Path | None, typer.Option("--metrics", metavar="FILE", help="Write figures for Prometheus' node exporter.")
    ] = None,
    log_format: Annotated[LogFormat, typer.Option("--log-format", help="How stderr is written.")] = LogFormat.text,
    rehash: Annotated[
        bool, typer.Option("--rehash", help="Read every file, even where size, times and inode are as they were.")
    ] = False,
    open_all: Annotated[
        bool, typer.Option("--open-all", help="Open even files whose headers say that they take no images.")
    ] = False,
    key: flags.TrustedKeys = None,
    no_cache: flags.NoCache = False,
    threads: flags.Threads = 0,
    device: flags.Device = None,
    verbose: flags.Verbose = False,
    show_probes: flags.ShowProbes = False,
    *,
    common: flags.Common,
) -> None:
    """Verify every model in a registry.

    Models are found by content, also in archives and app packages. The verdicts are corrected for the number of tests
    (false discovery rate). What an earlier run decided is not asked again; an audit that was killed goes on where it
    was. Ctrl-C prints what is known so far and exits with 3.

    \b
    Examples:
      fingerprint audit models/ app.apk
      fingerprint audit /srv/registry --against my-model --workers 4 -f json -o table=audit.txt
      fingerprint audit mlflow:sqlite:////srv/mlflow.db --fail-on inconclusive -f jsonl
      find /srv -newer stamp -print0 | fingerprint audit - --since last --metrics audit.prom
    """
    from cli.audits.logs import terminal as terminal_of
    from cli.audits.running import Manner, run
    from cli.comparing import Request
    from cli.reporting import wanted
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
    flags.compute_on(device)
    options = VerifyOptions(
        alpha=alpha,
        calibration=calibration.value,
        label_only=label_only,
        weights=weights,
        allow=allow or (),
        data=data,
        allow_code=allow_code,
        factory=factory,
        threads=threads,
    )
    manner = Manner(shard, executor == Where.ray, ray_address, checkpoint, since, ignore, metrics, rehash)
    with terminal_of(log_format, quiet=common.quiet) as terminal:
        code = run(sources, AuditOptions(options, workers, open_all), request, manner, terminal)
    raise typer.Exit(code)
