"""Rows as flat columns: what csv and parquet share."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
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


def flat(row: Row) -> list[Value]:
    """One row: a value per column, None where the row has none. Numbers that are not finite are None, as in JSON."""
    return [None if value is None else clean(value) for clean, value in zip(_CLEAN, columns_of(row), strict=True)]


def columns_of(row: Row) -> tuple[Any, ...]:
    """One row: what stands in each column, of whatever type a stored row holds."""
    suspect, fingerprint, verdict = row["suspect"], row["fingerprint"], row["verdict"] or {}
    calibration, suppressed = verdict.get("calibration") or {}, row.get("suppressed") or {}
    families = verdict.get("families")
    return (
        suspect["path"], suspect["sha256"], suspect["format"], suspect["runtime"],
        fingerprint["id"], fingerprint["name"],
        row["status"], row["reason"] or verdict.get("reason") or "", row["cached"],
        *map(verdict.get, _VERDICT),
        *map(calibration.get, _CALIBRATION),
        _families(families) if families else None,
        suppressed.get("reason"), suppressed.get("expires"),
    )  # fmt: skip


_encode = json.JSONEncoder(sort_keys=True, allow_nan=False).encode


def _families(families: Sequence[Mapping[str, object]]) -> str:
    try:
        return _encode(families)
    except ValueError:  # a number that is not finite
        return dumps([dict(sorted(family.items())) for family in families])


def number_of(value: Any) -> float | None:  # noqa: ANN401  (whatever a stored row holds)
    """A finite number, else None."""
    number = float(value)
    return number if -_INFINITE < number < _INFINITE else None


_INFINITE = float("inf")
_CLEANED: dict[Type, Callable[[Any], Value]] = {"text": str, "number": number_of, "integer": int, "truth": bool}
_CLEAN = tuple(_CLEANED[type_] for type_ in COLUMNS.values())
