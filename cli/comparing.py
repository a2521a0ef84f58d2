"""What verify and audit share: what was asked, what is compared, and what decides about the exit."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cli.exits import Expect, FailOn, Finding
from fingerprint.frozen import dataclass

if TYPE_CHECKING:
    from cli.access import Selection
    from cli.output import Target
    from cli.terminal import Terminal
    from fingerprint.api.results import Result
    from fingerprint.api.verify import VerifyOptions


@dataclass(frozen=True)
class Request:
    """What the flags say besides how to verify. `known`: reuse the verdicts of earlier runs.

    show_probes: reports show them, and their files are private. timestamp: of the suspect, a file.
    """

    against: Sequence[str]
    keys: Sequence[Path]
    db: Path | None
    targets: Sequence[Target]
    verbose: bool
    known: bool
    fail_on: FailOn
    expect: Expect | None = None
    show_probes: bool = False
    timestamp: Path | None = None


def finding(result: Result) -> Finding:
    """What of a result decides about the exit."""
    return Finding(result.suspect.path, result.lineage, result.integrity)


def with_closed(results: Iterable[Result], selection: Selection) -> Generator[Result]:
    """The results, each suspect's followed by a `skipped` row for every fingerprint that can't be opened here."""
    from fingerprint.api.results import FingerprintRef, Result

    each = len(selection.fingerprints)
    for count, result in enumerate(results, start=1):
        yield result
        if count % each == 0:
            for row, reason in selection.closed:
                yield Result(result.suspect, FingerprintRef(row.id, row.name), "skipped", reason)


def note_unlabelled(data: Path | None, selection: Selection, terminal: Terminal) -> None:
    """Say for which fingerprints the images of `--data` have no labels. Raises DataError: they can't be read."""
    if data is None:
        return
    from fingerprint.data import has_labels

    classes = sorted({f.manifest.outputs for f in selection.fingerprints})
    for count in (count for count in classes if not has_labels(data, count)):
        names = sorted({f.manifest.name for f in selection.fingerprints if f.manifest.outputs == count})
        terminal.note(
            f"The images of --data have no labels for {count} classes ({', '.join(names)}): a suspect without a spec "
            "is settled on those of the record, if it keeps some. Labels are one folder per class, or `labels` in "
            "an .npz."
        )


def parameters(
    places: Sequence[str], selection: Selection, options: VerifyOptions, timestamp: Path | None = None
) -> dict[str, object]:
    """What a run was asked, as the database records it."""
    return {
        "places": list(places),
        "against": [f.id for f in selection.fingerprints],
        "alpha": options.alpha,
        "calibration": options.calibration,
        "budget": options.budget,
        "repeat": options.repeat,
        "label_only": options.label_only,
        **({"weights": True} if options.weights else {}),
        "allow": list(options.allow),
        "data": str(options.data) if options.data else None,
        "spec": options.spec.to_dict() if options.spec else None,
        "factory": options.factory,
        "allow_code": options.allow_code,
        "remote": options.remote.to_dict(),
        **({"suspect_timestamp": str(timestamp)} if timestamp else {}),
    }
