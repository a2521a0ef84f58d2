"""The table of all results: as text for the template, and as data for the script that sorts, filters and pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fingerprint.report import words
from fingerprint.report.interface import Row
from fingerprint.report.text import percent, printable

if TYPE_CHECKING:
    from markupsafe import Markup

COLUMNS = (
    {"label": "suspect", "number": False},
    {"label": "verdict", "number": False},
    {"label": "match", "number": True},
    {"label": "fingerprint", "number": False},
    {"label": "integrity", "number": False},
    {"label": "p", "number": True},
    {"label": "error at most", "number": True},
)
LABELS = {
    "back": "Back to the overview",
    "brief": "The results that matter most are told in full; this is the short account of another one. "
    "A report of this suspect alone tells all: fingerprint verify SUSPECT -o html=FILE",
}


def line(row: Row, number: int) -> dict[str, Any]:
    """A row of the table, as text."""
    verdict = row["verdict"] or {}
    asked = bool(verdict) and verdict["decided_by"] != "digest"
    stated = bool(verdict) and (verdict["calibration"] is not None or verdict["decided_by"] == "digest")
    return {
        "number": number,
        "kind": words.kind(row),
        "path": printable(row["suspect"]["path"]),
        "name": printable(row["fingerprint"]["name"]),
        "status": (verdict.get("lineage") or row["status"]) + (", suppressed" if row.get("suppressed") else ""),
        "integrity": verdict.get("integrity", ""),
        "match": percent(verdict["match_rate"]) if asked else "",
        "p": "" if verdict.get("p_value") is None else f"{verdict['p_value']:.2g}",
        "error": f"{verdict['error']:.3g}" if stated else "",
    }


def data(rows: Sequence[Row], sections: int) -> Markup:
    """All rows as JSON that is safe inside a script element. sections: how many are told in full."""
    from jinja2.utils import htmlsafe_json_dumps

    return htmlsafe_json_dumps(
        {
            "columns": COLUMNS,
            "labels": LABELS,
            "sections": min(len(rows), sections),
            "rows": [_record(row, i) for i, row in enumerate(rows)],
        },
        separators=(",", ":"),
    )


def _record(row: Row, number: int) -> dict[str, Any]:
    verdict, text = row["verdict"] or {}, line(row, number)
    cells = [text[name] for name in ("path", "status", "match", "name", "integrity", "p", "error")]
    names = [text[name].lower() or None for name in ("path", "status", "name", "integrity")]
    match, p, error = verdict.get("match_rate"), verdict.get("p_value"), verdict.get("error")
    return {
        "kind": text["kind"],
        "cells": cells,
        "sort": [*names[:2], match if text["match"] else None, *names[2:], p, error if text["error"] else None],
        "headline": printable(words.headline(row)),
        "why": printable(words.why(row)),
        "more": [
            ("decided by", printable(verdict.get("decided_by", ""))),
            ("queries", str(verdict.get("queries", ""))),
            ("SHA-256", row["suspect"]["sha256"] or ""),
            ("format", printable(row["suspect"]["format"] or "")),
            ("runtime", printable(row["suspect"]["runtime"] or "")),
            ("fingerprint id", row["fingerprint"]["id"] or ""),
        ],
    }
