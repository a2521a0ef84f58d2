"""What an audit remembers of files: how each looked when its results were stored, so that it is not read again.

This is no evidence, only a short way to it: the results themselves are rows of their run, under the ledger, and are
checked whenever they are recalled.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

from fingerprint.errors import Tampered
from store.connection import Connection, SqlValue
from store.rows import result_value, verified
from store.runs import SELECT_RESULTS
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


@dataclass(frozen=True)
class Recalled:
    """Stored results of a file that looks as it did. settings: of each row. run_id: the run that they belong to."""

    rows: tuple[dict[str, object], ...]
    settings: tuple[str | None, ...]
    run_id: str


_COLUMNS = tuple(field.name for field in fields(Remembered))
_INSERT = (
    f"INSERT OR REPLACE INTO audit_files ({', '.join(_COLUMNS)}, row_sha256) "  # noqa: S608 (constant column names)
    f"VALUES ({', '.join('?' * (len(_COLUMNS) + 1))})"
)
_SELECT = f"""
    SELECT {", ".join(f"audit_files.{column}" for column in _COLUMNS)}, audit_files.row_sha256
    FROM json_each(?2) AS names CROSS JOIN audit_files WHERE question = ?1 AND name = names.value
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
        names = compact_json(sorted({_plain(name) for name, _ in asked}))
        found: dict[str, Mapping[str, SqlValue]] = {}
        for row in self._connection.rows(_SELECT, (question, names)):
            values = verified("audit_files", _COLUMNS, row)
            found[str(values["name"])] = values
        return [self._results(found.get(_plain(name)), name, stamp, run_id, lasting) for name, stamp in asked]

    def _results(
        self,
        values: Mapping[str, SqlValue] | None,
        name: str,
        stamp: str,
        run_id: str | None,
        lasting: Collection[str],
    ) -> Recalled | None:
        if values is None or values["stamp"] != stamp:
            return None
        first, count = int(values["first"] or 0), int(values["count"] or 0)
        query = f"{SELECT_RESULTS} WHERE run_id = ? AND position >= ? AND position < ? ORDER BY position"
        rows = self._connection.rows(query, (values["run_id"], first, first + count))
        other = values["run_id"] != run_id
        if len(rows) != count or (other and any(row["status"] not in lasting for row in rows)):
            return None
        if not all(_belongs(str(row["suspect_path"]), _plain(name)) for row in rows):
            return None  # it was killed before its results came, and another's stand there now
        settings = tuple(row["settings_sha256"] for row in rows)
        return Recalled(tuple(map(result_value, rows)), settings, str(values["run_id"]))

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
        query = "SELECT coalesce(max(position) + 1, 0) FROM results WHERE run_id = ?"
        return int(self._connection.rows(query, (run_id,))[0][0])

    def has(self, run_id: str, suspect_sha256: str, fingerprint_id: str) -> bool:
        """Whether a run has a verdict for a content and a fingerprint."""
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
        from store import runs

        runs.by_id(self._connection, run_id)
        query = "SELECT suspect_path, suspect_sha256, fingerprint_id FROM results WHERE run_id = ? ORDER BY position"
        for row in self._connection.rows(query, (run_id,)):
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
