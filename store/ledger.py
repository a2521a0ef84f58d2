"""The ledger: append-only, hash-chained entries that commit to every row, envelope and token of a database.

Entry k holds the hash of entry k - 1. A database has one chain of its own, named by the hash of its first entry;
merging adds the chains of others beside it, or the branch of one that parted from it. An entry commits to rows by their
digests, so that no row can be changed, removed, added or reordered without the chain telling; that somebody rewrote the
whole chain, a signed checkpoint tells (`checkpoints`).
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from fingerprint.errors import Tampered
from fingerprint.frozen import dataclass
from store.schema import compact_json

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

    from store.connection import SqlValue

FORMAT = "dnn-fingerprint/ledger/1"
MARK = 12  # hex digits of a row's digest that stand in `marks`
NOTHING = "0" * 64  # what stands before the first entry
_COLUMNS = "position, chain, seq, kind, subject, time, body, previous, hash"
_INSERT = f"INSERT INTO ledger ({_COLUMNS}) VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 (constant names)


class Writer(Protocol):
    """What appending needs of a connection."""

    def execute(self, sql: str, values: Iterable[SqlValue] = ...) -> None:
        """Run a statement for its effect."""

    def rows(self, sql: str, values: Iterable[SqlValue] = ...) -> list[sqlite3.Row]:
        """All rows of a query."""


class Reader(Protocol):
    """What reading the whole ledger needs of a connection."""

    def iterate(self, sql: str, values: Iterable[SqlValue] = ...) -> Iterator[sqlite3.Row]:
        """The rows of a query, one at a time."""


@dataclass(frozen=True)
class Entry:
    """One entry. chain: hash of the first entry of its chain. seq: 1, 2, ... from the first entry of all.

    subject: the fingerprint, run or key that it is about. body: what it commits to. position: order in this database.
    """

    position: int
    chain: str
    seq: int
    kind: str
    subject: str
    time: str
    body: Mapping[str, object]
    previous: str
    hash: str

    def place(self) -> dict[str, object]:
        """What a signed statement says of it."""
        return {"chain": self.chain, "seq": self.seq, "hash": self.hash}


def now() -> str:
    """UTC, ISO 8601, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def digest(seq: int, kind: str, subject: str, time: str, body: str, previous: str) -> str:
    """SHA-256 (hex) of an entry; `body` is its JSON text."""
    return hashlib.sha256(compact_json([FORMAT, seq, kind, subject, time, body, previous]).encode()).hexdigest()


def digest_rows(digests: Iterable[str]) -> str:
    """SHA-256 (hex) over the digests of rows in their order."""
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def batch(first: int, digests: Sequence[str], own: Sequence[str] | None = None) -> dict[str, object]:
    """What an entry says of rows that were added together: `marks` finds the one that was changed.

    own: digests of those rows that are the run's own, where others are taken over (`takeovers`).
    """
    return {
        "first": first,
        "count": len(digests),
        "sha256": digest_rows(digests),
        "marks": "".join(d[:MARK] for d in (digests if own is None else own)),
    }


def append(
    connection: Writer, kind: str, subject: str, body: Mapping[str, object], *, time: str | None = None
) -> Entry:
    """Add an entry to the chain of this database. The caller holds the write transaction.

    Raises:
        Tampered: the last entry does not hold, so nothing may be built on it.
    """
    last = head(connection)
    if last is None:
        last = _insert(connection, None, "genesis", "", {"nonce": secrets.token_hex(16)}, now())
    return _insert(connection, last, kind, subject, body, time or now())


def _insert(
    connection: Writer, last: Entry | None, kind: str, subject: str, body: Mapping[str, object], time: str
) -> Entry:
    text = compact_json(dict(body))
    seq, previous = (last.seq + 1, last.hash) if last else (1, NOTHING)
    own = digest(seq, kind, subject, time, text, previous)
    chain = last.chain if last else own
    connection.execute(_INSERT, (chain, seq, kind, subject, time, text, previous, own))
    return Entry(0, chain, seq, kind, subject, time, body, previous, own)


def insert_entry(connection: Writer, entry: Entry) -> None:
    """Keep an entry of another database's chain as it is. The caller holds the write transaction."""
    values = (entry.chain, entry.seq, entry.kind, entry.subject, entry.time, compact_json(dict(entry.body)))
    connection.execute(_INSERT, (*values, entry.previous, entry.hash))


def head(connection: Writer, chain: str | None = None) -> Entry | None:
    """The last entry of a chain (default: of this database's own), or None where the ledger is empty.

    Raises:
        Tampered: it does not hold.
    """
    own = "(SELECT chain FROM ledger ORDER BY position LIMIT 1)" if chain is None else "?"
    query = f"SELECT {_COLUMNS} FROM ledger WHERE chain = {own} ORDER BY seq DESC LIMIT 1"  # noqa: S608 (constants)
    found = connection.rows(query, () if chain is None else (chain,))
    return entry_of(found[0]) if found else None


def by_hash(connection: Writer, value: str) -> Entry | None:
    """The entry of that hash. Raises Tampered."""
    found = connection.rows(f"SELECT {_COLUMNS} FROM ledger WHERE hash = ?", (value,))  # noqa: S608
    return entry_of(found[0]) if found else None


def about(connection: Writer, subject: str) -> list[Entry]:
    """The entries about a fingerprint, run or key, oldest first. Raises Tampered."""
    query = f"SELECT {_COLUMNS} FROM ledger WHERE subject = ? ORDER BY position"  # noqa: S608 (constant names)
    return [entry_of(row) for row in connection.rows(query, (subject,))]


def latest(connection: Writer, limit: int) -> list[Entry]:
    """The last `limit` entries, oldest first. Raises Tampered."""
    query = f"SELECT {_COLUMNS} FROM ledger ORDER BY position DESC LIMIT ?"  # noqa: S608 (constant names)
    return [entry_of(row) for row in reversed(connection.rows(query, (limit,)))]


def raw_entries(connection: Reader) -> Iterator[sqlite3.Row]:
    """All rows in their order, not checked. Only inside `snapshot`."""
    yield from connection.iterate(f"SELECT {_COLUMNS} FROM ledger ORDER BY position")  # noqa: S608 (constant names)


def entry_of(row: sqlite3.Row) -> Entry:
    """The entry of a row, its hash compared.

    Raises:
        Tampered: it does not hold.
    """
    values = {name: row[name] for name in _COLUMNS.split(", ")}
    try:
        body = json.loads(values["body"])
        own = digest(*(values[name] for name in ("seq", "kind", "subject", "time", "body", "previous")))
        holds = own == values["hash"] and isinstance(body, dict) and compact_json(body) == values["body"]
    except (TypeError, ValueError, RecursionError):
        holds = False
    if not holds:
        raise Tampered(
            f"entry {str(values['seq'])[:20]} of the ledger is not what was written",
            remedy="`fingerprint store check` names all that is wrong. Restore the database from a backup.",
        )
    return Entry(**{**values, "body": body})
