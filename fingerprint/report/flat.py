"""Rows as flat columns: what csv and parquet share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

from fingerprint.report.interface import Row
from fingerprint.report.json import dumps

Type: TypeAlias = Literal["text", "number", "integer", "truth"]
Value: TypeAlias = str | float | int | bool | None


def _part(name: str, field: str) -> Callable[[Row], Any]:
    return lambda row: row[name][field]


def _verdict(field: str) -> Callable[[Row], Any]:
    return lambda row: (row["verdict"] or {}).get(field)


def _calibration(field: str) -> Callable[[Row], Any]:
    return lambda row: ((row["verdict"] or {}).get("calibration") or {}).get(field)


def _suppressed(field: str) -> Callable[[Row], Any]:
    return lambda row: (row.get("suppressed") or {}).get(field)


def _families(row: Row) -> str | None:
    families = (row["verdict"] or {}).get("families")
    return dumps([dict(sorted(family.items())) for family in families]) if families else None


COLUMNS: dict[str, tuple[Type, Callable[[Row], Any]]] = {
    "suspect_path": ("text", _part("suspect", "path")),
    "suspect_sha256": ("text", _part("suspect", "sha256")),
    "suspect_format": ("text", _part("suspect", "format")),
    "suspect_runtime": ("text", _part("suspect", "runtime")),
    "fingerprint_id": ("text", _part("fingerprint", "id")),
    "fingerprint_name": ("text", _part("fingerprint", "name")),
    "status": ("text", lambda row: row["status"]),
    "reason": ("text", lambda row: row["reason"] or (row["verdict"] or {}).get("reason") or ""),
    "cached": ("truth", lambda row: row["cached"]),
    **{name: ("text", _verdict(name)) for name in ("lineage", "integrity", "direction")},
    **{name: ("number", _verdict(name)) for name in ("error", "p_value", "total_p", "score", "match_rate")},
    "queries": ("integer", _verdict("queries")),
    "decided_by": ("text", _verdict("decided_by")),
    "power": ("number", _verdict("power")),
    "calibration_kind": ("text", _calibration("kind")),
    "calibration_n": ("integer", _calibration("n")),
    "calibration_authors": ("integer", _calibration("authors")),
    "calibration_confidence": ("number", _calibration("confidence")),
    "calibration_bound": ("number", _calibration("bound")),
    "families": ("text", _families),
    **{f"suppressed_{name}": ("text", _suppressed(name)) for name in ("reason", "expires")},
}


def flat(row: Row) -> dict[str, Value]:
    """One row: column -> value, None where the row has none. Numbers that are not finite are None, as in JSON."""
    return {name: _clean(type_, read(row)) for name, (type_, read) in COLUMNS.items()}


def _clean(type_: Type, value: Any) -> Value:  # noqa: ANN401  (whatever a stored row holds)
    if value is None:
        return None
    if type_ == "number":
        number = float(value)
        return number if abs(number) < float("inf") else None
    if type_ == "integer":
        return int(value)
    return bool(value) if type_ == "truth" else str(value)
