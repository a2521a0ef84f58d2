"""Flags that several verbs share, each defined once."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias, get_type_hints

import typer

from fingerprint.frozen import dataclass

if TYPE_CHECKING:
    from cli.output import Target


class Calibration(StrEnum):
    """How the error between models is calibrated."""

    auto = "auto"
    conformal = "conformal"
    fitted = "fitted"
    declared = "declared"


class KeyType(StrEnum):
    """What a signing key signs with."""

    ed25519 = "ed25519"
    ecdsa_p256 = "ecdsa-p256"


class Protocol(StrEnum):
    """What an endpoint speaks."""

    oip = "oip"
    tfserving = "tfserving"
    torchserve = "torchserve"


Db: TypeAlias = Annotated[
    Path | None, typer.Option("--db", metavar="PATH", help="Database file. Default: fingerprint.db in the home folder.")
]
Format: TypeAlias = Annotated[str, typer.Option("--format", "-f", metavar="FORMAT", help="table, json or jsonl.")]
Output: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--output", "-o", metavar="FORMAT=PATH", help="Also write to a file. Repeatable.", show_default=False),
]
ReportFormat: TypeAlias = Annotated[
    str,
    typer.Option(
        "--format",
        "-f",
        metavar="FORMAT",
        help="table, json, jsonl, sarif, markdown, html, csv, parquet, cyclonedx, or a plug-in's.",
    ),
]
Quiet: TypeAlias = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes on stderr.")]
Debug: TypeAlias = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@dataclass(frozen=True)
class Common:
    """What the flags say that every verb has."""

    db: Path | None
    format: str
    output: list[str] | None
    quiet: bool
    debug: bool
    reports: bool

    def targets(self) -> list[Target]:
        """Where output goes, checked before any long work. Raises as `output.targets` does."""
        from cli.output import targets

        return targets(self.format, self.output, reports=self.reports)


_COMMON = {"db": (Db, None), "format": (Format, "table"), "output": (Output, None), "quiet": (Quiet, False)}
_COMMON |= {"debug": (Debug, False)}


def with_common(verb: Callable[..., None]) -> Callable[..., None]:
    """The verb as typer sees it: its parameter `common` stands for the flags --db, -f, -o, -q and --debug."""
    return _with(verb, _COMMON, reports=False)


def with_reports(verb: Callable[..., None]) -> Callable[..., None]:
    """The same for a verb that writes reports: -f and -o know all formats."""
    return _with(verb, {**_COMMON, "format": (ReportFormat, "table")}, reports=True)


def _with(
    verb: Callable[..., None], common: Mapping[str, tuple[object, object]], *, reports: bool
) -> Callable[..., None]:
    hints = get_type_hints(verb, include_extras=True)
    own = [p.replace(annotation=hints[p.name]) for p in signature(verb).parameters.values() if p.name != "common"]
    added = [Parameter(n, Parameter.KEYWORD_ONLY, default=value, annotation=a) for n, (a, value) in common.items()]

    @wraps(verb)
    def run(**values: object) -> None:
        shared = Common(**{name: values.pop(name) for name in common}, reports=reports)  # type: ignore[arg-type]
        verb(**values, common=shared)

    run.__signature__ = Signature([*own, *added])  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in [*own, *added]}
    return run


# -- flags that several verbs share -----------------------------------------------------------------------------------

SigningKey: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--key", metavar="FILE", help="Private key that signs. Default: keys/fingerprint.key in the home folder."
    ),
]
KeyKind: TypeAlias = Annotated[KeyType, typer.Option("--type", help="What the key signs with.")]
PassphraseFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        metavar="FILE",
        help="File with the key's passphrase. Else FINGERPRINT_PASSPHRASE, else a prompt on a terminal.",
    ),
]
TrustedKeys: TypeAlias = Annotated[
    list[Path] | None,
    typer.Option(
        "--key",
        metavar="PUB",
        envvar="FINGERPRINT_TRUSTED_KEYS",
        show_envvar=False,
        show_default=False,
        help="Public key to trust besides those in the home folder. Repeatable.",
    ),
]
Spec: TypeAlias = Annotated[
    Path | None,
    typer.Option("--spec", metavar="FILE", help="Input spec. Default: MODEL.spec.json beside the file."),
]
Data: TypeAlias = Annotated[
    Path | None, typer.Option("--data", metavar="PATH", help="Clean images: a folder, a zip, or an .npz.")
]
Factory: TypeAlias = Annotated[
    str | None,
    typer.Option("--factory", metavar="MODULE:CALLABLE", help="Builds the torch module whose state dict a file holds."),
]
AllowCode: TypeAlias = Annotated[
    bool, typer.Option("--allow-code", help="Open formats that can carry code even where no sandbox holds it.")
]
Against: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--against",
        metavar="NAME|ID|FILE",
        show_default=False,
        help="Fingerprint to compare with. Repeatable. Default: all in the database.",
    ),
]
Alpha: TypeAlias = Annotated[
    float, typer.Option("--alpha", metavar="P", help="Bound on the probability of `derived` for an unrelated model.")
]
CalibrationKind: TypeAlias = Annotated[
    Calibration, typer.Option("--calibration", help="How the error between models is calibrated.")
]
LabelOnly: TypeAlias = Annotated[bool, typer.Option("--label-only", help="Use nothing of an answer but its top label.")]
Weights: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--weights",
        help="Also compare a file's weights with the owner's. Done anyway where the record judges integrity.",
    ),
]
Allow: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--allow",
        metavar="TRANSFORM",
        show_default=False,
        help="Compression that is in order, as an upper limit: prune:magnitude:0.5. Repeatable. See: derive --help",
    ),
]
SuspectTimestamp: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--suspect-timestamp",
        metavar="TSR",
        show_default=False,
        help="RFC 3161 timestamp over the suspect: says who came first, where the fingerprint has one too.",
    ),
]
NoCache: TypeAlias = Annotated[
    bool, typer.Option("--no-cache", help="Ask again, even where an earlier run has the verdict.")
]
MakeReferences: TypeAlias = Annotated[
    int,
    typer.Option(
        "--make-references",
        metavar="N",
        min=0,
        help="Train N small nets from the labelled images of --data as references. They count as one author.",
    ),
]
Controls: TypeAlias = Annotated[
    list[Path] | None,
    typer.Option(
        "--control-set",
        metavar="PATH",
        show_default=False,
        help="Other owners' models, of which probes of the same make are kept to compare with. Trusted. Repeatable.",
    ),
]
Ancestors: TypeAlias = Annotated[
    list[Path] | None,
    typer.Option(
        "--ancestor",
        metavar="FILE",
        show_default=False,
        help="A public model that the owner's was made from: what is shared with it does not count. Repeatable.",
    ),
]
Threads: TypeAlias = Annotated[
    int, typer.Option("--threads", metavar="N", min=0, help="Threads of each suspect's runtime; 0 = all cores.")
]
Device: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="NAME",
        help="cpu, cuda, cuda:N, mps, or auto: what there is. Default: cpu.",
        show_default=False,
        autocompletion=lambda incomplete: [d for d in ("cpu", "auto", "cuda", "mps") if d.startswith(incomplete)],
    ),
]
OwnerThreads: TypeAlias = Annotated[
    int,
    typer.Option(
        "--threads", metavar="N", min=0, help="Threads of torch; 0 = all cores. 1 is faster for very small models."
    ),
]
ShowProbes: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--show-probes", help="HTML: show probes as pictures, with all answers. They are secret, and count as exposed."
    ),
]
Verbose: TypeAlias = Annotated[bool, typer.Option("--verbose", "-v", help="Explain every verdict in a paragraph.")]


def compute_on(device: str | None) -> None:
    """Let this process, and those that it starts, compute on the device that was asked for (`--device`).

    Raises:
        UsageError: no such name, or a GPU that this machine does not have.
    """
    if device is not None:
        from fingerprint.runtimes.devices import VARIABLE, wanted

        wanted(device)
        os.environ[VARIABLE] = device


# -- suspects that are no file (docs/black-box.md) -------------------------------------------------------------------

Repeat: TypeAlias = Annotated[
    int, typer.Option("--repeat", metavar="N", min=1, help="Send every input N times; the majority's label counts.")
]
Sequential: TypeAlias = Annotated[
    bool | None,
    typer.Option(
        "--sequential/--all-probes",
        help="Ask step by step and stop when the answer is clear. Default: for endpoints only.",
        show_default=False,
    ),
]
Cover: TypeAlias = Annotated[
    float,
    typer.Option(
        "--cover",
        metavar="X",
        min=0.0,
        max=100.0,
        help="Clean images mixed in for every probe; a host that tells them apart is reported as evasive.",
    ),
]
Jitter: TypeAlias = Annotated[
    int, typer.Option("--jitter", metavar="N", min=0, max=8, help="Grey levels of noise on all inputs, with --cover.")
]
ProtocolKind: TypeAlias = Annotated[
    Protocol | None, typer.Option("--protocol", help="What an endpoint speaks. Default: told by the URL.")
]
Batch: TypeAlias = Annotated[
    int | None,
    typer.Option("--batch", metavar="N", min=1, help="Inputs per request. Default: 8, or what the host demands."),
]
Rate: TypeAlias = Annotated[
    float | None, typer.Option("--rate", metavar="N", help="Requests per second at most. Default: no bound.")
]
Retries: TypeAlias = Annotated[
    int, typer.Option("--retries", metavar="N", min=0, help="Of a failed request, with growing pauses.")
]
Timeout: TypeAlias = Annotated[float, typer.Option("--timeout", metavar="S", help="Seconds for one request.")]
Headers: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--headers", metavar="FILE", help="`Name: value` lines to send. A bearer token: also FINGERPRINT_TOKEN."
    ),
]
OutputName: TypeAlias = Annotated[
    str | None, typer.Option("--output-name", metavar="NAME", help="The output to read, where a host has several.")
]
ClassNames: TypeAlias = Annotated[
    Path | None, typer.Option("--class-names", metavar="FILE", help="What labels are called, in order of the classes.")
]
Responses: TypeAlias = Annotated[
    Path | None,
    typer.Option("--responses", metavar="FILE", help="What a device answered to exported probes, as the suspect."),
]
ExportId: TypeAlias = Annotated[
    str | None,
    typer.Option("--export", metavar="ID", help="The export that --responses answers, if the file does not say it."),
]
