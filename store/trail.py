"""The ledger read from its first entry to its last: whether it holds, and what it says must be in the tables."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fingerprint.errors import Tampered
from store import ledger
from store.ledger import MARK, NOTHING, Entry
from store.problems import Problem, error
from store.takeovers import Taken, laid_out, read_told

if TYPE_CHECKING:
    from store.connection import Connection

RECORDS = ("create", "import")  # entries that bring a record


@dataclass
class RunTrail:
    """What the ledger says of a run: the digest of its row now, its results so far, and whether it ended.

    taken: those of its results that are rows of earlier runs.
    """

    row_sha256: str
    results: int = 0
    finished: bool = False
    envelopes: list[str] = field(default_factory=list)
    taken: list[Taken] = field(default_factory=list)


@dataclass
class Trail:
    """What the tables must hold, by what the ledger says.

    names: name -> ids of its versions, oldest first. records: id -> what the entry says of it. rows: table -> digests
    of its rows in order. heads: chain -> its last entry. envelopes: all but those of fingerprints, with
    when they came. positions: record or envelope -> where its entry stands. schema: digest of the applied migrations.
    """

    names: dict[str, list[str]] = field(default_factory=dict)
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    runs: dict[str, RunTrail] = field(default_factory=dict)
    rows: dict[str, list[str]] = field(default_factory=lambda: {"exposures": [], "exports": [], "timestamps": []})
    envelopes: dict[str, str] = field(default_factory=dict)
    positions: dict[str, int] = field(default_factory=dict)
    heads: dict[str, Entry] = field(default_factory=dict)
    vouched: int | None = None  # see `vouching`
    schema: str | None = None
    broken: bool = False

    def read(self, connection: Connection) -> Iterator[Problem]:
        """Go through all entries. What does not hold is told, and the rest is still read. Only inside `snapshot`."""
        places: dict[str, int] = {}
        for number, raw in enumerate(ledger.raw_entries(connection), start=1):
            try:
                entry = ledger.entry_of(raw)
                self._follow(entry, number, places)
                yield from self._replay(entry, connection)
            except (Tampered, KeyError, TypeError, ValueError) as failure:
                self.broken = True
                text = failure.message if isinstance(failure, Tampered) else f"says something that can't be: {failure}"
                yield error(f"ledger entry {str(raw['seq'])[:20]} ({str(raw['kind'])[:20]})", text)
                self._resume(raw, places)

    def _follow(self, entry: Entry, number: int, places: dict[str, int]) -> None:
        """The entry continues its chain, or opens one. Raises Tampered."""
        last = self.heads.get(entry.chain)
        if entry.position != number:
            raise Tampered(f"stands at place {entry.position} and not {number}: entries were removed or reordered")
        if last is not None:
            follows = (entry.seq, entry.previous) == (last.seq + 1, last.hash)
        elif entry.hash != entry.chain:
            follows = False
        else:  # a chain's first entry: nothing before it, or the entry where it parted from another
            follows = entry.seq == 1 if entry.previous == NOTHING else places.get(entry.previous) == entry.seq - 1
        if not follows:
            raise Tampered("does not follow the entry before it: entries were changed, removed or reordered")
        self.heads[entry.chain] = entry
        places[entry.hash] = entry.seq

    def _resume(self, raw: sqlite3.Row, places: dict[str, int]) -> None:
        """After an entry that does not hold, the next one is compared with what it claims."""
        values = {name: raw[name] for name in raw.keys()}  # noqa: SIM118  (sqlite3.Row iterates values)
        if isinstance(values["seq"], int) and isinstance(values["hash"], str):
            self.heads[values["chain"]] = Entry(**{**values, "body": {}})
            places[values["hash"]] = values["seq"]

    def _replay(self, entry: Entry, connection: Connection) -> Iterator[Problem]:
        body, subject = entry.body, entry.subject
        if entry.kind in RECORDS:
            self._record(subject, dict(body))
            self.positions.setdefault(subject, entry.position)
        elif entry.kind == "start":
            self.runs.setdefault(subject, RunTrail(str(body["row_sha256"])))
        elif entry.kind == "results":
            self.runs[subject].results += int(str(body["count"]))
            self.runs[subject].taken += [one for one, _ in read_told(subject, body.get("taken"))]
            yield from _results(connection, subject, body)
        elif entry.kind in ("verify", "audit"):
            run = self.runs[subject]
            run.row_sha256, run.finished = str(body["row_sha256"]), True
            self._signed(run, entry)
        elif entry.kind == "sign":
            self._signed(self.runs[subject], entry)
        elif entry.kind in ("expose", "export", "timestamp"):
            table = {"expose": "exposures", "export": "exports", "timestamp": "timestamps"}[entry.kind]
            self.rows[table].append(str(body["row_sha256"]))
        elif entry.kind == "schema":
            own = next(iter(self.heads)) == entry.chain
            self.schema = str(body["sha256"]) if own else self.schema
        elif "envelope" in body:  # reveal, checkpoint, key
            self.envelopes.setdefault(str(body["envelope"]), entry.time)
            self.positions.setdefault(str(body["envelope"]), entry.position)

    def _signed(self, run: RunTrail, entry: Entry) -> None:
        named = entry.body["envelopes"]
        run.envelopes = [*run.envelopes, *(map(str, named) if isinstance(named, list) else ())]
        for sha256 in run.envelopes:
            self.envelopes.setdefault(sha256, entry.time)
            self.positions.setdefault(sha256, entry.position)

    def _record(self, identity: str, body: dict[str, Any]) -> None:
        """As `index.insert` places it: last, or before the version that names it as its predecessor."""
        if identity in self.records:
            return
        self.records[identity] = body
        versions = self.names.setdefault(body["name"], [])
        later = [i for i, other in enumerate(versions) if self.records[other].get("previous") == identity]
        versions.insert(later[0] if later else len(versions), identity)


def _results(connection: Connection, run: str, body: Any) -> Iterator[Problem]:  # noqa: ANN401  (JSON)
    """The rows that were added together, against their digests. What is wrong is named."""
    first, count, marks = int(body["first"]), int(body["count"]), str(body["marks"])
    said = read_told(run, body.get("taken"))
    digests, own = dict[int, str](), list[int]()
    for one in laid_out(run, [taken for taken, _ in said], first, first + count):
        rows = one.rows(connection, "position, row_sha256")
        found = {row["position"]: str(row["row_sha256"]) for row in rows}
        for i in range(one.end - one.first):
            digests[one.first + i] = found.get(one.source_first + i, "")
        own += range(one.first, one.end) if one.count is None else ()
    if ledger.digest_rows(digests.values()) == body["sha256"]:
        return
    wrong = [p for i, p in enumerate(own) if digests[p][:MARK] != marks[i * MARK : (i + 1) * MARK]]
    changed = [
        one for one, sha256 in said if ledger.digest_rows(digests[p] for p in range(one.first, one.end())) != sha256
    ]
    for position in wrong or ([] if changed else own):
        what = "is missing" if not digests[position] else "is not the one that the ledger names: changed or reordered"
        yield error(f"result {position} of run {run}", what)
    for taken in changed:
        what = f"are taken over from rows of run {taken.source_run} that are missing, or not those of the ledger"
        yield error(f"results {taken.first} to {taken.end() - 1} of run {run}", what)
