"""JSON lines: a row per line as soon as it is known, and a summary at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from fingerprint.report.interface import Report, Row, Summary
from fingerprint.report.json import SCHEMA_VERSION, about, dumps


class JsonlReport(Report):
    """Every line is an object with `schema_version`. Rows carry `provisional`; the last line carries `summary`.

    A row that is provisional (before the correction for many tests) comes again as final at the end.
    """

    name: ClassVar[str] = "jsonl"

    def stream(self, row: Row, *, final: bool) -> str:
        """See `Report.stream`."""
        return _line({**row, "provisional": not final})

    def finish(self, rows: Sequence[Row], summary: Summary) -> str:
        """See `Report.finish`."""
        return "".join(self.pieces(rows, summary))

    def pieces(self, rows: Sequence[Row], summary: Summary) -> Iterator[str]:
        """See `Report.pieces`."""
        if summary.correction is not None:
            for row in rows:
                yield _line({**row, "provisional": False})
        yield _line({"summary": counts(rows), **about(summary)})


def counts(rows: Sequence[Row]) -> dict[str, int]:
    """How many rows there are, by lineage; `undecided` are those without a verdict."""
    found = Counter(row["verdict"]["lineage"] if row["verdict"] else "undecided" for row in rows)
    names = ("derived", "unrelated", "inconclusive", "undecided")
    return {"results": len(rows), **{name: found[name] for name in names}}


def _line(value: Mapping[str, object]) -> str:
    return dumps({"schema_version": SCHEMA_VERSION, **value}) + "\n"
