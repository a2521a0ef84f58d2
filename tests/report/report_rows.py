"""Rows as `Result.to_dict()` gives them, made by hand."""

from __future__ import annotations

from typing import Any

from fingerprint.decision.verdict import CalibrationUsed, FamilyResult, Verdict, explain


def verdict(lineage: str = "derived", **changes: object) -> dict[str, Any]:
    values: dict[str, Any] = {
        "lineage": lineage,
        "error": 0.005,
        "p_value": 2.3e-5 if lineage == "derived" else 0.4,
        "score": 0.81,
        "match_rate": 0.98 if lineage == "derived" else 0.1,
        "queries": 100,
        "decided_by": "label-match on characteristic probes",
        "calibration": CalibrationUsed("fitted", 12, 3, 4, 0.95, 0.47),
        "total_p": 4.6e-5,
        "power": 0.99,
        "families": (FamilyResult("characteristic", 98, 100, 0.98, 0.9, 2.3e-5, 0.47),),
    }
    made = Verdict(**{**values, **changes})
    return {**made.to_dict(), "explanation": explain(made)}


def row(lineage: str | None = "derived", *, path: str = "models/suspect.onnx", **changes: object) -> dict[str, Any]:
    values: dict[str, Any] = {
        "suspect": {"path": path, "sha256": "ab" * 32, "format": "onnx", "runtime": "onnx"},
        "fingerprint": {"id": "cd" * 32, "name": "my-model"},
        "status": "decided" if lineage else "unsupported",
        "reason": "" if lineage else "it carries code; --allow-code opens it",
        "cached": False,
        "adaptation": {"origin": "sidecar", "spec": {}} if lineage else None,
        "verdict": verdict(lineage) if lineage else None,
    }
    return {**values, **changes}
