"""fingerprint attest reproduce and challenge: what a judge asks of a record in a dispute (DESIGN section 6)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import options as flags

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cli.terminal import Terminal
    from fingerprint.api.challenge import Challenge
    from fingerprint.api.results import Result
    from fingerprint.record import Fingerprint

Record = Annotated[
    str, typer.Argument(metavar="RECORD", help="A fingerprint's name, id, or exported file.", show_default=False)
]
Suspects = Annotated[
    list[Path] | None,
    typer.Option("--suspect", metavar="FILE", show_default=False, help="A model in dispute. Repeatable."),
]


@flags.with_common
def reproduce(
    record: Record,
    model: Annotated[
        Path, typer.Option("--model", metavar="OWNER", help="The owner's released file.", show_default=False)
    ],
    nonce: Annotated[
        str | None,
        typer.Option(
            "--nonce",
            metavar="N",
            show_default=False,
            help="Drawn by the judge after the record was timestamped: fresh probes are made from it.",
        ),
    ] = None,
    data: flags.Data = None,
    reference: Annotated[
        list[Path] | None,
        typer.Option(
            "--reference", metavar="PATH", show_default=False, help="With --nonce: unrelated models. Repeatable."
        ),
    ] = None,
    suspect: Suspects = None,
    alpha: flags.Alpha = 0.01,
    factory: flags.Factory = None,
    allow_code: flags.AllowCode = False,
    key: flags.TrustedKeys = None,
    *,
    common: flags.Common,
) -> None:
    """Make a record's probes again from the owner's model, or fresh ones from a judge's nonce.

    Without --nonce: the recorded probes are made again from the model and the secret K, and compared. Exit 0 if they
    are equal, bit for bit or within the tolerance that other platforms need; 1 if they are different. --data: the
    images that create had.

    With --nonce: default-parameter probes that neither side could choose. They are calibrated on --reference, and
    decide about each --suspect: exit 1 if one is derived, 3 if none is but one is inconclusive.

    \b
    Examples:
      fingerprint attest reproduce my-model --model owner.onnx
      fingerprint attest reproduce claim.fingerprint --key claimant.pub --model owner.onnx \\
        --nonce 9f2c41d07a5be86311c0 --reference unrelated/ --suspect accused.onnx
    """
    from cli.output import emit
    from cli.terminal import Terminal
    from fingerprint.errors import UsageError

    wanted = common.targets()
    if nonce is None and (reference or suspect):
        raise UsageError("--reference and --suspect go with --nonce")
    with Terminal(quiet=common.quiet) as terminal:
        opened = _open(record, common.db, key or ())
        if nonce is not None:
            made = _fresh(opened, model, nonce, data, reference or (), factory, allow_code, terminal)
            raise typer.Exit(_decide(made, suspect or (), alpha, allow_code, common, terminal))
        from fingerprint.api.reproduce import reproduce as again

        found = again(opened, model, data=data, factory=factory, progress=terminal)
    emit(wanted, {"reproduction": found.to_dict()}, lambda page: f"{found.agreement}: {found.explanation}\n")
    raise typer.Exit(1 if found.agreement == "different" else 0)


@flags.with_common
def challenge(
    record: Record,
    models: Annotated[
        list[Path],
        typer.Option(
            "--models",
            metavar="DIR",
            show_default=False,
            help="Models that the judge picked, unrelated to the owner's: a folder or a file. Repeatable.",
        ),
    ],
    suspect: Suspects = None,
    alpha: flags.Alpha = 0.01,
    factory: flags.Factory = None,
    allow_code: flags.AllowCode = False,
    key: flags.TrustedKeys = None,
    *,
    common: flags.Common,
) -> None:
    """Ask a record's probes of independent models that a judge picked.

    A record that recognises models which were never derived from its owner's is no evidence against any. It fails if
    by its own calibration it accuses too many of them, or if among them not even an exact copy would stand out. Each
    --suspect is judged with these models as the only references.

    Exit 0 if it passes, 1 if it fails, 3 if the models are too few to say.

    \b
    Examples:
      fingerprint attest challenge my-model --models judges-models/
      fingerprint attest challenge claim.fingerprint --key claimant.pub --models judges-models/ --suspect accused.onnx
    """
    from cli.output import emit
    from cli.terminal import Terminal

    wanted = common.targets()
    with Terminal(quiet=common.quiet) as terminal:
        opened = _open(record, common.db, key or ())
        from fingerprint.api.challenge import ChallengeOptions
        from fingerprint.api.challenge import challenge as ask

        options = ChallengeOptions(alpha, suspect or (), allow_code, factory)
        found = ask(opened, models, options, progress=terminal)
    emit(wanted, {"challenge": found.to_dict()}, lambda page: _table(found))
    raise typer.Exit({"passed": 0, "failed": 1, "inconclusive": 3}[found.outcome])


def _open(record: str, db: Path | None, keys: Sequence[Path]) -> Fingerprint:
    from cli.access import open_readonly, select
    from store.home import Home
    from store.keys import trusted_keys

    home = Home.default()
    with open_readonly(home, db) as database:
        (opened,) = select(database, [record], trusted_keys(home, keys)).fingerprints
    return opened


def _fresh(
    opened: Fingerprint,
    model: Path,
    nonce: str,
    data: Path | None,
    references: Sequence[Path],
    factory: str | None,
    allow_code: bool,
    terminal: Terminal,
) -> Fingerprint:
    from fingerprint.api.reproduce import fresh

    terminal.note("A nonce decides only if it was drawn after the record was timestamped: fingerprint attest verify.")
    return fresh(
        opened,
        model,
        nonce,
        data=data,
        references=references,
        factory=factory,
        allow_code=allow_code,
        progress=terminal,
    )


def _decide(
    made: Fingerprint,
    suspects: Sequence[Path],
    alpha: float,
    allow_code: bool,
    common: flags.Common,
    terminal: Terminal,
) -> int:
    """Judge the suspects by fresh probes; print; answer the exit code."""
    from cli.comparing import finding
    from cli.exits import FailOn, exit_code
    from cli.output import emit
    from fingerprint.api.verify import VerifyOptions, verify
    from fingerprint.decision.reach import reach

    options = VerifyOptions(alpha=alpha, allow_code=allow_code)
    results = list(verify(list(suspects), [made], options, progress=terminal)) if suspects else []
    sentence = reach(made.manifest, alpha).sentence
    document = {
        "fresh": {
            "probes": made.manifest.probes.count,
            "merkle_root": made.manifest.probes.merkle_root,
            "robustness": made.manifest.uniqueness.robustness,
            "references": len(made.manifest.references),
            "reach": sentence,
        },
        "results": [result.to_dict() for result in results],
    }
    terminal.close()
    emit(common.targets(), document, lambda page: _fresh_table(made, results, sentence))
    return exit_code([finding(r) for r in results], FailOn.derived)


def _fresh_table(made: Fingerprint, results: Sequence[Result], sentence: str) -> str:
    lines = [f"{made.manifest.probes.count} fresh probes from the model and the nonce. {sentence}"]
    return "\n".join([*lines, *(_said(result) for result in results)]) + "\n"


def _table(found: Challenge) -> str:
    from fingerprint.report.text import printable

    lines = [f"{found.outcome}: {found.reason}"]
    lines += [f"  {rate:4.0%}  {printable(path)}" for path, rate in sorted(found.models, key=lambda m: -m[1])]
    if found.bound is not None:
        lines.append(f"Among these models, a match above {found.bound:.0%} stands out at {found.alpha:g}.")
    return "\n".join([*lines, *(_said(claim) for claim in found.claims)]) + "\n"


def _said(result: Result) -> str:
    from fingerprint.decision.verdict import explain
    from fingerprint.report.text import printable

    said = result.reason if result.verdict is None else f"{result.lineage}. {explain(result.verdict)}"
    return f"{printable(result.suspect.path)}: {said}"
