"""Results that a run takes over from an earlier one: by reference, not as copies.

An audit of an unchanged registry finds what the last one found. Its results are then those rows, named by run and
position; nothing of them is written or signed again. A reference commits to the digest of the digests of the rows that
it stands for, in the ledger and in the signed statement of the new run. Rows are never removed, so what is referred to
stays. A reference names the run that holds the rows, never another reference.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from itertools import pairwise

from fingerprint.errors import Tampered
from fingerprint.frozen import dataclass
from store.connection import Connection, SqlValue
from store.ledger import digest_rows
from store.rows import verified
from store.schema import row_digest

_NO_END = 1 << 62


@dataclass(frozen=True)
class TakenRows:
    """`count` results of the run `run_id`, from its position `first` on."""

    run_id: str
    first: int
    count: int

    def followed_by(self, other: TakenRows) -> TakenRows | None:
        """Both as one, where the other begins where this one ends."""
        if (other.run_id, other.first) != (self.run_id, self.first + self.count):
            return None
        return TakenRows(self.run_id, self.first, self.count + other.count)


@dataclass(frozen=True)
class Taken:
    """Results `first` to `first + count - 1` of a run: the rows of `source_run` from its position `source_first` on."""

    run_id: str
    first: int
    count: int
    source_run: str
    source_first: int

    def end(self) -> int:
        """The position after the last one."""
        return self.first + self.count


COLUMNS = tuple(field.name for field in fields(Taken))
_NAMES = ", ".join((*COLUMNS, "row_sha256"))
_INSERT = f"INSERT INTO taken ({_NAMES}) VALUES ({', '.join('?' * (len(COLUMNS) + 1))})"  # noqa: S608 (constant names)
SELECT = f"SELECT {_NAMES} FROM taken"  # noqa: S608 (constant names)


@dataclass(frozen=True)
class Stretch:
    """Results of a run that lie together: its positions from `first` on are those of `source_run` from `source_first`.

    count: None for rows of the run itself, which are as many as there are before `end`.
    """

    first: int
    source_run: str
    source_first: int
    count: int | None
    end: int

    def rows(self, connection: Connection, columns: str) -> list[sqlite3.Row]:
        """Its rows, not checked, in their order; `position` is where they lie."""
        query = (
            f"SELECT {columns} FROM results WHERE run_id = ? AND position >= ? AND position < ? "  # noqa: S608
            "ORDER BY position"
        )
        until = self.source_first + (self.end - self.first if self.count is None else self.count)
        return connection.rows(query, (self.source_run, self.source_first, until))


def of_run(connection: Connection, run_id: str) -> list[Taken]:
    """What a run takes over, in its order.

    Raises:
        Tampered: a row does not hold, or they contradict each other.
    """
    found = [taken_of(row) for row in connection.rows(f"{SELECT} WHERE run_id = ? ORDER BY first", (run_id,))]
    for one, following in pairwise(found):
        if following.first < one.end():
            raise Tampered(f"the run {run_id} takes over two results at position {following.first}")
    return found


def taken_of(row: sqlite3.Row) -> Taken:
    """The reference of a row. Raises Tampered."""
    return Taken(**verified("taken", COLUMNS, row))


def stretches(connection: Connection, run_id: str, first: int = 0, end: int = _NO_END) -> Iterator[Stretch]:
    """The results of a run from position `first` to `end` (exclusive), by where they lie. Raises Tampered."""
    return laid_out(run_id, of_run(connection, run_id), first, end)


def laid_out(run_id: str, taken: Iterable[Taken], first: int = 0, end: int = _NO_END) -> Iterator[Stretch]:
    """The same, for what is taken over by another account."""
    at = first
    for one in taken:
        if one.end() <= at:
            continue
        if one.first >= end:
            break
        if one.first > at:
            yield Stretch(at, run_id, at, None, one.first)
            at = one.first
        last = min(one.end(), end)
        yield Stretch(at, one.source_run, one.source_first + at - one.first, last - at, last)
        at = last
    if at < end:
        yield Stretch(at, run_id, at, None, end)


def insert(connection: Connection, found: Iterable[Taken]) -> None:
    """Keep references. The caller holds the write transaction, and writes the ledger."""
    values: list[dict[str, SqlValue]] = [dict(vars(one)) for one in found]
    connection.executemany(_INSERT, [(*value.values(), row_digest("taken", value)) for value in values])


def digests(connection: Connection, one: TakenRows) -> list[str]:
    """The digests of the rows that a reference stands for.

    Raises:
        Tampered: some of them are missing.
    """
    found = Stretch(0, one.run_id, one.first, one.count, one.count).rows(connection, "row_sha256")
    if len(found) != one.count:
        raise missing(one.run_id)
    return [str(row[0]) for row in found]


def missing(run_id: str) -> Tampered:
    """The error for a run that lacks rows which a later one takes over."""
    return Tampered(
        f"results of the run {run_id} that a later one takes over are missing",
        remedy="`fingerprint store check` names all that is wrong; `store rebuild` brings back what was signed.",
    )


def count(connection: Connection, run_id: str) -> int:
    """How many results a run takes over."""
    return int(connection.rows("SELECT coalesce(sum(count), 0) FROM taken WHERE run_id = ?", (run_id,))[0][0])


def end_of(connection: Connection, run_id: str) -> int:
    """The position after the last result that a run takes over; 0 where it takes none."""
    return int(connection.rows("SELECT coalesce(max(first + count), 0) FROM taken WHERE run_id = ?", (run_id,))[0][0])


def told(found: Sequence[Taken], digests_of: Mapping[int, Sequence[str]]) -> list[list[object]]:
    """What the ledger says of references: first, count, run, position there, and digest of the rows' digests."""
    return [[t.first, t.count, t.source_run, t.source_first, digest_rows(digests_of[t.first])] for t in found]


def read_told(run_id: str, said: object) -> list[tuple[Taken, str]]:
    """The references of an entry of the ledger, each with the digest of its rows' digests.

    Raises:
        ValueError, TypeError: it says something else.
    """
    if said is None:
        return []
    if not isinstance(said, list):
        raise TypeError("what is taken over is no list")
    found = []
    for first, number, source_run, source_first, sha256 in said:
        found.append((Taken(run_id, int(first), int(number), str(source_run), int(source_first)), str(sha256)))
    return found
