"""Rows as flat columns: what csv and parquet share."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from fingerprint.report.interface import Row
from fingerprint.report.json import dumps

Type: TypeAlias = Literal["text", "number", "integer", "truth"]
Value: TypeAlias = str | float | int | bool | None


_VERDICT: dict[str, Type] = {
    **dict.fromkeys(("lineage", "integrity", "direction"), "text"),
    **dict.fromkeys(("error", "p_value", "total_p", "score", "match_rate"), "number"),
    "queries": "integer",
    "decided_by": "text",
    "power": "number",
}
_CALIBRATION: dict[str, Type] = {
    "kind": "text",
    "n": "integer",
    "authors": "integer",
    "confidence": "number",
    "bound": "number",
}
COLUMNS: dict[str, Type] = {
    "suspect_path": "text",
    "suspect_sha256": "text",
    "suspect_format": "text",
    "suspect_runtime": "text",
    "fingerprint_id": "text",
    "fingerprint_name": "text",
    "status": "text",
    "reason": "text",
    "cached": "truth",
    **_VERDICT,
    **{f"calibration_{name}": type_ for name, type_ in _CALIBRATION.items()},
    "families": "text",
    "suppressed_reason": "text",
    "suppressed_expires": "text",
}
_TYPES = tuple(COLUMNS.values())


def flat(row: Row) -> list[Value]:
    """One row: a value per column, None where the row has none. Numbers that are not finite are None, as in JSON."""
    suspect, fingerprint, verdict = row["suspect"], row["fingerprint"], row["verdict"] or {}
    calibration, suppressed = verdict.get("calibration") or {}, row.get("suppressed") or {}
    families = verdict.get("families")
    found = (
        suspect["path"], suspect["sha256"], suspect["format"], suspect["runtime"],
        fingerprint["id"], fingerprint["name"],
        row["status"], row["reason"] or verdict.get("reason") or "", row["cached"],
        *map(verdict.get, _VERDICT),
        *map(calibration.get, _CALIBRATION),
        dumps([dict(sorted(family.items())) for family in families]) if families else None,
        suppressed.get("reason"), suppressed.get("expires"),
    )  # fmt: skip
    return [None if value is None else _clean(type_, value) for type_, value in zip(_TYPES, found, strict=True)]


def _clean(type_: Type, value: Any) -> Value:  # noqa: ANN401  (whatever a stored row holds)
    if type_ == "text":
        return str(value)
    if type_ == "number":
        number = float(value)
        return number if abs(number) < float("inf") else None
    if type_ == "integer":
        return int(value)
    return bool(value)
