"""`store rebuild`: make every index anew from the signed envelopes and the ledger.

What was signed comes back whole: fingerprints, and the runs that a key signed. Rows that nobody signed (runs without a
signature, exposures, exports) stay as they are; the check that follows tells whether they hold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fingerprint.errors import Tampered
from fingerprint.frozen import dataclass
from fingerprint.record import parse_statement
from store import dsse, envelopes, index, ledger, predicates, takeovers
from store.migrations import expected_schema, schema_of, triggers
from store.rows import RESULT_COLUMNS, describe
from store.run_statement import placed
from store.schema import compact_json, row_digest
from store.trail import Trail

if TYPE_CHECKING:
    from store.connection import Connection, SqlValue
    from store.keys import Keys


@dataclass(frozen=True)
class Rebuilt:
    """What was made anew."""

    fingerprints: int
    runs: int
    results: int
    schema: tuple[str, ...]  # views, indexes and triggers that were missing or changed


def rebuild(connection: Connection, keys: Keys) -> Rebuilt:
    """Make the indexes anew, all or nothing.

    Raises:
        Tampered: the ledger does not hold, so there is nothing to rebuild from.
        EvidenceError: an envelope does not hold, or its signer is not trusted.
    """
    with connection.transaction():
        trail = Trail()
        found = list(trail.read(connection))
        if trail.broken:
            raise Tampered(
                f"the ledger does not hold: {found[0].subject}: {found[0].message}",
                remedy="Restore the database from a backup.",
            )
        for name in triggers():
            connection.execute(f"DROP TRIGGER IF EXISTS {name}")
        schema = _schema(connection)
        fingerprints = _fingerprints(connection, trail, keys)
        connection.execute("DELETE FROM taken")
        runs = results = 0
        for run_id, run in trail.runs.items():
            if run.envelopes:
                runs += 1
                results += _run(connection, run_id, run.envelopes, keys)
        here = {row["id"] for row in connection.rows("SELECT id FROM runs")}
        for run_id, run in trail.runs.items():
            takeovers.insert(connection, (one for one in run.taken if {run_id, one.source_run} <= here))
        connection.execute("REINDEX")
        for sql in triggers().values():
            connection.execute(sql)
        ledger.append(connection, "rebuild", "", {"fingerprints": fingerprints, "runs": runs, "results": results})
    return Rebuilt(fingerprints, runs, results, schema)


def _schema(connection: Connection) -> tuple[str, ...]:
    """Views and indexes as they should be; strange triggers go. Tables are left alone."""
    changed = []
    actual, expected = schema_of(connection.raw), expected_schema()
    for (kind, name), sql in actual.items():
        if kind == "trigger" or (
            kind in ("view", "index") and (kind, name) in expected and expected[kind, name] != sql
        ):
            quoted = name.replace('"', '""')
            connection.execute(f'DROP {kind.upper()} "{quoted}"')
            changed.append(f"{kind} {name}")
    actual = schema_of(connection.raw)
    for (kind, name), sql in expected.items():
        if kind in ("view", "index") and sql and (kind, name) not in actual:
            connection.execute(sql)
            changed.append(f"{kind} {name}")
    return tuple(dict.fromkeys(changed))


def _fingerprints(connection: Connection, trail: Trail, keys: Keys) -> int:
    connection.execute("DELETE FROM fingerprints")
    for ids in trail.names.values():
        for version, identity in enumerate(ids, start=1):
            verified = dsse.verify(envelopes.read(connection, identity), keys)
            manifest = parse_statement(verified.payload)
            added = str(trail.records[identity]["added"])
            index.insert_row(connection, describe(manifest, identity, verified.signers, version, added))
    return len(trail.records)


def _run(connection: Connection, run_id: str, signed: list[str], keys: Keys) -> int:
    """A run's row, and those of its results that are not what was signed. Returns how many were replaced."""
    parts = [_part(connection, sha256, keys) for sha256 in signed]
    run = parts[-1].run
    values: dict[str, SqlValue] = {
        "id": run.id,
        "kind": run.kind,
        "started": run.started,
        "finished": run.finished,
        "tool_version": run.tool_version,
        "parameters": compact_json(run.parameters),
        "results": run.results,
    }
    if run.id != run_id:
        raise Tampered(f"the ledger says that an envelope is of the run {run_id}, and it is of {run.id}")
    if not connection.rows("SELECT 1 FROM runs WHERE id = ?", (run_id,)):
        columns = ", ".join((*values, "row_sha256"))
        marks = ", ".join("?" * (len(values) + 1))
        row = (*values.values(), row_digest("runs", values))
        connection.execute(f"INSERT INTO runs ({columns}) VALUES ({marks})", row)  # noqa: S608 (constant names)
    else:
        changes = ", ".join(f"{name} = ?" for name in (*values, "row_sha256"))
        row = (*values.values(), row_digest("runs", values), run_id)
        connection.execute(f"UPDATE runs SET {changes} WHERE id = ?", row)  # noqa: S608 (constant names)
    replaced = 0
    for at, found in (content for part in parts for content in placed(part)):
        if isinstance(found, predicates.TakenOver):
            where = (run_id, at, at + found.count)
            connection.execute("DELETE FROM results WHERE run_id = ? AND position >= ? AND position < ?", where)
        else:
            replaced += _result(connection, run_id, at, found)
    connection.execute("DELETE FROM results WHERE run_id = ? AND position >= ?", (run_id, run.results))
    return replaced


def _part(connection: Connection, sha256: str, keys: Keys) -> predicates.RunStatement:
    verified = dsse.verify(envelopes.read(connection, sha256), keys)
    found = predicates.parse(verified.payload, verified.payload_type).predicate
    if not isinstance(found, predicates.RunStatement):
        raise Tampered(f"the envelope {sha256[:16]} is not of a run, as the ledger says")
    return found


def _result(connection: Connection, run_id: str, position: int, result: predicates.SignedResult) -> bool:
    """Whether a row had to be replaced. It keeps its number, which says what is newest."""
    values: dict[str, SqlValue] = {"run_id": run_id, "position": position, **result.model_dump(exclude={"row"})}
    values["row"] = compact_json(result.row)
    values = {name: values[name] for name in RESULT_COLUMNS}
    query = f"SELECT number, {', '.join(RESULT_COLUMNS)}, row_sha256 FROM results WHERE run_id = ? AND position = ?"  # noqa: S608
    wanted = (*values.values(), row_digest("results", values))
    found = connection.rows(query, (run_id, position))
    if found and tuple(found[0])[1:] == wanted:
        return False
    number = found[0]["number"] if found else None
    connection.execute("DELETE FROM results WHERE run_id = ? AND position = ?", (run_id, position))
    names = ", ".join(("number", *RESULT_COLUMNS, "row_sha256"))
    marks = ", ".join("?" * (len(wanted) + 1))
    connection.execute(f"INSERT INTO results ({names}) VALUES ({marks})", (number, *wanted))  # noqa: S608
    return True
