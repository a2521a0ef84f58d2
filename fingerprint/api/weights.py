"""Verdicts that also say what a suspect's weights share with the owner's, where its file is open."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol, runtime_checkable

from fingerprint.api.results import Result
from fingerprint.decision.attribution import Attribution, by_weights
from fingerprint.decision.verdict import Verdict
from fingerprint.decision.weights import WeightEvidence, compare
from fingerprint.errors import FingerprintError
from fingerprint.record import Fingerprint
from fingerprint.runtimes.sketch import WeightSketch

SAME = ("identical", "renamed", "reordered")
SAME_WEIGHTS = "Every weight is bit for bit the owner's, and every probe was answered as the owner answers it."


@runtime_checkable
class Open(Protocol):
    """A suspect whose weights can be read."""

    def weight_sketch(self) -> WeightSketch:
        """The summary of its weights."""


def weighed(result: Result, fingerprint: Fingerprint, session: object) -> Result:
    """A result with what the weights say, where they can be compared. Lineage stays as it is.

    Args:
        result: decided.
        fingerprint: the record that it is about.
        session: the open suspect; it is not asked twice where it remembers.
    """
    known, verdict = fingerprint.payload.weight_sketch, result.verdict
    if known is None or verdict is None or not isinstance(session, Open):
        return result
    try:
        owner, suspect = WeightSketch.from_bytes(known.tobytes()), session.weight_sketch()
    except FingerprintError:  # the answers stand; of the weights nothing is known
        return result
    if not suspect.names:
        return result
    found = compare(owner, suspect, fingerprint.manifest.outputs)
    return replace(result, verdict=_with(verdict, found))


def _with(verdict: Verdict, found: WeightEvidence) -> Verdict:
    """Bit-identical weights and the owner's answers are an intact function; compression is named by what it left."""
    verdict = replace(verdict, weights=found, explanation="")
    if verdict.lineage != "derived":
        return verdict
    made: Attribution | None = by_weights(verdict.attribution, found)
    verdict = replace(verdict, attribution=made)
    evidence = verdict.integrity_evidence
    answered = verdict.match_rate == 1.0 and (evidence is None or not evidence.differing)
    if found.complete and found.relation in SAME and answered and verdict.integrity != "intact":
        if evidence is not None:
            evidence = replace(evidence, reason=SAME_WEIGHTS)
        verdict = replace(verdict, integrity="intact", integrity_evidence=evidence)
    return verdict
