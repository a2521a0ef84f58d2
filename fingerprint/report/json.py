"""One JSON document, as `schema/results.v1.json` says."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import ClassVar

from fingerprint.report.interface import Report, Row, Summary

SCHEMA_VERSION = 1


class JsonReport(Report):
    """`{"schema_version": 1, "results": [...]}`; an audit adds `run`, `correction` and `partial`,
    a verify of several pairs `correction`."""

    name: ClassVar[str] = "json"

    def finish(self, rows: Sequence[Row], summary: Summary) -> str:
        """See `Report.finish`."""
        document = {"schema_version": SCHEMA_VERSION, "results": list(rows), **about(summary)}
        return dumps(document, indent=2) + "\n"


def about(summary: Summary) -> dict[str, object]:
    """The fields that an audit adds to the document, and a verify of several pairs."""
    if summary.kind != "audit":
        return {} if summary.correction is None else {"correction": summary.correction}
    return {"run": summary.run, "correction": summary.correction, "partial": summary.partial}


def dumps(value: object, indent: int | None = None) -> str:
    """JSON text: ASCII (file names may hold anything), and null for numbers that are not finite."""
    with suppress(ValueError, TypeError):  # almost always nothing has to be replaced
        return json.dumps(value, indent=indent, allow_nan=False)
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return value
