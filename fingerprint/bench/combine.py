"""One score from several families, calibrated on reference models alone.

Per family, the evidence that a suspect is related is a likelihood ratio. Unrelated: its label at a probe is drawn as
the references draw theirs. Related: with some probability it gives the owner's label, else as above. The probability is
chosen to fit best (a generalised likelihood ratio of a mixture), and the signed root of twice its logarithm is what a
normal deviate would be if probes were independent. So a match where no reference matches counts for much, and one where
most do for almost nothing.

Probes are not independent and some models are more alike than others. The references' own evidence, each computed
without its author, gives the mean and spread that turn it into a z-value (the zero normalisation of speaker
verification: Auckenthaler, Carey, Lloyd-Thomas: Digital Signal Processing 2000).

From that is taken what the suspect has in common with each reference, in the same measure (the test normalisation of
that paper): a suspect that is merely less accurate, smoother or more decided agrees with everybody less or more.

Families are combined as `Verdict.score` does (`beyond_highest`), or as a Bayes factor. There a derivative inherits
from each family or does not (with even odds); if it does, it gives the owner's label with a probability of at least a
quarter, beyond chance. So what counts is not how unusual a match is but whether it is what a derivative would show: a
stranger that stands out a little where derivatives stand out far is no candidate, and a blind family costs log 2 at
most, however sure another one is. No reference is judged, and no model that is judged calibrates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from fingerprint.bench.panel import Index, Panel
from fingerprint.decision.relations import INHERITED
from fingerprint.frozen import dataclass

Values = NDArray[np.float64]
PRIOR = 0.5  # pseudo-count of every class at every probe
SHARES = np.concatenate([np.linspace(0.01, 0.99, 50), [0.999]])  # probabilities of the owner's label that are tried
INHERITS = 0.5  # prior probability that a derivative inherits from a family
_MISS = np.log1p(-SHARES)  # what a probe without a match says


@dataclass(frozen=True)
class Cohort:
    """Who calibrates: rows of a panel, and of every row its author and its cluster.

    A cluster holds models that are nearly the same, such as one stranger's compressed copies: all of it counts as one
    model.
    """

    references: Index
    authors: NDArray[np.str_]
    clusters: NDArray[np.str_]

    def without(self, author: str) -> Index:
        """The references that are not this author's."""
        return np.asarray(self.references[self.authors[self.references] != author])

    def weights(self, rows: Index) -> Values:
        """What each of these models counts, (R,): one over the size of its cluster among them."""
        _, inverse, sizes = np.unique(self.clusters[rows], return_inverse=True, return_counts=True)
        return np.asarray(1.0 / sizes[inverse])


def frequencies(labels: NDArray[np.int64], weights: Values, classes: int) -> Values:
    """How often references give each class at each probe, (N, K), smoothed, from labels (R, N) and weights (R,)."""
    counts = np.stack([weights @ (labels == k) for k in range(classes)], axis=1)
    return np.asarray((counts + PRIOR) / (weights.sum() + PRIOR * classes))


class Chance:
    """How probable the owner's label is at each probe for an unrelated model, (..., N)."""

    def __init__(self, chance: Values) -> None:
        self._gain = np.log(SHARES[:, None] / chance[..., None, :] + (1.0 - SHARES[:, None])) - _MISS[:, None]
        self._worth = 1.0 / chance
        self._spread = np.sqrt((self._worth - 1.0).sum(axis=-1))

    def signed_root(self, matches: NDArray[np.bool_] | Values) -> Values:
        """Signed root of twice the log likelihood ratio, (...,), of matches (..., N), or of their expectation.

        Where fewer match than by chance, no mixture fits better than chance alone: then the score test's deviate
        (below zero), so that models which match less than strangers are told apart too.
        """
        given = matches.astype(np.float64)
        ratio = ((self._gain @ given[..., None])[..., 0] + matches.shape[-1] * _MISS).max(axis=-1)
        deviate = ((self._worth * given).sum(axis=-1) - matches.shape[-1]) / self._spread
        return np.asarray(np.where(ratio > 0.0, np.sqrt(2.0 * np.maximum(ratio, 0.0)), np.minimum(deviate, 0.0)))


def mixture(panel: Panel, cohort: Cohort) -> Values:
    """Evidence of every model by the mixture, (M,)."""
    return _per_author(panel, cohort, _mixture)


def normalised_mixture(panel: Panel, cohort: Cohort) -> Values:
    """The mixture's evidence for the owner, less the mean of that for each reference as if it were the owner.

    The test normalisation of the same paper: a suspect that resembles everybody gets no credit for it.
    """
    return _per_author(panel, cohort, _normalised)


def surprise(panel: Panel, cohort: Cohort) -> Values:
    """Share of matching probes, each weighted by minus the log of its frequency among references, (M,).

    In units of the largest standard error that a share of so many independent probes can have.
    """
    return _per_author(panel, cohort, _surprise)


Evidence = Callable[[Panel, Cohort], Values]


class Given:
    """What references answer: labels (R, N), weights (R,), and the frequency of each class at each probe (N, K)."""

    def __init__(self, labels: NDArray[np.int64], weights: Values, classes: int) -> None:
        self.labels, self.weights = labels, weights
        self.frequency = frequencies(labels, weights, classes)

    def chance(self, labels: NDArray[np.int64]) -> Values:
        """How often references give these labels (..., N)."""
        return np.asarray(self.frequency[np.arange(labels.shape[-1]), labels])


_OfModels = Callable[[Panel, NDArray[np.int64], Given], Values]


def _per_author(panel: Panel, cohort: Cohort, of_models: _OfModels) -> Values:
    """Evidence (M,): a reference's from those of other authors, every other model's from all references.

    Of a suspect nobody knows the author, so the owner's own models get no other references than strangers do.
    """
    found = np.zeros(len(panel.labels))
    classes = _classes(panel)
    referring = set(cohort.references.tolist())
    groups: dict[str | None, list[int]] = {}
    for row, author in enumerate(cohort.authors.tolist()):
        groups.setdefault(author if row in referring else None, []).append(row)
    for author, rows in groups.items():
        others = cohort.references if author is None else cohort.without(author)
        given = Given(panel.labels[others], cohort.weights(others), classes)
        found[rows] = of_models(panel, panel.labels[rows], given)
    return found


def _classes(panel: Panel) -> int:
    return int(max(panel.labels.max() + 1, panel.targets.max() + 1, panel.responses.shape[1]))


def _mixture(panel: Panel, labels: NDArray[np.int64], given: Given) -> Values:
    return Chance(given.chance(panel.targets)).signed_root(labels == panel.targets)


def _normalised(panel: Panel, labels: NDArray[np.int64], given: Given) -> Values:
    if not len(given.labels):  # all references are one author's, and these models are his
        return _mixture(panel, labels, given)
    chance = Chance(given.chance(given.labels))
    alike = [np.average(chance.signed_root(given.labels == one), weights=given.weights) for one in labels]
    return np.asarray(_mixture(panel, labels, given) - alike)


def _surprise(panel: Panel, labels: NDArray[np.int64], given: Given) -> Values:
    weights = -np.log(given.chance(panel.targets))
    share = ((labels == panel.targets) * weights).sum(axis=1) / max(float(weights.sum()), 1e-9)
    return np.asarray(2.0 * np.sqrt(len(weights)) * share)


@dataclass(frozen=True)
class Null:
    """Mean and spread of the references' evidence; the spread counts as 1, that of chance, at least."""

    middle: float
    spread: float

    @classmethod
    def of(cls, values: Values, cohort: Cohort) -> Null:
        """From the evidence of all models (M,). The spread is that of one more model, with its mean unknown."""
        known, weights = values[cohort.references], cohort.weights(cohort.references)
        middle = float(np.average(known, weights=weights))
        count = float(weights.sum())
        if count <= 1.0:
            return cls(middle, 1.0)
        spread = float(np.sqrt(weights @ np.square(known - middle) / (count - 1.0) * (1.0 + 1.0 / count)))
        return cls(middle, max(spread, 1.0))

    def z(self, values: Values) -> Values:
        """z-values."""
        return np.asarray((values - self.middle) / self.spread)


def combined(panels: Sequence[Panel], cohort: Cohort) -> Values:
    """One score per model (M,), higher = more related: sum over families of the log Bayes factor of inheritance."""
    return np.asarray(np.sum([inheritance(panel, cohort) for panel in panels], axis=0))


def inheritance(panel: Panel, cohort: Cohort) -> Values:
    """Log Bayes factor (M,) of one family: for a derivative, which inherits from it or not, against a stranger.

    Monotone in the normalised evidence, never below log(1 - INHERITS).
    """
    own, values = mixture(panel, cohort), normalised_mixture(panel, cohort)
    null, plain = Null.of(values, cohort), Null.of(own, cohort)
    given = Given(panel.labels[cohort.references], cohort.weights(cohort.references), _classes(panel))
    chance = given.chance(panel.targets)
    expected = Chance(chance).signed_root(INHERITED[:, None] + (1.0 - INHERITED[:, None]) * chance)
    shift = np.maximum((expected - plain.middle) / null.spread, 0.0)
    exponents = null.z(values)[:, None] * shift - np.square(shift) / 2.0
    ratio = np.logaddexp.reduce(exponents, axis=1) - np.log(len(shift))
    return np.asarray(np.logaddexp(np.log(1.0 - INHERITS), np.log(INHERITS) + ratio))


def mean_of_rates(panels: Sequence[Panel], cohort: Cohort) -> Values:
    """Mean of the families' match rates, (M,)."""
    return np.asarray(np.mean([panel.matches.mean(axis=1) for panel in panels], axis=0))


def beyond_highest(panels: Sequence[Panel], cohort: Cohort) -> Values:
    """As `Verdict.score` ranks with these references, up to what is the same for all models, (M,).

    The last family's match rate, and what each before it matches beyond the highest reference, as a share of what is
    left.
    """
    rates = [panel.matches.mean(axis=1) for panel in panels]
    score = rates[-1].copy()
    for rate in rates[:-1]:
        highest = float(rate[cohort.references].max(initial=0.0))
        score += np.maximum(rate - highest, 0.0) / max(1.0 - highest, 1e-9)
    return np.asarray(score)


def root_of_squares(panels: Sequence[Panel], cohort: Cohort, evidence: Evidence = mixture) -> Values:
    """Root of the sum of squares of the families' positive z-values (M,); where none is positive, the largest.

    The generalised likelihood ratio of a shift upwards, however small, in any family.
    """
    found = []
    for panel in panels:
        values = evidence(panel, cohort)
        found.append(Null.of(values, cohort).z(values))
    stacked = np.stack(found)
    up = np.sqrt(np.square(np.maximum(stacked, 0.0)).sum(axis=0))
    return np.asarray(np.where(up > 0, up, stacked.max(axis=0)))
