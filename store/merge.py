"""`store merge`: take over what another database holds, and keep both chains of the ledger.

Entries that both have are one; what follows in the other is kept as it is: as the continuation of a chain, as a chain
of its own, or as the branch of one that parted. Nothing is taken from a database that does not pass its own check.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from fingerprint.errors import HistoryDiverged, NameTaken, Tampered
from fingerprint.frozen import dataclass
from store import envelopes, index, ledger, takeovers, timestamps
from store.exposures import EXPORT_COLUMNS, EXPOSURE_COLUMNS
from store.ledger import Entry
from store.rows import RESULT_COLUMNS
from store.schema import row_digest
from store.trail import RECORDS

if TYPE_CHECKING:
    from store.blobs import TensorFiles
    from store.connection import Connection
    from store.data_keys import DataKeys

_RUNS = ("id", "kind", "started", "finished", "tool_version", "parameters", "results", "row_sha256")


@dataclass(frozen=True)
class Merged:
    """What came in. parted_at: the entry from which on the two histories differ, or None if they never were one."""

    entries: int
    fingerprints: int
    runs: int
    results: int
    parted_at: int | None


@dataclass(frozen=True)
class Source:
    """An open database that was checked, and what lies beside it."""

    connection: Connection
    tensors: TensorFiles
    data_keys: DataKeys


def merge(
    connection: Connection, tensors: TensorFiles, data_keys: DataKeys, source: Source, *, replacing: bool = False
) -> Merged:
    """Take over everything, or nothing.

    Raises:
        NameTaken: a name stands for unrelated records in the two, and `replacing` is not set.
        HistoryDiverged: one run went on in both.
        StoreError: it can't be written.
    """
    other = source.connection
    with other.snapshot():
        new = list(_new_entries(connection, other))
        if not new:
            return Merged(0, 0, 0, 0, None)
        for row in other.rows("SELECT DISTINCT tensors_sha256 FROM fingerprints"):
            tensors.write(source.tensors.read(row[0]))
            if not source.data_keys.wrapped(row[0]) and data_keys.stored(row[0]) is None:
                key = source.data_keys.read(row[0])  # one that is wrapped stays where its lock is
                if key is not None:
                    data_keys.write(row[0], key)
        with connection.transaction():
            return _Merge(connection, other, replacing).take(list(_new_entries(connection, other)))


def _new_entries(connection: Connection, other: Connection) -> Iterator[Entry]:
    for raw in ledger.raw_entries(other):
        entry = ledger.entry_of(raw)
        if ledger.by_hash(connection, entry.hash) is None:
            yield entry


class _Merge:
    """One merge under way, inside the transaction."""

    def __init__(self, connection: Connection, other: Connection, replacing: bool) -> None:
        self.connection, self.other, self.replacing = connection, other, replacing
        self.chains: dict[str, str] = {}  # chain there -> chain here
        self.parted: int | None = None

    def take(self, new: list[Entry]) -> Merged:
        before = self._counts()
        for row in self.other.rows("SELECT sha256, predicate_type, added FROM envelopes ORDER BY rowid"):
            envelope = envelopes.read(self.other, row["sha256"])
            envelopes.insert(self.connection, envelope, row["predicate_type"], row["added"])
        for entry in new:
            self._entry(entry)
        for entry in new:
            if entry.kind in RECORDS:
                self._record(entry)
        for run_id in dict.fromkeys(e.subject for e in new if e.kind in ("start", "results", "verify", "audit")):
            self._run(run_id)
        self._rows(new)
        heads = {e.chain: e.hash for e in new}
        body = {"heads": heads, "entries": len(new), "parted_at": self.parted}
        ledger.append(self.connection, "merge", "", body)
        grown = [after - old for after, old in zip(self._counts(), before, strict=True)]
        return Merged(len(new), grown[0], grown[1], grown[2], self.parted)

    def _counts(self) -> list[int]:
        tables = ("fingerprints", "runs", "results")
        counts = [int(self.connection.rows(f"SELECT count(*) FROM {t}")[0][0]) for t in tables]  # noqa: S608
        counts[2] += int(self.connection.rows("SELECT coalesce(sum(count), 0) FROM taken")[0][0])
        return counts

    def _entry(self, entry: Entry) -> None:
        """Keep an entry where it belongs: after the end of a chain here, or as the first of one."""
        if entry.previous != ledger.NOTHING and entry.chain not in self.chains:
            before = ledger.by_hash(self.connection, entry.previous)
            if before is None:
                raise Tampered("the ledger of the other database does not hold together")
            last = ledger.head(self.connection, before.chain)
            goes_on = last is not None and last.hash == before.hash
            self.chains[entry.chain] = before.chain if goes_on else entry.hash
            if not goes_on:
                self.parted = entry.seq
        chain = self.chains.setdefault(entry.chain, entry.chain)
        ledger.insert_entry(self.connection, replace(entry, chain=chain))

    def _record(self, entry: Entry) -> None:
        if index.by_id(self.connection, entry.subject) is not None:
            return
        row = index.by_id(self.other, entry.subject)
        if row is None:
            raise Tampered(f"the record {entry.subject[:16]} of the other database is gone")
        try:
            index.require_free(index.by_name(self.connection, row.name), row, self.replacing)
        except NameTaken:
            related = {r.id for r in index.by_name(self.connection, row.name)} & {
                r.id for r in index.by_name(self.other, row.name)
            }
            if not related:
                raise
        index.insert(self.connection, row, envelopes.read(self.other, row.id))

    def _run(self, run_id: str) -> None:
        columns = ", ".join(_RUNS)
        query = f"SELECT {columns} FROM runs WHERE id = ?"  # noqa: S608 (constant names)
        (theirs,) = self.other.rows(query, (run_id,))
        mine = self.connection.rows(query, (run_id,))
        if not mine:
            marks = ", ".join("?" * len(_RUNS))
            self.connection.execute(f"INSERT INTO runs ({columns}) VALUES ({marks})", tuple(theirs))  # noqa: S608
        elif tuple(mine[0]) != tuple(theirs):
            if mine[0]["finished"] is not None:
                raise HistoryDiverged(f"the run {run_id} ended in both databases")
            self.connection.execute(
                "UPDATE runs SET finished = ?, results = ?, row_sha256 = ? WHERE id = ?",
                (theirs["finished"], theirs["results"], theirs["row_sha256"], run_id),
            )
        self._results(run_id)

    def _results(self, run_id: str) -> None:
        names = ", ".join((*RESULT_COLUMNS, "row_sha256"))
        query = f"SELECT {names} FROM results WHERE run_id = ? ORDER BY position"  # noqa: S608 (constant names)
        here = [row["row_sha256"] for row in self.connection.rows(query, (run_id,))]
        there = self.other.rows(query, (run_id,))
        if here != [row["row_sha256"] for row in there[: len(here)]]:
            raise HistoryDiverged(f"the run {run_id} went on in both databases")
        marks = ", ".join("?" * (len(RESULT_COLUMNS) + 1))
        insert = f"INSERT INTO results ({names}) VALUES ({marks})"  # noqa: S608 (constant names)
        self.connection.executemany(insert, [tuple(row) for row in there[len(here) :]])
        mine, theirs = takeovers.of_run(self.connection, run_id), takeovers.of_run(self.other, run_id)
        if mine != theirs[: len(mine)]:
            raise HistoryDiverged(f"the run {run_id} went on in both databases")
        takeovers.insert(self.connection, theirs[len(mine) :])

    def _rows(self, new: list[Entry]) -> None:
        """Exposures, exports and timestamps that the new entries name."""
        wanted = {str(e.body.get("row_sha256")) for e in new if e.kind in ("expose", "export", "timestamp")}
        for table, columns in (("exposures", EXPOSURE_COLUMNS), ("exports", EXPORT_COLUMNS)):
            names = ", ".join((*columns, "row_sha256"))
            marks = ", ".join("?" * (len(columns) + 1))
            for row in self.other.rows(f"SELECT {names} FROM {table} ORDER BY rowid"):  # noqa: S608
                if row["row_sha256"] in wanted:
                    self.connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(row))  # noqa: S608
        for row in self.other.rows("SELECT * FROM timestamps ORDER BY rowid"):
            values = {name: row[name] for name in timestamps.COLUMNS}
            if row_digest("timestamps", values) in wanted:
                timestamps.insert_row(self.connection, values, row["response"])
