"""Verdicts that also say what a suspect's weights share with the owner's, where its file is open."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol, runtime_checkable

from fingerprint.api.results import Result
from fingerprint.decision.allow import is_compression, steps_of
from fingerprint.decision.attribution import Attribution, by_weights
from fingerprint.decision.verdict import Verdict
from fingerprint.decision.weight_pairs import GRID
from fingerprint.decision.weights import WeightEvidence, compare
from fingerprint.errors import FingerprintError
from fingerprint.record import Fingerprint
from fingerprint.runtimes.sketch import WeightSketch

SAME = ("identical", "renamed", "reordered")
CHANGED = ("changed in part", "changed")
STRANGE = ("unlike", "unknown")
OWNERS_WEIGHTS = "Its answers are those of an unrelated model, but its weights come from the owner's."
CHANGED_WEIGHTS = (
    "Its answers are those of an allowed compression, but its weights were changed beyond rounding and pruning."
)
SAME_WEIGHTS = "Every weight is bit for bit the owner's, and every probe was answered as the owner answers it."


@runtime_checkable
class Open(Protocol):
    """A suspect whose weights can be read."""

    def weight_sketch(self) -> WeightSketch:
        """The summary of its weights."""


def weighed(result: Result, fingerprint: Fingerprint, session: object) -> Result:
    """A result with what the weights say, where they can be compared. They never make anything `derived`.

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
    return replace(result, verdict=_doubted(_with(verdict, found), suspect))


def _with(verdict: Verdict, found: WeightEvidence) -> Verdict:
    """What weights add: they name what compression left, and take back `unrelated` and `intact` that they contradict.

    Bit-identical weights and the owner's answers are an intact function. Weights accuse nobody: `derived` and `altered`
    rest on answers alone.
    """
    verdict = replace(verdict, weights=found, explanation="")
    if verdict.lineage == "unrelated" and found.relation not in STRANGE:
        return replace(verdict, lineage="inconclusive", reason=OWNERS_WEIGHTS)
    if verdict.lineage != "derived":
        return verdict
    made: Attribution | None = by_weights(verdict.attribution, found)
    verdict = replace(verdict, attribution=made)
    evidence = verdict.integrity_evidence
    answered = verdict.match_rate == 1.0 and (evidence is None or not evidence.differing)
    if found.complete and found.relation in SAME and answered and verdict.integrity != "intact":
        if evidence is not None:
            evidence = replace(evidence, reason=SAME_WEIGHTS)
        return replace(verdict, integrity="intact", integrity_evidence=evidence)
    return verdict


def _doubted(verdict: Verdict, suspect: WeightSketch) -> Verdict:
    """`intact` is taken back where weights were changed as no declared compression changes them.

    Layers of 8 bits or fewer are left out: a quantizer of unknown grid and zero point may have made them.
    """
    found, evidence = verdict.weights, verdict.integrity_evidence
    if verdict.integrity != "intact" or found is None or evidence is None or found.relation not in CHANGED:
        return verdict
    if not all(_rounds_or_prunes(limit) for limit in evidence.allowed):
        return verdict
    levels = suspect.column("levels")
    if not any(levels[suspect.names.index(name)] > GRID for name in found.changed):
        return verdict
    return replace(verdict, integrity="unknown", integrity_evidence=replace(evidence, reason=CHANGED_WEIGHTS))


def _rounds_or_prunes(limit: str) -> bool:
    """Whether what is declared leaves every weight rounded, zero or as it was."""
    return is_compression(limit) and all(step[0] != "circulant" for step in steps_of(limit))
