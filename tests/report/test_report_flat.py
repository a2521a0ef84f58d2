"""csv and parquet: the same columns, every row, and no cell that a spreadsheet would run."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from io import BytesIO, StringIO
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from report_rows import row, verdict  # type: ignore[import-not-found]

from fingerprint.decision.correction import benjamini_hochberg
from fingerprint.report.csv import CsvReport
from fingerprint.report.flat import COLUMNS
from fingerprint.report.interface import Summary
from fingerprint.report.parquet import ParquetReport

VERIFY = Summary("verify")
AUDIT = Summary("audit", "20261122T101112-aabbccdd", vars(benjamini_hochberg([0.001, 0.3], 0.01)), partial=True)


def read_csv(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    return list(csv.DictReader(StringIO(CsvReport().finish(rows, VERIFY), newline="")))


def read_parquet(rows: list[dict[str, Any]], summary: Summary = VERIFY) -> pa.Table:
    return parquet.read_table(BytesIO(ParquetReport().finish(rows, summary)))


def test_csv(rows: list[dict[str, Any]]) -> None:
    found = read_csv(rows)
    assert len(found) == len(rows) and list(found[0]) == list(COLUMNS)
    first = found[0]
    assert (first["suspect_path"], first["lineage"], first["cached"]) == ("models/suspect.onnx", "derived", "false")
    assert float(first["p_value"]) == 2.3e-5 and int(first["queries"]) == 100 and float(first["score"]) == 0.81
    assert json.loads(first["families"])[0]["name"] == "characteristic"
    undecided = found[3]
    assert (undecided["status"], undecided["lineage"], undecided["p_value"]) == ("unsupported", "", "")
    assert "--allow-code opens it" in undecided["reason"]


def test_parquet(rows: list[dict[str, Any]]) -> None:
    table = read_parquet(rows, AUDIT)
    assert table.column_names == list(COLUMNS) and table.num_rows == len(rows)
    assert table.schema.field("p_value").type == pa.float64() and table.schema.field("cached").type == pa.bool_()
    assert table["lineage"].to_pylist() == ["derived", "unrelated", "inconclusive", None, "derived", "inconclusive"]
    about = json.loads(table.schema.metadata[b"dnn-fingerprint"])
    assert about["run"] == AUDIT.run and about["correction"]["tests"] == 2 and about["partial"] is True
    assert read_parquet([]).schema.equals(table.schema)


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "=cmd|' /C calc'!A0"])
def test_no_cell_is_a_formula(text: str) -> None:
    (found,) = read_csv([row(path=text, reason=text, fingerprint={"id": None, "name": text})])
    for name in ("suspect_path", "reason", "fingerprint_name"):
        assert not found[name].lstrip().startswith(("=", "+", "-", "@")), found[name]
    (negative,) = read_csv([row(verdict=verdict(score=-0.5))])
    assert float(negative["score"]) == -0.5


@given(st.text(st.characters(), max_size=30), st.floats())
@settings(max_examples=60, deadline=None)
def test_any_name_and_number(text: str, score: float) -> None:
    rows = [row(path=text, verdict=verdict(score=score))] * 2
    made = CsvReport().finish(rows, VERIFY)
    assert len(read_csv(rows)) == 2 and made.count("\r\n") == 3
    again = StringIO(newline="")
    csv.writer(again).writerows(csv.reader(StringIO(made, newline="")))
    assert again.getvalue() == made, "quoted where the standard library quotes"
    assert set(made) - {"\r", "\n"} == {c for c in made if c.isprintable()}
    path = read_parquet(rows)["suspect_path"].to_pylist()[0]
    assert path == text.encode("utf-8", "backslashreplace").decode()
    expected = score if math.isfinite(score) else None
    assert read_parquet(rows)["score"].to_pylist() == [expected] * 2


def test_without_pyarrow_the_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from cli.output import targets\n"
        "from fingerprint.errors import MissingExtra\n"
        "try: targets('table', ['parquet=x.parquet'], reports=True)\n"
        "except MissingExtra as error: print(error.diagnosis())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "dnn-fingerprint[parquet]" in done.stdout


@pytest.mark.parametrize("name", ["csv", "jsonl"])
def test_formats_of_lines_are_made_in_pieces(name: str) -> None:
    """However many rows there are: few are held at a time, and together the pieces are the whole."""
    from collections.abc import Sequence

    from fingerprint.report.csv import PIECE
    from fingerprint.report.interface import Summary
    from fingerprint.report.registry import report_class

    read: list[int] = []

    class Counting(Sequence):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return 4 * PIECE

        def __getitem__(self, index: int) -> object:  # type: ignore[override]
            if not 0 <= index < len(self):
                raise IndexError
            read.append(index)
            return row()

    summary = Summary("audit", correction={"tests": 1})
    pieces = report_class(name)().pieces(Counting(), summary)
    next(pieces)
    next(pieces)
    assert len(read) <= PIECE + 1
    rest = list(pieces)
    assert max(map(len, rest)) < 2000 * PIECE
    whole = report_class(name)().finish(Counting(), summary)
    assert whole == "".join(map(str, report_class(name)().pieces(Counting(), summary)))
