"""fingerprint create: make a signed fingerprint of a released model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import options as flags

if TYPE_CHECKING:
    from cli.terminal import Terminal
    from fingerprint.api.create_options import CreateOptions
    from fingerprint.record import Fingerprint
    from store.database import Database
    from store.home import Home
    from store.rows import FingerprintRow

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command(no_args_is_help=True)
@flags.with_common
def create(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="The released model: a file, a URL, or module:callable.", show_default=False
        ),
    ],
    name: Annotated[
        str, typer.Option("--name", metavar="NAME", help="What to call the fingerprint.", show_default=False)
    ],
    spec: flags.Spec = None,
    reference: Annotated[
        list[Path] | None,
        typer.Option(
            "--reference",
            metavar="PATH",
            show_default=False,
            help="Unrelated models that calibrate the error: a file or a folder. Repeatable.",
        ),
    ] = None,
    data: flags.Data = None,
    budget: Annotated[int, typer.Option("--budget", metavar="N", help="Probes to store.")] = 100,
    families: Annotated[
        str | None,
        typer.Option(
            "--families",
            metavar="A,B,..",
            help="Probe families, with settings (characteristic:kappa=2,natural). Default: characteristic where the "
            "file gives gradients (robust,difference beside --screen-model and labelled --data), else natural with "
            "labelled --data, else zeroth.",
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", help="For tests: repeatable, and the record non-evidential.")
    ] = None,
    declare_bound: Annotated[
        float | None,
        typer.Option(
            "--declare-bound", metavar="P0", help="Match rate that unrelated models are declared not to exceed."
        ),
    ] = None,
    screen: Annotated[
        int | None,
        typer.Option(
            "--screen",
            metavar="N",
            help="Small nets to train for screening. Default: 3 where the data allow, none beside --screen-model.",
        ),
    ] = None,
    screen_model: Annotated[
        list[Path] | None,
        typer.Option(
            "--screen-model",
            metavar="PATH",
            show_default=False,
            help="Your own net, trained like MODEL from another seed: probes are chosen that it does not match. It "
            "never calibrates, and is opened in this process. Repeatable.",
        ),
    ] = None,
    make_references: flags.MakeReferences = 0,
    control_set: flags.Controls = None,
    ancestor: flags.Ancestors = None,
    certify: Annotated[
        bool, typer.Option("--certify", help="State how large a random weight change the probes stand.")
    ] = False,
    integrity: Annotated[
        int,
        typer.Option(
            "--integrity",
            metavar="N",
            help="Probes besides the budget that tell tampering from compression, such as 100. Many copies of "
            "the model are made to calibrate them: that takes minutes.",
        ),
    ] = 0,
    queries: Annotated[
        int | None,
        typer.Option(
            "--queries", metavar="N", min=1, help="Inputs sent to a URL or function at most. Default: no bound."
        ),
    ] = None,
    protocol: flags.ProtocolKind = None,
    batch: flags.Batch = None,
    rate: flags.Rate = None,
    retries: flags.Retries = 4,
    timeout: flags.Timeout = 30.0,
    headers: flags.Headers = None,
    output_name: flags.OutputName = None,
    class_names: flags.ClassNames = None,
    key: flags.SigningKey = None,
    passphrase_file: flags.PassphraseFile = None,
    factory: flags.Factory = None,
    allow_code: flags.AllowCode = False,
    threads: flags.OwnerThreads = 0,
    device: flags.Device = None,
    replace: Annotated[bool, typer.Option("--replace", help="Make this the next version of a name in use.")] = False,
    *,
    common: flags.Common,
) -> None:
    """Make a signed fingerprint of a released model.

    References (unrelated models for the same task) calibrate the error of every later verdict: 7 or more are needed,
    and 199 for the tightest statement at 1 %.

    A compiled file (OpenVINO, ncnn, MNN, ExecuTorch, AOTInductor), a served model and a function give answers only:
    probes are natural or zeroth ones, and their robustness is not measured. docs/families.md says more.

    \b
    Examples:
      fingerprint create model.onnx --name my-model --reference unrelated/ --data images/
      fingerprint create model.pt2 --name my-model --spec model.json --budget 200 -f json
      fingerprint create model.pt2 --name my-model --data images/ --integrity 100
      fingerprint create model.onnx --name my-model --replace
      fingerprint create model.xml --name my-model --reference unrelated/ --data images/
      fingerprint create https://host/v2/models/m --name my-model --spec model.json --rate 5 --queries 50000
    """
    from cli import remote
    from cli.access import load_signing_key, open_writable
    from cli.output import emit
    from cli.storing import check_name, describe, limit_threads, seal_and_add, table
    from cli.terminal import Terminal
    from fingerprint.errors import UsageError
    from fingerprint.remote.interface import RemoteOptions
    from fingerprint.remote.places import is_file, is_url
    from store.home import Home

    wanted = common.targets()
    flags.compute_on(device)
    home = Home.default()
    place = Path(model) if is_file(model) else model
    if isinstance(place, Path) and not place.is_file():
        raise UsageError(f"no such model file: {model}")
    signer = load_signing_key(home, key, passphrase_file)
    with open_writable(home, common.db) as database, Terminal(quiet=common.quiet) as terminal:
        previous = check_name(database, name, replace=replace)
        from fingerprint.api.create_options import CreateOptions
        from fingerprint.probes.registry import split_families
        from fingerprint.spec import load_spec

        options = CreateOptions(
            name=name,
            spec=load_spec(spec) if spec else None,
            references=reference or (),
            data=data,
            budget=budget,
            families=split_families(families) if families else None,
            seed=seed,
            declared_bound=declare_bound,
            screen=screen,
            screen_models=screen_model or (),
            integrity=integrity,
            certify=certify,
            factory=factory,
            allow_code=allow_code,
            make_references=make_references,
            control_sets=control_set or (),
            ancestors=ancestor or (),
            queries=queries,
            remote=RemoteOptions(
                protocol=protocol.value if protocol else None,
                batch=batch,
                rate=rate,
                retries=retries,
                timeout_s=timeout,
                headers=remote.headers(headers) if is_url(model) else {},
                output=output_name,
                class_names=remote.class_names(class_names),
            ),
        )
        limit_threads(threads)
        made = _make(place, options, previous, terminal)
        row = seal_and_add(database, made, signer, terminal, replace=replace)
        if is_url(model):
            _expose(model, options, made, database, terminal)
        _tell(home, database, row, made, terminal)
        shown = describe(row, made.manifest)
        emit(wanted, {"fingerprint": shown}, lambda page: table(row, made.manifest, page))


def _expose(url: str, options: CreateOptions, made: Fingerprint, database: Database, terminal: Terminal) -> None:
    """Record that the owner's own host has seen all probes: they were made by asking it."""
    from cli.remote import warn
    from fingerprint.remote.url import parse

    place = parse(url, options.remote.protocol).origin
    database.expose(made.manifest.probes.merkle_root, range(made.manifest.probes.count), place)
    warn([url], options.remote.headers, terminal)


def _make(
    place: Path | str, options: CreateOptions, previous: FingerprintRow | None, terminal: Terminal
) -> Fingerprint:
    """The record, naming the one that it follows."""
    import dataclasses

    from fingerprint.api.create import create as make
    from fingerprint.engine.allocator import keep_freed_memory

    keep_freed_memory()

    made = make(place, options, progress=terminal)
    terminal.close()
    if previous is None:
        return made
    return dataclasses.replace(made, manifest=made.manifest.model_copy(update={"previous": previous.id}))


def _tell(home: Home, database: Database, row: FingerprintRow, made: Fingerprint, terminal: Terminal) -> None:
    from cli.access import data_key_path
    from store.keys import trusted_keys

    path = data_key_path(home, row.tensors_sha256)
    terminal.note(
        f"The probes are stored encrypted; their data key lies in {path} (mode 0600). Whoever has it can read them."
    )
    if not made.manifest.seed.evidential:
        terminal.note("Made with --seed: this record is for tests and is no evidence.")
    if not set(row.key_ids) & trusted_keys(home).keys():
        terminal.note("The public half of the signing key is not trusted here: verify will need it with --key.")
