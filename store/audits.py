"""What an audit remembers of files: how each looked when its results were stored, so that it is not read again.

This is no evidence, only a short way to it: the results themselves are rows of their run, under the ledger, and are
checked whenever they are recalled.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import NamedTuple

from fingerprint.errors import Tampered
from fingerprint.frozen import dataclass
from store import runs, takeovers
from store.connection import Connection, SqlValue
from store.rows import RESULT_COLUMNS, verified
from store.schema import compact_json, row_digest, unicode_only

# the same again, as long as nothing changes; `skipped`: takes no images by its header, or all probes are revealed
LASTING = ("decided", "skipped", "unreadable", "unsupported", "opaque", "degenerate")


@dataclass(frozen=True)
class Remembered:
    """One file's results: `count` rows of a run, from the position `first` on.

    question: digest of all else that they depend on. name: provenance path. stamp: how its files looked.
    """

    question: str
    name: str
    stamp: str
    run_id: str
    first: int
    count: int


class StoredResult(NamedTuple):
    """One stored result. text: the row's JSON, as the database has it. The three last fields are of its verdict."""

    suspect_sha256: str | None
    suspect_path: str
    format: str | None
    runtime: str | None
    fingerprint_id: str | None
    settings_sha256: str | None
    status: str
    text: str
    fingerprint_name: str
    lineage: str | None
    integrity: str | None
    total_p: float | None


@dataclass(frozen=True)
class Recalled:
    """Stored results of a file that looks as it did. rows: the run that they belong to, and where they stand in it."""

    results: tuple[StoredResult, ...]
    rows: takeovers.TakenRows


_COLUMNS = tuple(field.name for field in fields(Remembered))
_INSERT = (
    f"INSERT OR REPLACE INTO audit_files ({', '.join(_COLUMNS)}, row_sha256) "  # noqa: S608 (constant column names)
    f"VALUES ({', '.join('?' * (len(_COLUMNS) + 1))})"
)
# Both are asked of all files at once: what is remembered of them, and every row that it stands for.
_FILES = f"""
    SELECT asked.key AS number, {", ".join(f"audit_files.{column}" for column in _COLUMNS)}, audit_files.row_sha256
    FROM json_each(?2) AS asked CROSS JOIN audit_files
    WHERE question = ?1 AND name = json_extract(asked.value, '$[0]') AND stamp = json_extract(asked.value, '$[1]')
"""  # noqa: S608 (constant column names)
_PLACES = ("$.fingerprint.name", "$.verdict.lineage", "$.verdict.integrity", "$.verdict.total_p")
_ROWS = f"""
    SELECT wanted.key AS number, {", ".join(f"results.{column}" for column in RESULT_COLUMNS)}, results.row_sha256,
        CASE WHEN json_valid(results.row) THEN json_extract(results.row, {", ".join(map(repr, _PLACES))}) END AS told
    FROM json_each(?1) AS wanted CROSS JOIN results
    WHERE run_id = json_extract(wanted.value, '$[0]') AND position >= json_extract(wanted.value, '$[1]')
        AND position < json_extract(wanted.value, '$[1]') + json_extract(wanted.value, '$[2]')
    ORDER BY wanted.key, position
"""  # noqa: S608 (constant column names)


class Audits:
    """The memory of one database."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def remember(self, files: Iterable[Remembered]) -> None:
        """Keep where the results of files will stand. Written before the results themselves: a file whose results
        never came is not recalled.
        """
        rows = []
        for one in files:
            values = vars(one) | {"name": _plain(one.name)}
            rows.append((*values.values(), row_digest("audit_files", values)))
        with self._connection.transaction():
            self._connection.executemany(_INSERT, rows)

    def recall(
        self, question: str, asked: Sequence[tuple[str, str]], run_id: str | None, lasting: Collection[str] = LASTING
    ) -> list[Recalled | None]:
        """The results of files, by (name, stamp), in their order.

        Args:
            question: see `Remembered`.
            asked: names and how they look now.
            run_id: the run under way: of it, all results are recalled.
            lasting: statuses that are recalled from other runs; where one row of a file has another, none is.

        Raises:
            Tampered: a row does not hold.
        """
        files = self._files(question, asked)
        rows = self._rows([[one.run_id, one.first, one.count] for one in files.values()])
        found: list[Recalled | None] = [None] * len(asked)
        for (number, one), stored in zip(files.items(), rows, strict=True):
            own = one.run_id == run_id
            whole = len(stored) == one.count and all(_belongs(row.suspect_path, one.name) for row in stored)
            # else it was killed before its results came, and another's stand there now
            if whole and (own or all(row.status in lasting for row in stored)):
                found[number] = Recalled(tuple(stored), takeovers.TakenRows(one.run_id, one.first, one.count))
        return found

    def _files(self, question: str, asked: Sequence[tuple[str, str]]) -> dict[int, Remembered]:
        """What is remembered of the files that look as they did, by their number among `asked`."""
        names = compact_json([(_plain(name), stamp) for name, stamp in asked])
        found = {}
        for row in self._connection.rows(_FILES, (question, names)):
            found[int(row["number"])] = Remembered(**verified("audit_files", _COLUMNS, row))
        return found

    def _rows(self, wanted: Sequence[Sequence[SqlValue]]) -> list[list[StoredResult]]:
        """The results of each [run, first, count]."""
        found: list[list[StoredResult]] = [[] for _ in wanted]
        for row in self._connection.rows(_ROWS, (compact_json(wanted),)):
            values = verified("results", RESULT_COLUMNS, row)
            columns, told = [values[column] for column in RESULT_COLUMNS[2:]], json.loads(row["told"])
            found[row["number"]].append(StoredResult(*columns, *told))
        return found

    def unfinished(self, parameters: Mapping[str, object], tool_version: str) -> list[str]:
        """Audits with these parameters that did not end, the newest first."""
        text = unicode_only(compact_json(dict(parameters)))
        query = (
            "SELECT id FROM runs WHERE kind = 'audit' AND finished IS NULL AND parameters = ? AND tool_version = ? "
            "ORDER BY started DESC, id DESC"
        )
        return [str(row["id"]) for row in self._connection.rows(query, (text, tool_version))]

    def next_position(self, run_id: str) -> int:
        """How many results a run has: where the next one will stand."""
        return runs.next_position(self._connection, run_id)

    def taken(self, run_id: str) -> list[takeovers.TakenRows]:
        """What a run takes over from earlier ones, in its order. Raises Tampered."""
        found = takeovers.of_run(self._connection, run_id)
        return [takeovers.TakenRows(one.source_run, one.source_first, one.count) for one in found]

    def has(self, run_id: str, suspect_sha256: str, fingerprint_id: str) -> bool:
        """Whether a run itself, and none that it takes results over from, decided about a content and a fingerprint."""
        query = (
            "SELECT 1 FROM results WHERE suspect_sha256 = ? AND fingerprint_id = ? AND run_id = ? "
            "AND status = 'decided' LIMIT 1"
        )
        return bool(self._connection.rows(query, (suspect_sha256, fingerprint_id, run_id)))

    def pairs(self, run_id: str) -> Iterable[tuple[str, str | None, str | None]]:
        """(suspect's path, its digest, fingerprint's id) of every result of a run.

        Raises:
            NotFound: no such run. Tampered.
        """
        runs.by_id(self._connection, run_id)
        for where in takeovers.stretches(self._connection, run_id):
            for row in where.rows(self._connection, "suspect_path, suspect_sha256, fingerprint_id"):
                yield row["suspect_path"], row["suspect_sha256"], row["fingerprint_id"]

    def check(self) -> list[str]:
        """Names of the entries that do not hold; they are never recalled."""
        wrong = []
        for row in self._connection.rows("SELECT * FROM audit_files"):
            try:
                verified("audit_files", _COLUMNS, row)
            except Tampered:
                wrong.append(str(row["name"]))
        return wrong


def _belongs(path: str, name: str) -> bool:
    return path == name or path.startswith((f"{name}!/", f"{name}/"))


def _plain(name: str) -> str:
    """A name that UTF-8 can hold, spelled as `ResultRow` spells it."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")
