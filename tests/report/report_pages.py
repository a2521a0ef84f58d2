"""Runs to show as pages: one suspect in full, and an audit of any size."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import made_records  # type: ignore[import-not-found]
import numpy as np
from report_rows import row, verdict  # type: ignore[import-not-found]

from fingerprint.decision.correction import benjamini_hochberg
from fingerprint.decision.verdict import CalibrationUsed, FamilyResult
from fingerprint.record import Probes
from fingerprint.report.html import HtmlReport
from fingerprint.report.interface import RecordView, Summary

ID = "cd" * 32
SIDE, COUNTS, CLASSES = 32, (60, 40), 10
REFERENCE_RATES = [4, 5, 7, 7, 8, 11, 11, 11, 13, 15, 22, 30]


def record(*, secrets: bool) -> RecordView:
    """A record of two families with twelve references and three copies; `secrets`: with its probes."""
    rng = np.random.default_rng(7)
    names = ("characteristic", "natural")
    found = made_records.references(
        [{names[0]: m, names[1]: min(100, m + 20)} for m in REFERENCE_RATES],
        100,
        authors=[f"author-{i % 5}" if i % 4 else None for i in range(12)],
    )
    manifest = made_records.manifest(
        families=dict.fromkeys(names, 0.5),
        references=found,
        copies=[{names[0]: c, names[1]: c - 3} for c in (99, 97, 94)],
    )
    families = tuple(f.model_copy(update={"count": c}) for f, c in zip(manifest.families, COUNTS, strict=True))
    probes = Probes(count=sum(COUNTS), shape=(SIDE, SIDE, 3), merkle_root="12" * 32)
    payload = made_records.payload(COUNTS)
    across = np.linspace(0, 255, SIDE)
    waves = [np.sin(np.add.outer(across * a, across * b) / 60) for a, b in rng.uniform(-2, 2, (sum(COUNTS) * 3, 2))]
    images = np.rint(127 + 120 * np.stack(waves)).astype(np.uint8).reshape(sum(COUNTS), 3, SIDE, SIDE)
    payload = replace(payload, probes=images.transpose(0, 2, 3, 1), targets=rng.integers(0, CLASSES, sum(COUNTS)))
    manifest = manifest.model_copy(update={"families": families, "probes": probes})
    return RecordView(manifest, ("8f" * 16,), payload if secrets else None)


def full_verdict(**changes: object) -> dict[str, Any]:
    """A verdict with everything that one may carry."""
    families = (
        FamilyResult("characteristic", 58, 60, 58 / 60, 0.91, 2.3e-5, 0.47),
        FamilyResult("natural", 36, 40, 0.9, None, 4.1e-4, 0.71),
    )
    made = verdict(
        families=families, match_rate=0.94, calibration=CalibrationUsed("fitted", 12, 5, 3, 0.95, 0.47), **changes
    )
    walk = np.cumsum(np.random.default_rng(3).normal(0.05, 0.06, 100))
    return {
        **made,
        "evidence": [[i + 1, float(w)] for i, w in enumerate(walk)],
        "attribution": {"likely": "quantize:int8", "p": 0.83},
    }


def one_suspect(*, secrets: bool = False) -> str:
    """A page about one suspect."""
    shown = row(
        path="uploads/2026-11/resnet20-mobile-final.tflite",
        verdict=full_verdict(),
        adaptation={"origin": "sidecar", "spec": {"layout": "NHWC", "shape": [32, 32, 3], "dtype": "float32"}},
    )
    view = record(secrets=secrets)
    answers = {}
    if view.payload is not None:
        labels = view.payload.targets.copy()
        labels[:6] = (labels[:6] + 1) % CLASSES
        answers = {(shown["suspect"]["path"], ID): {"probes": list(range(100)), "labels": labels.tolist()}}
    summary = Summary(
        "verify",
        run="20261123T093000-1a2b3c4d",
        tool_version="0.1.0",
        started="2026-11-23T09:30:00.000Z",
        finished="2026-11-23T09:30:04.000Z",
        parameters={"alpha": 0.01, "calibration": "auto", "label_only": False, "repeat": 1},
        records={ID: view},
        answers=answers,
    )
    return HtmlReport().finish([shown], summary)


def audit_rows(count: int) -> list[dict[str, Any]]:
    """Rows of an audit: a few derivatives, some that can't be read, most of them unrelated."""
    kinds = ["unrelated"] * 17 + ["inconclusive", "derived", None]
    rng = np.random.default_rng(1)
    rows = []
    for i in range(count):
        kind = kinds[i % 20]
        path = f"registry/team-{i % 13}/model-{i:05d}/weights.{('onnx', 'tflite', 'pt2')[i % 3]}"
        made = row(kind, path=path)
        if kind:
            rate = float(rng.uniform(0.9, 1) if kind == "derived" else rng.uniform(0, 0.3))
            made["verdict"] = {**verdict(kind), "match_rate": rate, "p_value": float(10 ** rng.uniform(-6, 0))}
        rows.append(made)
    return rows


def audit(count: int, *, partial: bool = False) -> str:
    """A page about a whole registry."""
    rows = audit_rows(count)
    ps = [r["verdict"]["total_p"] for r in rows if r["verdict"]]
    summary = Summary(
        "audit",
        run="20261123T093000-1a2b3c4d",
        correction=vars(benjamini_hochberg(ps, 0.01)),
        partial=partial,
        tool_version="0.1.0",
        started="2026-11-23T09:30:00.000Z",
        parameters={"alpha": 0.01},
        records={ID: record(secrets=False)},
    )
    return HtmlReport().finish(rows, summary)
