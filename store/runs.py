"""The tables of runs and results, and what is known already."""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

from fingerprint.errors import NotFound, StoreError
from store import envelopes, ledger, takeovers
from store.connection import Connection, SqlValue
from store.ledger import now
from store.rows import RESULT_COLUMNS, ResultRow, RunKind, RunRow, result_value, verified
from store.schema import compact_json, row_digest, unicode_only
from store.takeovers import Stretch, Taken, TakenRows

Sign: TypeAlias = Callable[[Connection], "Iterable[tuple[bytes, str]]"]  # (envelope, predicate type) for each
DECIDED = ("decided",)  # statuses that need no second look

SELECT_RUNS = "SELECT id, kind, started, finished, tool_version, parameters, results, row_sha256 FROM runs"
_COLUMNS = (*RESULT_COLUMNS, "row_sha256")
_INSERT = f"INSERT INTO results ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"  # noqa: S608
SELECT_RESULTS = f"SELECT {', '.join(_COLUMNS)} FROM results"  # noqa: S608 (constant column names)
# CROSS JOIN keeps SQLite from reordering: every wanted key is one look-up in the index `results_known`.
_KNOWN = """
    SELECT results.* FROM results WHERE number IN (
        SELECT max(number) FROM json_each(?1) AS suspects CROSS JOIN json_each(?2) AS fingerprints CROSS JOIN results
        WHERE suspect_sha256 = suspects.value AND fingerprint_id = fingerprints.value AND settings_sha256 = ?3
            AND status IN (SELECT value FROM json_each(?4))
        GROUP BY suspect_sha256, fingerprint_id)
"""


def start(connection: Connection, kind: RunKind, parameters: Mapping[str, object], tool_version: str) -> str:
    """Record that a run begins; returns its id, which sorts by time.

    Raises:
        StoreError: `parameters` is not JSON, or the database can't be written.
    """
    started = now()
    try:
        text = unicode_only(compact_json(dict(parameters)))
    except (TypeError, ValueError) as error:
        raise StoreError(f"the run's parameters can't be stored: {error}") from error
    values: dict[str, SqlValue] = {
        "id": f"{started[:19].translate(str.maketrans('', '', '-:'))}-{secrets.token_hex(4)}",
        "kind": kind,
        "started": started,
        "finished": None,
        "tool_version": tool_version,
        "parameters": text,
        "results": None,
    }
    row_sha256 = row_digest("runs", values)
    with connection.transaction():
        connection.execute(
            "INSERT INTO runs (id, kind, started, finished, tool_version, parameters, results, row_sha256) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (*values.values(), row_sha256),
        )
        ledger.append(connection, "start", str(values["id"]), {"row_sha256": row_sha256})
    return str(values["id"])


def finish(connection: Connection, run_id: str, sign: Sign | None = None) -> list[str]:
    """Record that a run ended, and how many results it has.

    Args:
        connection: the database.
        run_id: the run.
        sign: makes the signed statements of the ended run; they are stored with it, both or none.

    Returns:
        The digests of the envelopes that `sign` made.

    Raises:
        NotFound: no such run.
        StoreError: it ended before.
    """
    with connection.transaction():
        values = _unfinished(connection, run_id)
        finished, digests = now(), row_digests(connection, run_id)
        values |= {"finished": finished, "results": len(digests)}
        row_sha256 = row_digest("runs", values)
        connection.execute(
            "UPDATE runs SET finished = ?, results = ?, row_sha256 = ? WHERE id = ?",
            (finished, len(digests), row_sha256, run_id),
        )
        made = [] if sign is None else [envelopes.insert(connection, e, t, finished) for e, t in sign(connection)]
        body = {"row_sha256": row_sha256, "results": len(digests), "sha256": ledger.digest_rows(digests)}
        ledger.append(connection, str(values["kind"]), run_id, {**body, "envelopes": made}, time=finished)
    return made


def row_digests(connection: Connection, run_id: str) -> list[str]:
    """The digests of a run's results in their order; of one that is taken over, that of the row it is taken from.

    Raises:
        Tampered: a row that is taken over is missing.
    """
    found: list[str] = []
    for one in takeovers.stretches(connection, run_id):
        if one.count is None:
            found += [str(row[0]) for row in one.rows(connection, "row_sha256")]
        else:
            found += takeovers.digests(connection, TakenRows(one.source_run, one.source_first, one.count))
    return found


def _unfinished(connection: Connection, run_id: str) -> dict[str, SqlValue]:
    """Column values of a run that goes on. Raises NotFound, StoreError, Tampered."""
    run = by_id(connection, run_id)
    if run.finished is not None:
        raise StoreError(f"the run {run_id} has ended already")
    return vars(run) | {"parameters": compact_json(run.parameters)}


def add_results(
    connection: Connection,
    run_id: str,
    rows: Iterable[ResultRow | TakenRows],
    intake: Sequence[Mapping[str, object]] = (),
) -> None:
    """Store results of a run, all or none. `intake` says where their suspects came from.

    Raises:
        NotFound: no such run.
        StoreError: the run has ended, or a result is not JSON.
        Tampered: rows that are to be taken over are missing.
    """
    prepared = [row if isinstance(row, TakenRows) else row.to_sql() for row in rows]
    if not prepared:
        return
    with connection.transaction():
        _unfinished(connection, run_id)
        at = first = next_position(connection, run_id)
        own, taken, digests = list[tuple[SqlValue, ...]](), list[Taken](), dict[int, list[str]]()
        for values in prepared:
            if isinstance(values, TakenRows):
                taken.append(Taken(run_id, at, values.count, values.run_id, values.first))
                digests[at] = takeovers.digests(connection, values)
            else:
                complete = {"run_id": run_id, "position": at, **values}
                digests[at] = [row_digest("results", complete)]
                own.append((*complete.values(), *digests[at]))
            at += len(digests[at])
        connection.executemany(_INSERT, own)
        takeovers.insert(connection, taken)
        body = ledger.batch(
            first, [digest for some in digests.values() for digest in some], [str(row[-1]) for row in own]
        )
        body |= {"taken": takeovers.told(taken, digests)} if taken else {}
        ledger.append(connection, "results", run_id, {**body, **({"intake": list(intake)} if intake else {})})


def next_position(connection: Connection, run_id: str) -> int:
    """Where the next result of a run will stand."""
    query = "SELECT coalesce(max(position) + 1, 0) FROM results WHERE run_id = ?"
    return max(int(connection.rows(query, (run_id,))[0][0]), takeovers.end_of(connection, run_id))


def count(connection: Connection, run_id: str) -> int:
    """How many results a run has so far."""
    own = int(connection.rows("SELECT count(*) FROM results WHERE run_id = ?", (run_id,))[0][0])
    return own + takeovers.count(connection, run_id)


def stored(connection: Connection, run_id: str) -> Iterator[tuple[int, Stretch, sqlite3.Row]]:
    """(position, where it lies, row) of every result of a run; the rows are not checked.

    Raises:
        Tampered: a row that is taken over is missing.
    """
    for one in takeovers.stretches(connection, run_id):
        rows = one.rows(connection, ", ".join(_COLUMNS))
        if one.count is not None and len(rows) != one.count:
            raise takeovers.missing(one.source_run)
        for row in rows:
            yield one.first + int(row["position"]) - one.source_first, one, row


def all_runs(connection: Connection) -> list[RunRow]:
    """Every run, oldest first. Raises Tampered."""
    return [RunRow.from_sql(row) for row in connection.rows(f"{SELECT_RUNS} ORDER BY started, id")]


def by_id(connection: Connection, run_id: str) -> RunRow:
    """One run.

    Raises:
        NotFound: no such run.
        Tampered: its row does not hold.
    """
    found = connection.rows(f"{SELECT_RUNS} WHERE id = ?", (run_id,))
    if not found:
        raise NotFound(f"there is no run {run_id!r} in {connection.path}")
    return RunRow.from_sql(found[0])


def results(connection: Connection, run_id: str) -> list[dict[str, object]]:
    """The results of a run, in the order in which they were added.

    Raises:
        NotFound: no such run.
        Tampered: a row does not hold.
    """
    by_id(connection, run_id)
    found = []
    for _, where, row in stored(connection, run_id):
        value = result_value(row)
        found.append(value if where.count is None else value | {"cached": True})
    return found


def result_columns(connection: Connection, run_id: str) -> list[dict[str, object]]:
    """The results of a run with every stored column, in their order; `row` is parsed.

    One that is taken over has its `row` as the earlier run stored it, and `taken_from`: that run, and the position
    there.

    Raises:
        NotFound: no such run.
        Tampered: a row does not hold.
    """
    by_id(connection, run_id)
    found = []
    for position, where, row in stored(connection, run_id):
        values = verified("results", RESULT_COLUMNS, row) | {"row": json.loads(row["row"])}
        if where.count is not None:
            origin = {"run": where.source_run, "position": row["position"]}
            values |= {"run_id": run_id, "position": position, "taken_from": origin}
        found.append(values)
    return found


def known(
    connection: Connection,
    suspects: Iterable[str],
    fingerprints: Iterable[str],
    settings_sha256: str,
    statuses: Collection[str] = DECIDED,
) -> dict[tuple[str, str], dict[str, object]]:
    """(suspect digest, fingerprint id) -> the newest stored result under the same settings, where there is one.

    Raises:
        Tampered: a row that was found does not hold.
    """
    wanted = [compact_json(sorted(set(values))) for values in (suspects, fingerprints)]
    found = connection.rows(_KNOWN, (*wanted, settings_sha256, compact_json(list(statuses))))
    return {(row["suspect_sha256"], row["fingerprint_id"]): result_value(row) for row in found}
