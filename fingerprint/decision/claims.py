"""Whether a record's probes match too many independent models to be anybody's fingerprint.

A dishonest claimant registers probes that every model of the task answers in the same way: transferable adversarial
examples, or ordinary images with right labels (Liu et al., "False Claims against Model Ownership Resolution", USENIX
Security 2024). Such a record "recognises" models that the claimant never saw. Three tests see it, all on models that
are independent of the owner's: how many of them match as a derivative would, how many the record itself would accuse,
and whether even a full match could stand out among them.
"""

from __future__ import annotations

from collections.abc import Sequence

from fingerprint.decision.distributions import binomial_tail
from fingerprint.decision.null import MINIMUM_FITTED
from fingerprint.decision.reach import authors_of, fitted_level, more_authors
from fingerprint.frozen import dataclass
from fingerprint.record import FamilyMatch, Manifest, lineage_part

USUAL = 0.05  # share of independent models that may match, by chance, an honest record
LEVEL = 0.05  # probability that an honest record of that share is refused
WORKING = 0.5  # agreement with the owner on clean images below which a copy is broken


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


def midway(classes: int) -> float:
    """The match rate half-way between chance and everything."""
    return (1.0 + 1.0 / classes) / 2.0


def transfer(answers: Sequence[dict[str, FamilyMatch]], line: float) -> Transfer:
    """How the probes transfer to independent models, by what each answered; from `line` on a model matches."""
    return Transfer(tuple(match_rate(a) for a in answers), line)


def recorded_transfer(manifest: Manifest) -> Transfer:
    """The same from what the record itself holds: its references, made ones and screening nets included.

    A model matches if it does as the weakest of the owner's compressed copies that still works. Screening nets saw the
    candidates before selection, so their match is an under-estimate.
    """
    part = lineage_part(manifest)
    copies = [
        match_rate(_of(part, c.families)) for c in manifest.copies if c.agreement is None or c.agreement >= WORKING
    ]
    everybody = [r.families for r in manifest.references] + [s.families for s in manifest.screens]
    answers = [_of(part, families) for families in everybody]
    return transfer(answers, max(midway(manifest.outputs), min(copies, default=1.0)))


def _of(part: Manifest, families: dict[str, FamilyMatch]) -> dict[str, FamilyMatch]:
    return {f.name: families[f.name] for f in part.families if f.name in families}


def hopeless(manifest: Manifest, alpha: float = LEVEL) -> bool:
    """Whether the references match so much that no suspect could stand out at `alpha`, however many more there were.

    False where there are too few of them to say that.
    """
    manifest = lineage_part(manifest)
    references = manifest.references
    if len(references) < MINIMUM_FITTED or authors_of(references) < 2:
        return False
    level = fitted_level(manifest, references)
    return level is not None and level > alpha and more_authors(manifest, alpha) is None


def accusations(accused: int, models: int, alpha: float) -> float:
    """Probability that a record which errs with probability `alpha` per model accuses so many or more of them."""
    return binomial_tail(accused, models, alpha)
