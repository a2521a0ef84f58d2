"""What verify and audit share: what was asked, what is compared, how it is recorded and what it exits with."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from cli.exits import Expect, FailOn, Finding
from fingerprint import __version__
from fingerprint.api.results import FingerprintRef, Result
from fingerprint.errors import StoreError
from store.rows import ResultRow, RunKind

if TYPE_CHECKING:
    from cli.access import Selection
    from cli.output import Target
    from fingerprint.api.verify import VerifyOptions
    from fingerprint.progress import Progress
    from store.database import Database

T = TypeVar("T")
WRITE_EVERY_S = 0.5  # seconds of results that a killed run may lose


@dataclass(frozen=True)
class Request:
    """What the flags say besides how to verify. `known`: reuse the verdicts of earlier runs."""

    against: Sequence[str]
    keys: Sequence[Path]
    db: Path | None
    targets: Sequence[Target]
    verbose: bool
    known: bool
    fail_on: FailOn
    expect: Expect | None = None


class Recorder:
    """Records one run. Where the database can't be written the run goes on unrecorded, with one note.

    What is recorded is each result by itself, before any correction for many tests: that is what a later run reuses.
    """

    def __init__(self, database: Database, progress: Progress) -> None:
        self.database = database
        self.run: str | None = None
        self._progress = progress
        self._on = True
        self._pending: list[ResultRow] = []
        self._written = time.monotonic()

    def start(self, kind: RunKind, parameters: Mapping[str, object]) -> None:
        """Open the run."""
        if self._on:
            self.run = self._try(lambda: self.database.start_run(kind, parameters, __version__))

    def add(self, result: Result) -> None:
        """Record a result; those of half a second are written together."""
        self._pending.append(stored(result))
        if time.monotonic() - self._written >= WRITE_EVERY_S:
            self._write()

    def finish(self) -> None:
        """Write what is left and close the run."""
        self._write()
        run = self.run
        if run is not None and self._on:
            self._try(lambda: self.database.finish_run(run))

    def _write(self) -> None:
        run, rows = self.run, self._pending
        if run is not None and self._on and rows:
            self._try(lambda: self.database.add_results(run, rows))
        self._pending, self._written = [], time.monotonic()

    def _try(self, write: Callable[[], T]) -> T | None:
        try:
            return write()
        except StoreError as error:
            self._on = False
            self._progress.note(f"The results are not recorded: {error.diagnosis()}")
            return None


def stored(result: Result) -> ResultRow:
    """A result as the database keeps it."""
    return ResultRow(
        suspect_sha256=result.suspect.sha256,
        suspect_path=result.suspect.path,
        format=result.suspect.format,
        runtime=result.suspect.runtime,
        fingerprint_id=result.fingerprint.id,
        settings_sha256=result.settings_sha256 or "",
        status=result.status,
        row=result.to_dict(),
    )


def finding(result: Result) -> Finding:
    """What of a result decides about the exit."""
    return Finding(result.suspect.path, result.lineage, result.integrity)


def with_closed(results: Iterable[Result], selection: Selection) -> Generator[Result]:
    """The results, each suspect's followed by a `skipped` row for every fingerprint that can't be opened here."""
    each = len(selection.fingerprints)
    for count, result in enumerate(results, start=1):
        yield result
        if count % each == 0:
            for row, reason in selection.closed:
                yield Result(result.suspect, FingerprintRef(row.id, row.name), "skipped", reason)


def parameters(places: Sequence[str], selection: Selection, options: VerifyOptions) -> dict[str, object]:
    """What a run was asked, as the database records it."""
    return {
        "places": list(places),
        "against": [f.id for f in selection.fingerprints],
        "alpha": options.alpha,
        "calibration": options.calibration,
        "budget": options.budget,
        "label_only": options.label_only,
        "data": str(options.data) if options.data else None,
        "spec": options.spec.to_dict() if options.spec else None,
        "factory": options.factory,
        "allow_code": options.allow_code,
    }
