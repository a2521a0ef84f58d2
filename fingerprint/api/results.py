"""Frozen results of `verify` and `audit`: what cannot be decided is a result too, with its reason."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import asdict, field, replace
from typing import Any, Literal, Self

from fingerprint.decision.correction import Correction, benjamini_hochberg
from fingerprint.decision.direction import NOT_DERIVED, DirectionEvidence, explained
from fingerprint.decision.verdict import Direction, Verdict
from fingerprint.frozen import dataclass

SCHEMA_VERSION = 1
Status = Literal[
    "decided",
    "skipped",
    "unsupported",
    "unreadable",
    "opaque",
    "degenerate",
    "evasive",
    "crashed",
    "timed-out",
]


@dataclass(frozen=True)
class Suspect:
    """The file that was looked at. Fields that could not be read are None."""

    path: str
    sha256: str | None = None
    format: str | None = None
    runtime: str | None = None


@dataclass(frozen=True)
class FingerprintRef:
    """The record that it was compared with. `id` is None for a record that was never sealed."""

    id: str | None
    name: str


@dataclass(frozen=True)
class Result:
    """One suspect against one fingerprint. `verdict` is None unless `status` is `decided`.

    adaptation: how the suspect was fed (input spec, where it came from, what was settled on clean inputs).
    answers: `{"probes": [...], "labels": [...]}`, the label that the suspect gave to each probe asked. It stays with
    the stored run, and is in no row: reports show it only together with the probes, when asked to. workings: what else
    it takes to compute the verdict again (`api.workings`), which stays with the stored run, too.
    """

    suspect: Suspect
    fingerprint: FingerprintRef
    status: Status
    reason: str = ""
    verdict: Verdict | None = None
    cached: bool = False
    adaptation: dict[str, object] | None = None
    stored_verdict: dict[str, object] | None = None  # the row of an earlier run, when cached
    settings_sha256: str | None = None  # digest of everything that the decision depends on, for `known`
    answers: dict[str, list[int]] | None = field(default=None, repr=False)
    workings: dict[str, object] | None = field(default=None, repr=False)

    @property
    def lineage(self) -> str | None:
        """`derived`, `unrelated`, `inconclusive`, or None when undecided."""
        if self.stored_verdict is not None:
            return str(self.stored_verdict["lineage"])
        return self.verdict.lineage if self.verdict is not None else None

    @property
    def integrity(self) -> str | None:
        """`intact`, `altered`, `unknown`, or None when undecided."""
        if self.stored_verdict is not None:
            return str(self.stored_verdict["integrity"])
        return self.verdict.integrity if self.verdict is not None else None

    @property
    def total_p(self) -> float | None:
        """The p-value that a correction for many tests uses."""
        if self.stored_verdict is not None:
            value = self.stored_verdict.get("total_p")
            return value if isinstance(value, float) else None
        return self.verdict.total_p if self.verdict is not None else None

    def with_lineage(self, lineage: Literal["derived", "unrelated", "inconclusive"], reason: str) -> Result:
        """The same evidence with the lineage that holds after correction.

        Integrity and direction are said of derived ones only.
        """
        if self.stored_verdict is not None:
            changed: dict[str, object] = {"lineage": lineage, "reason": reason, "explanation": reason}
            if lineage != "derived":
                changed |= {"integrity": "unknown", "direction": "unknown"}
                shown = self.stored_verdict.get("direction_evidence")
                if isinstance(shown, dict):
                    changed["direction_evidence"] = {**shown, "reason": NOT_DERIVED}
            return replace(self, stored_verdict=self.stored_verdict | changed)
        assert self.verdict is not None  # noqa: S101  (only decided results are corrected)
        integrity = self.verdict.integrity if lineage == "derived" else "unknown"
        changed_verdict = replace(self.verdict, lineage=lineage, integrity=integrity, reason=reason, explanation="")
        if lineage != "derived" and self.verdict.direction_evidence is not None:
            without = replace(self.verdict.direction_evidence, reason=NOT_DERIVED)
            changed_verdict = replace(changed_verdict, direction="unknown", direction_evidence=without)
        return replace(self, verdict=changed_verdict)

    def with_direction(self, direction: Direction, evidence: DirectionEvidence, token: bytes) -> Result:
        """The same with what timestamps say. No later run reuses it, for that may know other timestamps.

        token: the suspect's, verified; it is kept among the workings.
        """
        kept = {**(self.workings or {}), "timestamp": b64encode(token).decode()}
        if self.stored_verdict is not None:
            text = f"{self.stored_verdict.get('explanation', '')} {explained(direction, evidence)}".strip()
            changed = {"direction": direction, "direction_evidence": asdict(evidence), "explanation": text}
            stored = self.stored_verdict | changed
            return replace(self, stored_verdict=stored, settings_sha256=None, workings=kept)
        if self.verdict is None:
            return self
        verdict = replace(self.verdict, direction=direction, direction_evidence=evidence, explanation="")
        return replace(self, verdict=verdict, settings_sha256=None, workings=kept)

    @classmethod
    def from_dict(cls, row: Mapping[str, Any], settings_sha256: str | None = None) -> Self:
        """The result of a row that `to_dict` or `to_stored` made."""
        return cls(
            Suspect(**row["suspect"]),
            FingerprintRef(**row["fingerprint"]),
            row["status"],
            row["reason"],
            cached=row["cached"],
            adaptation=row["adaptation"],
            stored_verdict=row["verdict"],
            settings_sha256=settings_sha256,
            answers=row.get("answers"),
            workings=row.get("workings"),
        )

    def to_dict(self) -> dict[str, object]:
        """The row of the JSON contract (DESIGN section 9)."""
        verdict = self.stored_verdict if self.stored_verdict is not None else None
        if verdict is None and self.verdict is not None:
            verdict = self.verdict.to_dict()
        return {
            "suspect": dict(vars(self.suspect)),
            "fingerprint": dict(vars(self.fingerprint)),
            "status": self.status,
            "reason": self.reason,
            "cached": self.cached,
            "adaptation": self.adaptation,
            "verdict": verdict,
        }

    def to_stored(self) -> dict[str, object]:
        """The row as a run keeps it: with `answers` and `workings`, where there are any."""
        kept = {"answers": self.answers, "workings": self.workings}
        return self.to_dict() | {name: value for name, value in kept.items() if value is not None}


def correct(results: Sequence[Result], alpha: float) -> tuple[list[Result], Correction]:
    """Final results: `derived` stands only where it survives Benjamini-Hochberg over all tests."""
    correction = benjamini_hochberg([r.total_p for r in results if r.total_p is not None], alpha)
    return [corrected(result, correction) for result in results], correction


def corrected(result: Result, correction: Correction) -> Result:
    """The final form of one result."""
    if result.lineage != "derived" or result.total_p is None or result.total_p <= correction.threshold:
        return result
    text = f"It stands out by itself, but not after correction for {correction.tests} tests."
    return result.with_lineage("inconclusive", text)
