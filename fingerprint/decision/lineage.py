"""Lineage, first version: does the suspect agree with the owner more than unrelated models do?

Every (family, statistic) pair is one test with a fixed share of alpha (weighted Bonferroni: valid under any
dependence). A test on label matches has two errors: between models (an unrelated model that would match more than the
bound, see `null`), and within the fingerprint (matching more among the probes drawn than among all of them). Where all
probes are answered the second is zero, and the whole share bounds the first; else each gets half. `derived` needs more
than a rejection: a suspect that stands out from the references, yet lies nearer to them than to the owner's copies, is
`inconclusive` (`LineageTest.least`). docs/statistics.md derives this.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from fingerprint.decision.distributions import binomial_tail, hypergeometric_tail
from fingerprint.decision.null import MINIMUM_FITTED, ConformalNull, MatchNull, NormalNull, Null
from fingerprint.decision.reach import from_files, reach, without_made
from fingerprint.decision.statistics import fisher_z
from fingerprint.decision.verdict import NOTHING, CalibrationKind, CalibrationUsed, FamilyResult, Verdict
from fingerprint.frozen import dataclass
from fingerprint.record import Copy, Family, FamilyMatch, Manifest, lineage_part

LABEL_SHARE = 0.8  # of a family's alpha, where soft outputs can be used too
SOFT_SHARE = 0.2  # the rest
POWER_NEEDED = 0.95  # against every listed transformation, before `unrelated` is said
WORKING = 0.5  # agreement with the owner on clean images below which a copy is broken, not a derivative to find
Asked = Literal["auto", "conformal", "fitted", "declared"]
NEARER = 0.75  # of the way from the references to the owner's copies that a derivative must at least have come


@dataclass(frozen=True)
class Settings:
    """How to decide. alpha bounds the total error of `derived`."""

    alpha: float = 0.01
    calibration: Asked = "auto"
    label_only: bool = False


@dataclass(frozen=True)
class Test:
    """One (family, statistic) pair: its share of alpha and what it found."""

    family: str
    statistic: Literal["label-match", "log-output-correlation"]
    share: float
    p_between: float | None
    p_total: float
    rejects: bool
    bound: float | None  # on the match rate, or on the correlation


def choose_calibration(manifest: Manifest, settings: Settings) -> tuple[CalibrationKind | None, str]:
    """The kind of calibration that the record allows, or None and why."""
    n, asked = len(manifest.references), settings.calibration
    if asked == "declared":
        undeclared = "The owner declared no bound: leave --calibration declared away, or see create --declare-bound."
        return ("declared", "") if manifest.declared_bound is not None else (None, undeclared)
    ranked = n if asked == "conformal" else len(from_files(manifest.references))
    floor = 1.0 / (ranked + 1)
    if asked == "conformal" or (asked == "auto" and ranked and floor <= settings.alpha / 2 * _smallest_share(manifest)):
        return ("conformal", "") if n else (None, "The record has no references.")
    if n >= MINIMUM_FITTED:
        return "fitted", ""
    more = f"{MINIMUM_FITTED - n} more reference models" if n else f"At least {MINIMUM_FITTED} reference models"
    hint = (
        "; --calibration declared would use the bound that the owner declared"
        if manifest.declared_bound is not None
        else ""
    )
    return None, f"{more} are needed to calibrate (fingerprint calibrate){hint}."


def _smallest_share(manifest: Manifest) -> float:
    return min(family.weight for family in manifest.families)


class LineageTest:
    """Tests suspects against one record. Built once per (record, settings); the nulls are fitted here."""

    def __init__(self, manifest: Manifest, settings: Settings) -> None:
        self.manifest = manifest = lineage_part(manifest)
        self.settings = settings
        self.kind, self.why_not = choose_calibration(manifest, settings)
        if self.kind == "conformal" and settings.calibration == "auto":
            self.manifest = manifest = without_made(manifest)
        self._label: dict[str, Null] = {}
        self._soft: dict[str, Null] = {}
        self._fewest: dict[tuple[str, int, float], int | None] = {}  # see `_needed`
        if self.kind in ("conformal", "fitted"):
            for family in manifest.families:
                self._fit(family)

    def _fit(self, family: Family) -> None:
        name, count = family.name, family.count
        references = self.manifest.references
        authors = [r.author for r in references]
        matches = [r.families[name].matches for r in references]
        correlations = [r.families[name].correlation for r in references]
        z = [fisher_z(c) for c in correlations if c is not None]
        conformal = self.kind == "conformal"
        self._label[name] = (
            ConformalNull(tuple(float(m) for m in matches)) if conformal else MatchNull(matches, count, authors)
        )
        if len(z) < len(references):
            return
        soft: Null = ConformalNull(tuple(z)) if conformal else NormalNull(z, authors)
        # A soft test that no value could pass would only take its share from the label test.
        needed = soft.threshold(self.settings.alpha * family.weight * SOFT_SHARE)
        if needed is not None and (conformal or needed <= fisher_z(1.0)):
            self._soft[name] = soft

    def decide(self, measured: dict[str, FamilyMatch], queries: int, *, same_labels: bool = True) -> Verdict:
        """The verdict on one suspect.

        Args:
            measured: what it answered, by family; families that were not asked are absent.
            queries: every input that was sent to it.
            same_labels: whether its label space is the owner's; if not, a mismatch says nothing.
        """
        names = {family.name for family in self.manifest.families}
        measured = {name: found for name, found in measured.items() if name in names}
        tests = [
            t
            for family in self.manifest.families
            if family.name in measured
            for t in self._tests(family.name, measured)
        ]
        matches = sum(m.matches for m in measured.values())
        asked = sum(m.queries for m in measured.values())
        rate = matches / asked if asked else 0.0
        best = min(tests, key=lambda t: t.p_total, default=None)
        derived = any(t.rejects for t in tests)
        power = self._power(measured)
        lineage, reason = ("derived", "") if derived else self._not_derived(measured, best, power, same_labels)
        deciding = next((t for t in tests if t.rejects), best)
        return Verdict(
            lineage=lineage,  # type: ignore[arg-type]
            error=self._error(tests),
            p_value=deciding.p_between if deciding else None,
            score=self._score(measured),
            match_rate=rate,
            queries=queries,
            decided_by=f"{deciding.statistic} on {deciding.family} probes" if deciding else NOTHING,
            calibration=self._calibration(tests),
            total_p=best.p_total if best else None,
            power=power,
            families=tuple(self._family_result(name, m, tests) for name, m in measured.items()),
            reason=reason,
        )

    def recognised(self) -> Verdict:
        """The verdict on a file that is byte for byte the released model: no query is needed."""
        whole = {f.name: FamilyMatch(matches=f.count, queries=f.count) for f in self.manifest.families}
        return Verdict(
            lineage="derived",
            integrity="intact",
            error=0.0,
            p_value=None,
            score=self._score(whole),
            match_rate=1.0,
            queries=0,
            decided_by="digest",
            calibration=None,
            total_p=0.0,
        )

    def _tests(self, name: str, measured: dict[str, FamilyMatch]) -> list[Test]:
        if self.kind is None:
            return []
        family = next(f for f in self.manifest.families if f.name == name)
        found = measured[name]
        soft = self._soft_value(family, found)
        tests = [self._label_test(name, family.count, found, self._label_share(family, found))]
        if soft is not None:
            tests.append(self._soft_test(name, soft, family.weight * SOFT_SHARE))
        return tests

    def _soft_value(self, family: Family, found: FamilyMatch) -> float | None:
        """The correlation to test, or None where only labels count."""
        whole = found.queries == family.count
        return found.correlation if whole and not self.settings.label_only and family.name in self._soft else None

    def _label_share(self, family: Family, found: FamilyMatch) -> float:
        return family.weight * (1.0 if self._soft_value(family, found) is None else LABEL_SHARE)

    def _label_test(self, name: str, count: int, found: FamilyMatch, share: float) -> Test:
        alpha = self.settings.alpha * share
        if self.kind == "declared":
            bound = self.manifest.declared_bound or 0.0
            p = binomial_tail(found.matches, found.queries, bound)
            # All of the share is spent within the fingerprint, none between models.
            rejects = p <= alpha and self._near(name, found)
            return Test(name, "label-match", share, None, min(1.0, p / share), rejects, bound)
        null = self._label[name]
        level = _total_p(null, count, found)
        whole = found.queries == count
        threshold = null.threshold(alpha if whole else alpha / 2)
        return Test(
            family=name,
            statistic="label-match",
            share=share,
            p_between=null.tail(found.matches * count / found.queries if not whole else found.matches),
            p_total=min(1.0, level / share),
            rejects=level <= alpha and self._near(name, found),
            bound=None if threshold is None else (math.ceil(threshold) - 1) / count,
        )

    def _soft_test(self, name: str, value: float, share: float) -> Test:
        null = self._soft[name]
        alpha = self.settings.alpha * share
        p = null.tail(fisher_z(value))
        threshold = null.threshold(alpha)
        bound = None if threshold is None else math.tanh(threshold)
        rejects = p <= alpha and value >= self._least_correlation(name)
        return Test(name, "log-output-correlation", share, p, min(1.0, p / share), rejects, bound)

    def least(self, name: str) -> float:
        """Match rate below which a suspect is nearer to the references than to the owner's copies: never `derived`.

        `NEARER` of the way from the highest reference (or the declared bound) to the middle one of the listed copies
        that work. Whatever a few references say of the tail, a model that gives the owner's label on two thirds of the
        probes, where copies give it on all, is a stranger of a kind that the references lack (one of the owner's own
        recipe and images, say) before it is a derivative.
        """
        family = next(f for f in self.manifest.families if f.name == name)
        usual = [r.families[name].matches / family.count for r in self.manifest.references if name in r.families]
        if self.kind == "declared":
            usual = [self.manifest.declared_bound or 0.0]
        copies = [c.families[name].matches / family.count for c in self._working_copies() if name in c.families]
        return _between(max(usual, default=0.0), copies, NEARER)

    def _near(self, name: str, found: FamilyMatch) -> bool:
        return found.queries > 0 and found.matches >= self.least(name) * found.queries

    def _least_correlation(self, name: str) -> float:
        """The same for soft outputs, on correlations: half-way, for their scale is crowded near 1, where copies are."""
        usual = [r.families[name].correlation for r in self.manifest.references if name in r.families]
        copies = [c.families[name].correlation for c in self._working_copies() if name in c.families]
        if all(c is None for c in copies):  # not measured: the highest reference is all there is to go by
            return max((c for c in usual if c is not None), default=0.0)
        highest = max((c for c in usual if c is not None), default=0.0)
        return _between(highest, [c for c in copies if c is not None], 0.5)

    def _error(self, tests: Sequence[Test]) -> float:
        """gamma + alpha_w as used, over all tests made."""
        return self.settings.alpha * sum(t.share for t in tests) if tests else self.settings.alpha

    def _power(self, measured: dict[str, FamilyMatch]) -> float | None:
        """The lowest chance, over the listed transformations, that such a copy would be found at these settings."""
        if self.kind is None or not self._working_copies():
            return None
        return min(self._power_against(copy.families, measured) for copy in self._working_copies())

    def _working_copies(self) -> list[Copy]:
        """Listed copies that are still the owner's function: those that answer clean images as it does (>= half)."""
        return [c for c in self.manifest.copies if c.agreement is None or c.agreement >= WORKING]

    def _power_against(self, copy: dict[str, FamilyMatch], measured: dict[str, FamilyMatch]) -> float:
        best = 0.0
        for family in self.manifest.families:
            if family.name not in measured or family.name not in copy:
                continue
            found = measured[family.name]
            total, asked = copy[family.name].matches, found.queries
            needed = self._needed(family.name, family.count, asked, self._label_share(family, found))
            if needed is not None:
                best = max(best, hypergeometric_tail(needed, family.count, total, asked))
        return best

    def _needed(self, name: str, count: int, asked: int, share: float) -> int | None:
        """Fewest matches among `asked` probes that the label test accepts as derived."""
        key = (name, asked, share)
        if key not in self._fewest:
            each = (FamilyMatch(matches=k, queries=asked) for k in range(asked + 1))
            accepted = (m.matches for m in each if self._label_test(name, count, m, share).rejects)
            self._fewest[key] = next(accepted, None)
        return self._fewest[key]

    def _not_derived(
        self, measured: dict[str, FamilyMatch], best: Test | None, power: float | None, same_labels: bool
    ) -> tuple[str, str]:
        if self.kind is None or best is None:
            return "inconclusive", self.why_not
        if not same_labels:
            return "inconclusive", "Its label space is not the owner's, so a mismatch says nothing."
        if self._label and all(null.threshold(self.settings.alpha * f.weight) is None for f, null in self._nulls()):
            ranked = self.settings.calibration == "conformal"
            return "inconclusive", reach(self.manifest, self.settings.alpha, ranked_only=ranked).sentence
        if power is None or power < POWER_NEEDED:
            known = "not measured" if power is None else f"{power:.2f}"
            asked, count = (sum(m.queries for m in measured.values()), sum(f.count for f in self.manifest.families))
            early = f"It was not clear after {asked} of {count} probes. " if asked < count else ""
            return (
                "inconclusive",
                f"{early}The power against the listed transformations is {known}; 'unrelated' needs {POWER_NEEDED}.",
            )
        if best.p_total <= self.settings.alpha or not self._below_copies(measured):
            return (
                "inconclusive",
                "It agrees more than unrelated models usually do, and less than the owner's transformed copies.",
            )
        return "unrelated", ""

    def _nulls(self) -> list[tuple[Family, Null]]:
        return [(f, self._label[f.name]) for f in self.manifest.families if f.name in self._label]

    def _below_copies(self, measured: dict[str, FamilyMatch]) -> bool:
        """Whether some family's match is lower than a listed copy would give, at level alpha."""
        for family in self.manifest.families:
            found = measured.get(family.name)
            rates = [c.families[family.name].matches for c in self._working_copies() if family.name in c.families]
            if found is None or not rates:
                continue
            at_most = 1.0 - hypergeometric_tail(found.matches + 1, family.count, min(rates), found.queries)
            if at_most <= self.settings.alpha:
                return True
        return False

    def _score(self, measured: dict[str, FamilyMatch]) -> float:
        """How related, to rank suspects of one record: what the last family matches beyond what unrelated models do
        (the references' mean, else chance), and what each family before it matches beyond the highest of them, as a
        share of what is left; weighted as alpha is.

        A family made to be inherited whole says a lot where it is, and where few of its probes match only whose recipe
        a model resembles: that does not stand between a student and what it inherits of the last.
        """
        score = 0.0
        for family in self.manifest.families:
            found = measured.get(family.name)
            if found is None or not found.queries:
                continue
            rates = [r.families[family.name].matches / family.count for r in self.manifest.references]
            rates, rate = rates or [1.0 / self.manifest.outputs], found.matches / found.queries
            whole = family.name == self.manifest.families[-1].name
            beyond = max(0.0, rate - max(rates)) / max(1.0 - max(rates), 1e-9)
            score += family.weight * (rate - sum(rates) / len(rates) if whole else beyond)
        return score

    def _calibration(self, tests: Sequence[Test]) -> CalibrationUsed | None:
        if self.kind is None:
            return None
        stated = [r.author for r in self.manifest.references if r.author is not None]
        references = self.manifest.references if self.kind != "declared" else ()
        label = next((t for t in tests if t.statistic == "label-match"), None)
        confidence = next(iter(self._label.values())).confidence if self._label else None
        return CalibrationUsed(
            kind=self.kind,
            n=len(references),
            authors=len(set(stated)) if references else 0,
            unstated=len(references) - len(stated) if references else 0,
            confidence=confidence,
            bound=label.bound if label else None,
            nearer=NEARER,
        )

    def _family_result(self, name: str, found: FamilyMatch, tests: Sequence[Test]) -> FamilyResult:
        label = next((t for t in tests if t.family == name and t.statistic == "label-match"), None)
        return FamilyResult(
            name=name,
            matches=found.matches,
            queries=found.queries,
            match_rate=found.matches / found.queries if found.queries else 0.0,
            correlation=found.correlation,
            p_value=label.p_between if label else None,
            bound=label.bound if label else None,
        )


def _between(highest: float, copies: Sequence[float], share: float) -> float:
    """So much of the way from the highest stranger to the middle copy (1 if none is listed); never below the first."""
    middle = sorted(copies)[len(copies) // 2] if copies else 1.0
    return max(highest, highest + share * (middle - highest))


def _total_p(null: Null, count: int, found: FamilyMatch) -> float:
    """Smallest level a at which the test rejects: a valid p-value.

    With all probes answered: the tail itself. Else gamma = a/2 and alpha_w = a/2: the unrelated model has at most
    S(a) = threshold(a/2) - 1 matches among all probes, except with probability a/2; then the observed count has the
    hypergeometric tail. Rejection is monotone in a.
    """
    if found.queries == count:
        return null.tail(found.matches)
    low, high = 0.0, 1.0
    if not _rejects(null, count, found, high):
        return 1.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if _rejects(null, count, found, middle) else (middle, high)
    return high


def _rejects(null: Null, count: int, found: FamilyMatch, level: float) -> bool:
    threshold = null.threshold(level / 2)
    if threshold is None:
        return False
    most = min(count, math.ceil(threshold) - 1)
    return hypergeometric_tail(found.matches, count, most, found.queries) <= level / 2
