"""Signed statements other than fingerprints, and timestamps: against their signatures, the rows and the ledger."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, assert_never

from fingerprint.errors import FingerprintError, RevokedSigner
from fingerprint.record import Manifest
from store import dsse, envelopes, ledger, predicates, takeovers
from store.problems import Problem, error, failure
from store.run_statement import placed
from store.runs import by_id, row_digests
from store.schema import compact_json
from store.vouching import revoked

if TYPE_CHECKING:
    from store.connection import Connection
    from store.keys import Keys
    from store.trail import Trail

_RESULT = (
    "SELECT position, suspect_sha256, suspect_path, format, runtime, fingerprint_id, settings_sha256, status, row "
    "FROM results"
)


def check_envelopes(connection: Connection, trail: Trail, keys: Keys) -> Iterator[Problem]:
    """Every envelope is in the ledger, every one of the ledger is here, and what they say is what the rows say."""
    left = dict(trail.envelopes)
    query = "SELECT sha256, predicate_type, added FROM envelopes ORDER BY rowid"
    for row in connection.rows(query):
        sha256 = str(row["sha256"])
        subject = f"envelope {sha256[:16]}"
        came = left.pop(sha256, None)
        known = came is not None or sha256 in trail.records
        if not known:
            yield error(subject, "is not in the ledger")
        elif sha256 in trail.records:
            if (row["predicate_type"], row["added"]) != (predicates.FINGERPRINT, trail.records[sha256].get("added")):
                yield error(subject, "is filed as something else than it is")
            continue  # its content was compared with its index entry
        if row["added"] != came:
            yield error(subject, "was not added when the ledger says")
        try:
            yield from _statement(connection, subject, sha256, row["predicate_type"], keys)
        except RevokedSigner as raised:
            yield revoked(connection, trail, keys, subject, sha256, raised)
        except FingerprintError as raised:
            yield failure(subject, raised)
    for sha256 in [*left, *(i for i in trail.records if not _stored(connection, i))]:
        yield error(f"envelope {sha256[:16]}", "is in the ledger, and missing from the database")
    yield from _unsigned(connection, trail)
    for row in connection.iterate("SELECT sha256, response FROM timestamps"):
        if not isinstance(row["response"], bytes) or hashlib.sha256(row["response"]).hexdigest() != row["sha256"]:
            yield error(f"timestamps {str(row['sha256'])[:20]}", "is not the token that was stored")


def _stored(connection: Connection, sha256: str) -> bool:
    return bool(connection.rows("SELECT 1 FROM envelopes WHERE sha256 = ?", (sha256,)))


def _statement(connection: Connection, subject: str, sha256: str, kind: str, keys: Keys) -> Iterator[Problem]:
    verified = dsse.verify(envelopes.read(connection, sha256), keys)
    statement = predicates.parse(verified.payload, verified.payload_type)
    if statement.predicate_type != kind:
        yield error(subject, "is filed as something else than it is")
    found = statement.predicate
    match found:
        case predicates.RunStatement():
            yield from _run(connection, subject, found)
            place = found.ledger
        case predicates.Reveal() | predicates.Checkpoint():
            place = found.ledger
        case predicates.KeyEvent() | predicates.Bundle() | Manifest():
            place = None
        case _:
            assert_never(found)
    if place is not None and not _holds(connection, place):
        yield error(subject, f"signs entry {place.seq} of the ledger, which is not here: the ledger was rewritten")


def _holds(connection: Connection, place: predicates.Place) -> bool:
    entry = ledger.by_hash(connection, place.hash)
    return entry is not None and entry.seq == place.seq


def _run(connection: Connection, subject: str, said: predicates.RunStatement) -> Iterator[Problem]:
    """A signed run against its row and its results. Raises NotFound, Tampered."""
    run = by_id(connection, said.run.id)
    signed = said.run.model_dump(mode="json")
    whole = signed.pop("results_sha256")
    if compact_json(signed) != compact_json(vars(run)):
        yield error(f"run {run.id}", f"is not what was signed ({subject})")
    if said.part.index == 0 and ledger.digest_rows(row_digests(connection, run.id)) != whole:
        yield error(f"run {run.id}", f"its results are not those that were signed ({subject})")
    contents = list(placed(said))
    first = said.part.first
    query = f"{_RESULT} WHERE run_id = ? AND position >= ? AND position <= ? ORDER BY position"
    rows = connection.rows(query, (run.id, first, max((at for at, _ in contents), default=first)))
    stored = {row["position"]: tuple(row)[1:] for row in rows}
    taken = {one.first: one for one in takeovers.of_run(connection, run.id)} if said.taken else {}
    for at, result in contents:
        if isinstance(result, predicates.TakenOver):
            yield from _taken(connection, subject, run.id, taken.get(at), result)
            continue
        values = result.model_dump(mode="json")
        wanted = (*(v for k, v in values.items() if k != "row"), compact_json(values["row"]))
        if stored.get(at) != wanted:
            yield error(f"result {at} of run {run.id}", f"is not what was signed ({subject})")


def _taken(
    connection: Connection, subject: str, run_id: str, stored: takeovers.Taken | None, said: predicates.TakenOver
) -> Iterator[Problem]:
    """A signed reference against its row, and the rows that it stands for."""
    what = f"result {said.first} of run {run_id}" + (f" and {said.count - 1} more" if said.count > 1 else "")
    if stored is None or vars(stored) != {**said.model_dump(exclude={"sha256"}), "run_id": run_id}:
        yield error(what, f"is not taken over as it was signed ({subject})")
        return
    rows = takeovers.TakenRows(said.source_run, said.source_first, said.count)
    if ledger.digest_rows(takeovers.digests(connection, rows)) != said.sha256:
        yield error(what, f"is taken over from rows of run {said.source_run} that are not those signed ({subject})")


def _unsigned(connection: Connection, trail: Trail) -> Iterator[Problem]:
    """The parts of a signed run are all there."""
    for run_id, run in trail.runs.items():
        if not run.envelopes:
            continue
        parts: dict[int, set[int]] = {}
        for sha256 in run.envelopes:
            try:
                payload = json.loads(dsse.read_unverified(envelopes.read(connection, sha256)).payload)
                part = payload["predicate"]["part"]
                parts.setdefault(part["of"], set()).add(part["index"])
            except (FingerprintError, ValueError, KeyError, TypeError):
                continue  # told above
        for of, found in parts.items():
            if found != set(range(of)):
                yield error(f"run {run_id}", "some of its signed parts are missing")
