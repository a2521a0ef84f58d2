"""Parquet: one typed line per row, for data frames and warehouses. Needs the extra `parquet`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from fingerprint.errors import MissingExtra
from fingerprint.report.flat import COLUMNS, flat
from fingerprint.report.interface import Page, Report, Row, Summary
from fingerprint.report.json import SCHEMA_VERSION, about, dumps


class ParquetReport(Report):
    """The columns of `flat.COLUMNS`; the file's metadata `dnn-fingerprint` holds run and correction as JSON."""

    name: ClassVar[str] = "parquet"
    binary: ClassVar[bool] = True

    def __init__(self, page: Page | None = None) -> None:
        """Raises MissingExtra: pyarrow is not installed."""
        super().__init__(page)
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError as error:
            raise MissingExtra("pyarrow", "parquet") from error

    def finish(self, rows: Sequence[Row], summary: Summary) -> bytes:
        """See `Report.finish`."""
        import pyarrow as pa
        from pyarrow import parquet

        types = {"text": pa.string(), "number": pa.float64(), "integer": pa.int64(), "truth": pa.bool_()}
        schema = pa.schema(
            [(name, types[type_]) for name, type_ in COLUMNS.items()],
            metadata={"dnn-fingerprint": dumps({"schema_version": SCHEMA_VERSION, **about(summary)})},
        )
        values = [
            {k: _text(v) if isinstance(v, str) else v for k, v in zip(COLUMNS, flat(row), strict=True)} for row in rows
        ]
        sink = pa.BufferOutputStream()
        parquet.write_table(pa.Table.from_pylist(values, schema=schema), sink, compression="zstd")
        return bytes(sink.getvalue().to_pybytes())


def _text(value: str) -> str:
    """Names that are not UTF-8 with escapes, as the database keeps them."""
    return value.encode("utf-8", "backslashreplace").decode("utf-8")
