"""CSV (RFC 4180): one line per row, for spreadsheets and scripts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any, ClassVar

from fingerprint.report.flat import COLUMNS, Type, columns_of, number_of
from fingerprint.report.interface import Report, Row, Summary
from fingerprint.report.text import printable

PIECE = 500  # lines that are made at a time
_QUOTE = '"'
FORMULA = ("=", "+", "-", "@")  # what a spreadsheet takes a cell for a formula by


class CsvReport(Report):
    """The columns of `flat.COLUMNS`, with a header. What concerns the whole run is not in it: take json for that."""

    name: ClassVar[str] = "csv"

    def finish(self, rows: Sequence[Row], summary: Summary) -> str:
        """See `Report.finish`."""
        return "".join(self.pieces(rows, summary))

    def pieces(self, rows: Sequence[Row], summary: Summary) -> Iterator[str]:
        """See `Report.pieces`: some hundred lines at a time."""
        del summary
        coming = iter(rows)
        lines = [",".join(COLUMNS)]
        while lines:
            yield "\r\n".join([*lines, ""])
            lines = [
                ",".join(
                    ["" if value is None else cell(value) for cell, value in zip(_CELLS, columns_of(row), strict=True)]
                )
                for row in islice(coming, PIECE)
            ]


@lru_cache(maxsize=4096)  # the same few words stand in most rows
def _text(value: object) -> str:
    """Text of strangers must not become a formula: such a cell gets an apostrophe in front (OWASP, CSV injection)."""
    text = printable(str(value))
    if text.lstrip().startswith(FORMULA):
        text = f"'{text}"
    if '"' in text:
        return f'"{text.replace(_QUOTE, _QUOTE + _QUOTE)}"'
    return f'"{text}"' if "," in text else text  # line ends are not printable, and spelled out


def _number(value: object) -> str:
    number = number_of(value)
    return "" if number is None else repr(number)


def _integer(value: Any) -> str:  # noqa: ANN401  (whatever a stored row holds)
    return repr(int(value))


def _truth(value: object) -> str:
    return "true" if value else "false"


_CELL: dict[Type, Callable[[Any], str]] = {"text": _text, "number": _number, "integer": _integer, "truth": _truth}
_CELLS = tuple(_CELL[type_] for type_ in COLUMNS.values())
