"""Whether a record's probes match too many independent models to be anybody's fingerprint.

A dishonest claimant registers probes that every model of the task answers in the same way: transferable adversarial
examples, or ordinary images with right labels (Liu et al., "False Claims against Model Ownership Resolution", USENIX
Security 2024). Such a record "recognises" models that the claimant never saw. Two tests see it, both on models that are
independent of the owner's: how many of them *match* (more than half-way between chance and everything), and how many
the record itself would accuse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fingerprint.decision.distributions import binomial_tail
from fingerprint.record import FamilyMatch, Manifest, lineage_part

USUAL = 0.05  # share of independent models that may match, by chance, an honest record
LEVEL = 0.05  # probability that an honest record of that share is refused


@dataclass(frozen=True)
class Transfer:
    """How many independent models match. rates: match rate of each; line: the rate from which on one matches."""

    rates: tuple[float, ...]
    line: float

    @property
    def matching(self) -> int:
        """Models on or above the line."""
        return sum(rate >= self.line for rate in self.rates)

    @property
    def p_value(self) -> float:
        """Probability of so many or more if each matched with probability `USUAL`."""
        return binomial_tail(self.matching, len(self.rates), USUAL)

    @property
    def too_many(self) -> bool:
        """Whether more match than an honest record explains, at `LEVEL`."""
        return bool(self.rates) and self.p_value <= LEVEL


def match_rate(families: dict[str, FamilyMatch]) -> float:
    """Share of all probes with the owner's label."""
    return sum(m.matches for m in families.values()) / max(1, sum(m.queries for m in families.values()))


def transfer(answers: Sequence[dict[str, FamilyMatch]], classes: int) -> Transfer:
    """How the probes transfer to independent models, by what each answered."""
    return Transfer(tuple(match_rate(a) for a in answers), (1.0 + 1.0 / classes) / 2.0)


def recorded_transfer(manifest: Manifest) -> Transfer:
    """The same from what the record itself holds: its references, made ones and screening nets included.

    Screening nets saw the candidates before selection, so their match is an under-estimate.
    """
    names = {family.name for family in lineage_part(manifest).families}
    everything = [r.families for r in manifest.references] + [s.families for s in manifest.screens]
    answers = [{name: found for name, found in each.items() if name in names} for each in everything]
    return transfer(answers, manifest.outputs)


def accusations(accused: int, models: int, alpha: float) -> float:
    """Probability that a record which errs with probability `alpha` per model accuses so many or more of them."""
    return binomial_tail(accused, models, alpha)
