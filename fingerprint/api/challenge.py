"""The uniqueness audit: a judge asks a record's probes of independent models that the judge picked.

A record whose probes match too many of them recognises everybody, and is worth nothing as evidence. `create` refuses
such a record where its own references show it; a claimant may leave those out, so what counts in a dispute is this
audit (DESIGN section 6). With suspects, the claim is also judged with the judge's models as the only references.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from fingerprint.api.references import find_references, measure_references
from fingerprint.api.results import Result
from fingerprint.api.verify import VerifyOptions, verify
from fingerprint.decision.claims import LEVEL, Transfer, accusations, hopeless, midway, transfer
from fingerprint.decision.lineage import LineageTest, Settings
from fingerprint.decision.null import MINIMUM_FITTED
from fingerprint.decision.reach import reach
from fingerprint.engine.session import WorkerPool
from fingerprint.frozen import dataclass
from fingerprint.progress import Progress, Silent
from fingerprint.record import FamilyMatch, Fingerprint, Manifest, Reference, lineage_part

Outcome = Literal["passed", "failed", "inconclusive"]


@dataclass(frozen=True)
class ChallengeOptions:
    """How to challenge. alpha: the error level at which the record would accuse; suspects: the models in dispute."""

    alpha: float = 0.01
    suspects: Sequence[Path] = ()
    allow_code: bool = False
    factory: str | None = None


@dataclass(frozen=True)
class Challenge:
    """What the audit found.

    models: path and match rate of each of the judge's models; accused: those that the record, by its own calibration,
    would call derived (None: it has no calibration); claims: verdicts on the suspects with the judge's models as the
    references; bound: the largest match rate that still does not stand out among the judge's models.
    """

    outcome: Outcome
    reason: str
    models: tuple[tuple[str, float], ...]
    transfer: Transfer
    accused: tuple[str, ...] | None
    bound: float | None
    alpha: float
    claims: tuple[Result, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """Plain JSON values."""
        return {
            "outcome": self.outcome,
            "reason": self.reason,
            "alpha": self.alpha,
            "models": [{"path": path, "match_rate": rate} for path, rate in self.models],
            "matching": self.transfer.matching,
            "matching_from": self.transfer.line,
            "p_value": self.transfer.p_value if self.models else None,
            "accused": None if self.accused is None else list(self.accused),
            "bound": self.bound,
            "claims": [claim.to_dict() for claim in self.claims],
        }


def challenge(
    fingerprint: Fingerprint,
    models: Sequence[Path],
    options: ChallengeOptions | None = None,
    *,
    progress: Progress | None = None,
) -> Challenge:
    """Ask the record's probes of the judge's models, which must be unrelated to the owner's.

    Raises:
        UsageError, CalibrationError: as `measure_references`: among others, one of the models is the owner's own.
    """
    options, told = options or ChallengeOptions(), progress or Silent()
    manifest = fingerprint.manifest
    paths = find_references(models)
    with WorkerPool() as pool:
        measured, orders = measure_references(
            paths,
            manifest.families,
            fingerprint.payload,
            manifest.input_spec.to_input_spec(),
            {manifest.owner.sha256, manifest.owner.weights_sha256 or ""},
            pool,
            allow_code=options.allow_code,
            factory=options.factory,
            progress=told,
        )
    named = _named(paths, measured)
    judged = replace(
        fingerprint,
        manifest=manifest.model_copy(update={"references": measured, "declared_bound": None}),
        payload=replace(fingerprint.payload, reference_orders=orders),
        id=None,
    )
    found = judge(manifest, named, options.alpha)
    claims = tuple(verify(options.suspects, [judged], _asking(options), progress=told)) if options.suspects else ()
    return replace(found, claims=claims)


def judge(manifest: Manifest, models: Sequence[tuple[str, Reference]], alpha: float) -> Challenge:
    """What the answers of the judge's models, each with its name, say of a record."""
    names = {f.name for f in lineage_part(manifest).families}
    answers = [{name: m for name, m in r.families.items() if name in names} for _, r in models]
    found = transfer(answers, midway(manifest.outputs))
    accused = _accused(manifest, models, alpha)
    judged = manifest.model_copy(update={"references": tuple(r for _, r in models), "declared_bound": None})
    outcome, reason = _outcome(found, accused, judged, alpha)
    return Challenge(
        outcome=outcome,
        reason=reason,
        models=tuple((name, rate) for (name, _), rate in zip(models, found.rates, strict=True)),
        transfer=found,
        accused=accused,
        bound=_bound(judged, alpha),
        alpha=alpha,
    )


def _asking(options: ChallengeOptions) -> VerifyOptions:
    return VerifyOptions(alpha=options.alpha, allow_code=options.allow_code, factory=options.factory)


def _named(paths: Sequence[Path], measured: Sequence[Reference]) -> list[tuple[str, Reference]]:
    """Each measured model with the path of its first copy."""
    from fingerprint.runtimes.parts import model_sha256

    by_digest: dict[str, str] = {}
    for path in paths:
        by_digest.setdefault(model_sha256(path)[0], str(path))
    return [(by_digest.get(r.sha256, r.sha256), r) for r in measured]


def _accused(manifest: Manifest, models: Sequence[tuple[str, Reference]], alpha: float) -> tuple[str, ...] | None:
    """The models that the record would call derived by its own calibration; those that calibrate it are left out."""
    test = LineageTest(manifest, Settings(alpha))
    if test.kind is None and manifest.declared_bound is not None:
        test = LineageTest(manifest, Settings(alpha, "declared"))
    if test.kind is None:
        return None
    own = {r.sha256 for r in manifest.references}
    return tuple(
        name
        for name, model in models
        if model.sha256 not in own and test.decide(dict(model.families), manifest.probes.count).lineage == "derived"
    )


def _bound(manifest: Manifest, alpha: float) -> float | None:
    """The match rate above which a model stands out among the judge's, or None where none does."""
    if len(manifest.references) < MINIMUM_FITTED:
        return None
    test = LineageTest(manifest, Settings(alpha, label_only=True))
    everything = {f.name: FamilyMatch(matches=f.count, queries=f.count) for f in lineage_part(manifest).families}
    used = test.decide(everything, manifest.probes.count).calibration
    return None if used is None else used.bound


def _outcome(found: Transfer, accused: tuple[str, ...] | None, judged: Manifest, alpha: float) -> tuple[Outcome, str]:
    """`judged`: the record with the judge's models as its references."""
    count = len(found.rates)
    if accused is None and found.too_many:
        return "failed", (
            f"{found.matching} of {count} independent models match it (on {found.line:.0%} of the probes or more). "
            "A record that recognises unrelated models is no evidence against any model."
        )
    if accused and accusations(len(accused), count, alpha) <= LEVEL:
        return "failed", (
            f"By its own calibration it would call {len(accused)} of {count} independent models derived, where an "
            f"error of {alpha:g} is claimed."
        )
    if hopeless(judged, alpha):
        return "failed", (
            f"The {count} independent models match it on {min(found.rates):.0%} to {max(found.rates):.0%} of the "
            "probes: among them not even an exact copy stands out."
        )
    reached = reach(judged, alpha)
    if not reached.reached:
        return "inconclusive", f"These models do not suffice to pass on. {reached.sentence}"
    said = (
        "it has no calibration of its own" if accused is None else f"by its own calibration it accuses {len(accused)}"
    )
    return "passed", (
        f"{found.matching} of {count} independent models match it on {found.line:.0%} of the probes or more; {said}."
    )
