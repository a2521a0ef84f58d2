"""CSV (RFC 4180): one line per row, for spreadsheets and scripts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import ClassVar

from fingerprint.report.flat import COLUMNS, Value, flat
from fingerprint.report.interface import Report, Row, Summary
from fingerprint.report.text import printable

FORMULA = ("=", "+", "-", "@")  # what a spreadsheet takes a cell for a formula by


class CsvReport(Report):
    """The columns of `flat.COLUMNS`, with a header. What concerns the whole run is not in it: take json for that."""

    name: ClassVar[str] = "csv"

    def finish(self, rows: Sequence[Row], summary: Summary) -> str:
        """See `Report.finish`."""
        import csv
        from io import StringIO

        out = StringIO()
        writer = csv.writer(out)
        writer.writerow(COLUMNS)
        writer.writerows([_cell(value) for value in flat(row)] for row in rows)
        return out.getvalue()


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
