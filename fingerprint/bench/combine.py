"""One score from several families, calibrated on reference models alone.

Per family, the evidence that a suspect is related is a likelihood ratio. Unrelated: its label at a probe is drawn as
the references draw theirs. Related: with some probability it gives the owner's label, else as above. The probability is
chosen to fit best (a generalised likelihood ratio of a mixture), and the signed root of twice its logarithm is what a
normal deviate would be if probes were independent. So a match where no reference matches counts for much, and one where
most do for almost nothing.

Probes are not independent and some models are more alike than others. The references' own evidence, each computed
without its author, gives the mean and spread that turn it into a z-value (the zero normalisation of speaker
verification: Auckenthaler, Carey, Lloyd-Thomas: Digital Signal Processing 2000).

Families are combined by the generalised likelihood ratio of a shift upwards in any of them: the root of the sum of the
squares of the positive z-values. So a strong family's certainty is never averaged away. No reference is judged, and no
model that is judged calibrates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fingerprint.bench.panel import Index, Panel

Values = NDArray[np.float64]
PRIOR = 0.5  # pseudo-count of every class at every probe
SHARES = np.concatenate([np.linspace(0.01, 0.99, 50), [0.999]])  # probabilities of the owner's label that are tried
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

    def signed_root(self, matches: NDArray[np.bool_]) -> Values:
        """Signed root of twice the log likelihood ratio, (...,), of matches (..., N).

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
    """Evidence (M,), each model's computed from the references of other authors."""
    found = np.zeros(len(panel.labels))
    classes = max(int(panel.labels.max()), int(panel.targets.max()), panel.responses.shape[1] - 1) + 1
    referring = set(cohort.authors[cohort.references].tolist())
    groups: dict[str, list[int]] = {}
    for row, author in enumerate(cohort.authors.tolist()):
        groups.setdefault(author if author in referring else "", []).append(row)
    for author, rows in groups.items():
        others = cohort.without(author)
        given = Given(panel.labels[others], cohort.weights(others), classes)
        found[rows] = of_models(panel, panel.labels[rows], given)
    return found


def _mixture(panel: Panel, labels: NDArray[np.int64], given: Given) -> Values:
    return Chance(given.chance(panel.targets)).signed_root(labels == panel.targets)


def _normalised(panel: Panel, labels: NDArray[np.int64], given: Given) -> Values:
    chance = Chance(given.chance(given.labels))
    alike = [np.average(chance.signed_root(given.labels == one), weights=given.weights) for one in labels]
    return np.asarray(_mixture(panel, labels, given) - alike)


def _surprise(panel: Panel, labels: NDArray[np.int64], given: Given) -> Values:
    weights = -np.log(given.chance(panel.targets))
    share = ((labels == panel.targets) * weights).sum(axis=1) / max(float(weights.sum()), 1e-9)
    return np.asarray(2.0 * np.sqrt(len(weights)) * share)


def standardise(values: Values, cohort: Cohort) -> Values:
    """z-values of all models (M,) against the references; their spread counts as 1, that of chance, at least."""
    known, weights = values[cohort.references], cohort.weights(cohort.references)
    middle = float(np.average(known, weights=weights))
    freedom = weights.sum() - 1.0
    spread = float(np.sqrt(weights @ np.square(known - middle) / freedom)) if freedom > 0 else 0.0
    return np.asarray((values - middle) / max(spread, 1.0))


def combined(panels: Sequence[Panel], cohort: Cohort, evidence: Evidence = mixture) -> Values:
    """One score per model (M,), higher = more related: root of the sum of squares of positive z-values.

    Where none is positive it is the largest z-value.
    """
    found = np.stack([standardise(evidence(panel, cohort), cohort) for panel in panels])
    up = np.sqrt(np.square(np.maximum(found, 0.0)).sum(axis=0))
    return np.asarray(np.where(up > 0, up, found.max(axis=0)))
