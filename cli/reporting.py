"""What reports know of a run besides its rows: the run itself, the records compared with, and probes where asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from cli.output import PLAIN, Target
from fingerprint.errors import NotFound, UsageError
from fingerprint.frozen import dataclass
from fingerprint.report.interface import RecordView, Row, Summary

if TYPE_CHECKING:
    from cli.comparing import Request
    from cli.records import Records
    from cli.terminal import Terminal
    from fingerprint.api.results import Result
    from fingerprint.record import Fingerprint
    from store.database import Database
    from store.keys import Keys
    from store.rows import RunRow

SHOWS_PROBES = ("html",)
Answers = Mapping[tuple[str, str | None], Mapping[str, Sequence[int]]]


@dataclass(frozen=True)
class Wanted:
    """What the formats asked for can use."""

    run: bool
    records: bool
    probes: bool


def wanted(targets: Iterable[Target], *, show_probes: bool) -> Wanted:
    """What to find out for these formats.

    Raises:
        UsageError: probes are to be shown, and no format can.
    """
    from fingerprint.report.registry import report_class

    formats = {t.format for t in targets}
    if show_probes and not formats & set(SHOWS_PROBES):
        raise UsageError("--show-probes needs a format that shows pictures", remedy="For example: -o html=report.html")
    classes = [report_class(name) for name in formats]
    return Wanted(bool(formats - set(PLAIN)), any(c.shows_records for c in classes), show_probes)


def after(
    summary: Summary,
    results: Sequence[Result],
    compared: Iterable[Fingerprint],
    request: Request,
    records: Records,
    terminal: Terminal,
) -> Summary:
    """The summary of a run that has just ended, with as much as the formats asked for can use.

    Raises:
        StoreError: probes are to be shown, and that they are exposed can't be recorded.
    """
    needed = wanted(request.targets, show_probes=request.show_probes)
    run = records.row() if needed.run else None
    if run is not None:
        summary = about_run(summary, run)
    if needed.records:
        summary = replace(summary, records=views_of(compared, records.signers, probes=needed.probes))
    if needed.probes:
        summary = replace(summary, answers=answers_of(results))
        expose([r.to_dict() for r in results], summary, request.targets, records.expose, terminal)
    return summary


def about_run(summary: Summary, run: RunRow) -> Summary:
    """The summary, with what the database says of the run."""
    return replace(
        summary,
        run=run.id,
        tool_version=run.tool_version,
        started=run.started,
        finished=run.finished,
        parameters=run.parameters,
    )


def answers_of(results: Iterable[Result]) -> Answers:
    """What suspects answered, as `Summary.answers` has it."""
    return {(r.suspect.path, r.fingerprint.id): r.answers for r in results if r.answers is not None}


def views_of(
    fingerprints: Iterable[Fingerprint], signers: Callable[[str], tuple[str, ...]], *, probes: bool
) -> dict[str, RecordView]:
    """Records that a run compared with. signers: id -> key ids."""
    return {
        f.id: RecordView(f.manifest, signers(f.id), f.payload if probes else None)
        for f in fingerprints
        if f.id is not None
    }


def stored_views(database: Database, rows: Sequence[Row], keys: Keys, *, probes: bool) -> dict[str, RecordView]:
    """The same for a run of the past: records that are still in the database, their signatures checked again.

    Raises:
        EvidenceError: a record does not hold, or its signer is not trusted.
        StoreError: probes are to be shown, and the data key is not on this machine.
    """
    found = {}
    for identity in dict.fromkeys(row["fingerprint"]["id"] for row in rows):
        try:
            row = database.find(identity or "")
        except NotFound:
            continue
        if probes:
            record = database.load(row, keys)
            found[row.id] = RecordView(record.manifest, row.key_ids, record.payload)
        else:
            found[row.id] = RecordView(database.manifest(row, keys), row.key_ids)
    return found


def expose(
    rows: Sequence[Row],
    summary: Summary,
    targets: Iterable[Target],
    record: Callable[[str, frozenset[int], str], None],
    terminal: Terminal,
) -> None:
    """Mark the probes that a report will show as exposed, before it is written.

    Raises:
        StoreError: that can't be recorded.
    """
    from fingerprint.report.html.report import shown_probes

    places = [str(t.path) if t.path else "standard output" for t in targets if t.format in SHOWS_PROBES]
    shown = shown_probes(rows, summary)
    for identity, numbers in shown.items():
        for place in places:
            record(summary.records[identity].manifest.probes.merkle_root, frozenset(numbers), f"report {place}")
    count = sum(map(len, shown.values()))
    terminal.note(
        f"The report shows {count} probes, which count as exposed from now on. Whoever sees them can prepare a model."
    )


def restored(row: Row) -> Result:
    """A stored row as a result again."""
    from fingerprint.api.results import Result

    return replace(Result.from_dict(row), answers=row.get("answers"))
