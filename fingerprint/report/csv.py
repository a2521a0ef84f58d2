"""CSV (RFC 4180): one line per row, for spreadsheets and scripts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import ClassVar

from fingerprint.report.flat import COLUMNS, Value, flat
from fingerprint.report.interface import Report, Row, Summary
from fingerprint.report.text import printable

PIECE = 500  # lines that are made at a time
FORMULA = ("=", "+", "-", "@")  # what a spreadsheet takes a cell for a formula by


class CsvReport(Report):
    """The columns of `flat.COLUMNS`, with a header. What concerns the whole run is not in it: take json for that."""

    name: ClassVar[str] = "csv"

    def finish(self, rows: Sequence[Row], summary: Summary) -> str:
        """See `Report.finish`."""
        return "".join(self.pieces(rows, summary))

    def pieces(self, rows: Sequence[Row], summary: Summary) -> Iterator[str]:
        """See `Report.pieces`: some hundred lines at a time."""
        import csv
        from io import StringIO

        del summary
        coming = iter(rows)
        lines: list[Sequence[str]] = [tuple(COLUMNS)]
        while lines:
            out = StringIO()
            csv.writer(out).writerows(lines)
            yield out.getvalue()
            lines = [[_cell(value) for value in flat(row)] for row in islice(coming, PIECE)]


def _cell(value: Value) -> str:
    """Text of strangers must not become a formula: such a cell gets an apostrophe in front (OWASP, CSV injection)."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return _text(value) if isinstance(value, str) else repr(value)


@lru_cache(maxsize=4096)  # the same few words stand in most rows
def _text(value: str) -> str:
    text = printable(value)
    return f"'{text}" if text.lstrip().startswith(FORMULA) else text
