"""fingerprint verify: is a suspect derived from a fingerprinted model?"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import options as flags
from cli.exits import Expect, FailOn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cli.access import Selection
    from cli.comparing import Request
    from cli.dating import Dating
    from cli.records import Records
    from cli.terminal import Terminal
    from fingerprint.api.subjects import Place
    from fingerprint.api.verify import VerifyOptions
    from fingerprint.engine.batches import BatchFile
    from fingerprint.engine.session import WorkerPool

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command(no_args_is_help=True)
@flags.with_reports
def verify(
    suspects: Annotated[
        list[str] | None,
        typer.Argument(metavar="SUSPECT", help="Model files, URLs, or module:callable.", show_default=False),
    ] = None,
    against: flags.Against = None,
    spec: flags.Spec = None,
    data: flags.Data = None,
    alpha: flags.Alpha = 0.01,
    budget: Annotated[
        int | None,
        typer.Option("--budget", metavar="N", help="Inputs sent to each suspect at most. Default: all probes."),
    ] = None,
    calibration: flags.CalibrationKind = flags.Calibration.auto,
    expect: Annotated[
        Expect | None, typer.Option("--expect", help="What every suspect must be; replaces --fail-on.")
    ] = None,
    fail_on: Annotated[FailOn, typer.Option("--fail-on", help="The least finding that gives exit 1.")] = FailOn.derived,
    label_only: flags.LabelOnly = False,
    weights: flags.Weights = False,
    allow: flags.Allow = None,
    repeat: flags.Repeat = 1,
    sequential: flags.Sequential = None,
    cover: flags.Cover = 0.0,
    jitter: flags.Jitter = 1,
    responses: flags.Responses = None,
    export: flags.ExportId = None,
    protocol: flags.ProtocolKind = None,
    batch: flags.Batch = None,
    rate: flags.Rate = None,
    retries: flags.Retries = 4,
    timeout: flags.Timeout = 30.0,
    headers: flags.Headers = None,
    output_name: flags.OutputName = None,
    class_names: flags.ClassNames = None,
    factory: flags.Factory = None,
    allow_code: flags.AllowCode = False,
    suspect_timestamp: flags.SuspectTimestamp = None,
    key: flags.TrustedKeys = None,
    no_cache: flags.NoCache = False,
    threads: flags.Threads = 0,
    device: flags.Device = None,
    verbose: flags.Verbose = False,
    show_probes: flags.ShowProbes = False,
    *,
    common: flags.Common,
) -> None:
    """Say whether a suspect model derives from a fingerprinted one.

    Each suspect is compared with each fingerprint: derived, unrelated or inconclusive, at a stated error level.
    Files are opened in an isolated process; one that can't be opened is a result too. Endpoints speak the Open
    Inference Protocol (KServe, Triton), TF Serving or TorchServe. A module:callable is trusted: it runs in this
    process. docs/black-box.md says more.

    \b
    Examples:
      fingerprint verify suspect.onnx
      fingerprint verify app.tflite --against my-model --data images/ -f json
      fingerprint verify release/*.onnx --expect match
      fingerprint verify app.tflite --expect intact --allow quantize:static:int8 --allow prune:magnitude:0.5
      fingerprint verify https://host/v2/models/m --budget 100 --rate 5
      fingerprint verify my_module:predict --against my-model
      fingerprint verify --responses answers.csv
      fingerprint verify suspect.onnx --against my-model --suspect-timestamp suspect.onnx.tsr
    """
    from cli import early
    from cli.ahead import ask_selected
    from fingerprint.remote.places import is_file, is_url

    flags.compute_on(device)
    places: list[Path | str] = [Path(text) if is_file(text) else text for text in suspects or ()]
    urls = [place for place in places if isinstance(place, str) and is_url(place)]
    with early.take(threads) as pool:
        early.prestart(pool, suspects or (), allow_code)
        from cli.comparing import Request
        from cli.reporting import wanted
        from cli.terminal import Terminal
        from fingerprint.spec import load_spec

        request = Request(
            against or (), key or (), common.db, common.targets(), verbose, not no_cache, fail_on, expect, show_probes,
            suspect_timestamp,
        )  # fmt: skip
        if show_probes:
            wanted(request.targets, show_probes=True)
        given = load_spec(spec) if spec else None

        def options() -> VerifyOptions:
            from cli import remote
            from fingerprint.api.verify import VerifyOptions
            from fingerprint.remote.interface import RemoteOptions

            return VerifyOptions(
                alpha=alpha,
                calibration=calibration.value,
                budget=budget,
                label_only=label_only,
                weights=weights,
                allow=allow or (),
                spec=given,
                data=data,
                allow_code=allow_code,
                factory=factory,
                threads=threads,
                repeat=repeat,
                sequential=sequential,
                cover=cover,
                jitter=jitter,
                remote=RemoteOptions(
                    protocol=protocol.value if protocol else None,
                    batch=batch,
                    rate=rate,
                    retries=retries,
                    timeout_s=timeout,
                    headers=remote.headers(headers) if urls else {},
                    output=output_name,
                    class_names=remote.class_names(class_names),
                ),
            )

        with Terminal(quiet=common.quiet) as terminal, ExitStack() as stack:
            _check(places, responses, repeat=repeat, cover=cover)
            dating = _dating(places, suspect_timestamp)
            if urls:
                from fingerprint.remote.url import parse

                for url in urls:
                    parse(url, protocol.value if protocol else None)  # before a database is opened in vain
            records, selection = _select(stack, request, suspects or (), terminal)
            pool.memory = _memory()
            if (
                budget is None
                and not sequential
                and not cover
                and factory is None
                and places
                and isinstance(places[0], Path)
            ):
                ask_selected(pool, places[0], selection, given)
            asked = options()
            subjects: list[Place] = [*places]
            if responses is not None:
                from cli.remote import answered

                selection, subject = answered(records, selection, responses, export, asked.remote.class_names)
                subjects = [subject]
            if urls:
                from cli.remote import warn

                warn(urls, asked.remote.headers, terminal)
            elif responses is None and all(isinstance(place, Path) for place in places):
                from cli.remote import note_unused

                note_unused(asked, headers, terminal)
            if data is not None:
                from cli.comparing import note_unlabelled

                note_unlabelled(data, selection, terminal)
            code = _verify(subjects, asked, request, pool, terminal, records, selection, stack, dating)
    raise typer.Exit(code)


def _select(
    stack: ExitStack, request: Request, suspects: Sequence[str], terminal: Terminal
) -> tuple[Records, Selection]:
    """The open database, and the fingerprints to compare with; those that were opened ahead, if any."""
    from cli import early
    from cli.ahead import Question
    from cli.records import Records
    from store.home import Home
    from store.keys import trusted_keys

    found = early.take_opened(Question(tuple(suspects), tuple(request.against), tuple(request.keys), request.db))
    if found is not None:
        found.records.progress = terminal
        return stack.enter_context(found.records), found.selection
    home = Home.default()
    records = stack.enter_context(Records(home, request.db, terminal, create=bool(request.against)))
    return records, records.select(request.against, trusted_keys(home, request.keys))


def _memory() -> BatchFile:
    from fingerprint.engine.batches import BatchFile
    from store.home import Home

    return BatchFile(Home.default().batches)


def _verify(
    suspects: Sequence[Place],
    options: VerifyOptions,
    request: Request,
    pool: WorkerPool,
    terminal: Terminal,
    records: Records,
    selection: Selection,
    stack: ExitStack,
    dating: Dating | None = None,
) -> int:
    """Verify, print, record; answer the exit code. What it imports comes in while the first suspect answers."""
    import threading
    from dataclasses import replace

    from cli import comparing, early
    from cli.exits import exit_code
    from cli.output import Reports
    from cli.remote import RecordedExposures
    from cli.reporting import after
    from fingerprint.api.results import correct
    from fingerprint.api.subjects import Subject
    from fingerprint.api.verify import verify as compare
    from fingerprint.report.interface import Summary

    early.collect_again()
    reports = stack.enter_context(Reports(request.targets, verbose=request.verbose, private=request.show_probes))
    results, rows = [], []
    several = len(suspects) * len(selection.fingerprints) > 1
    named = [s.suspect.path if isinstance(s, Subject) else str(s) for s in suspects]
    asked = comparing.parameters(named, selection, options, request.timestamp)
    records.begin("verify", asked, now=not request.known)
    known = records.known if request.known else None
    exposures = RecordedExposures(records)
    found = compare(
        suspects, selection.fingerprints, options, pool=pool, known=known, exposures=exposures, progress=terminal,
        meanwhile=records.prepare,
    )  # fmt: skip
    if dating is not None:
        found = dating.dated(found, records, request.against)
    for result in comparing.with_closed(found, selection):
        results.append(result)
        rows.append(result.to_dict())
        records.add(result)
        if not several:  # else the correction may change it
            reports.stream(rows[-1], final=True)
    records.finish()
    summary = Summary("verify")
    if several:
        results, correction = correct(results, options.alpha)
        rows, summary = [r.to_dict() for r in results], replace(summary, correction=vars(correction))
    closing = threading.Thread(target=pool.close, daemon=True)  # ending workers is waiting, and so is recording
    closing.start()
    terminal.close()
    reports.finish(rows, after(summary, results, selection.fingerprints, request, records, terminal))
    stack.close()
    closing.join()
    return exit_code([comparing.finding(r) for r in results], request.fail_on, request.expect)


def _dating(places: Sequence[Path | str], timestamp: Path | None) -> Dating | None:
    """The suspect's timestamp, verified before anything is asked. Raises UsageError."""
    if timestamp is None:
        return None
    from cli.dating import Dating

    return Dating.of(places, timestamp)


def _check(places: Sequence[Path | str], responses: Path | None, *, repeat: int, cover: float) -> None:
    from fingerprint.errors import UsageError
    from fingerprint.runtimes.parts import is_package

    if responses is not None and (places or repeat > 1 or cover):
        raise UsageError("--responses is the suspect: it goes with no other, and with no --repeat or --cover")
    if not places and responses is None:
        raise UsageError("there is no SUSPECT", remedy="Give files, URLs, a module:callable, or --responses FILE.")
    for path in places:
        if isinstance(path, str):
            continue
        if not path.exists():
            raise UsageError(f"no such file: {path}")
        if path.is_dir() and not is_package(path):
            raise UsageError(f"{path} is a folder", remedy=f"Use: fingerprint audit {path}")
