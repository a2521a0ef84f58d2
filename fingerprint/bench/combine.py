"""One score from several families, calibrated on reference models alone.

Per family, the evidence for relatedness is the share of probes to which a suspect gives the owner's label, each probe
weighted by how rarely references give that label (its surprise), less what the suspect has in common with each
reference in the same sense. That second term is the test normalisation of speaker verification (Auckenthaler, Carey,
Lloyd-Thomas: Digital Signal Processing 2000): a suspect that is merely inaccurate, or a student of somebody else,
agrees with everybody alike. The references' own evidence, each computed without its author, then gives mean and
spread (the zero normalisation of the same paper).

Families are combined by the generalised likelihood ratio of a shift upwards in any of them: the root of the sum of the
squares of the positive z-values. So a strong family's certainty is never averaged away. No reference is judged, and no
model that is judged calibrates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fingerprint.bench.panel import Index, Panel

Values = NDArray[np.float64]
PRIOR = 0.5  # pseudo-count of every class at every probe


@dataclass(frozen=True)
class Cohort:
    """Who calibrates: rows of a panel, and the author of every row."""

    references: Index
    authors: NDArray[np.str_]

    def without(self, author: str) -> Index:
        """The references that are not this author's."""
        return np.asarray(self.references[self.authors[self.references] != author])


def surprises(labels: NDArray[np.int64], classes: int) -> Values:
    """Minus the log of how often references give each class at each probe, (N, K), from their labels (R, N)."""
    counts = np.stack([(labels == k).sum(axis=0) for k in range(classes)], axis=1)
    share = (counts + PRIOR) / (len(labels) + PRIOR * classes)
    return np.asarray(-np.log(share))


def common(first: NDArray[np.int64], second: NDArray[np.int64], weights: Values) -> float:
    """Weighted share of probes (N,) with equal labels; `weights` (N, K) belong to the second model's labels."""
    own = weights[np.arange(len(second)), second]
    return float((own * (first == second)).sum() / max(own.sum(), 1e-9))


def evidence(panel: Panel, cohort: Cohort, *, tested: bool = True) -> Values:
    """Evidence of every model of the panel, (M,): surprise-weighted match, less (if `tested`) that with references."""
    classes = max(int(panel.labels.max()), int(panel.targets.max()), panel.responses.shape[1] - 1) + 1
    cache: dict[str, Values] = {}
    return np.array([_evidence(panel, cohort, model, classes, cache, tested) for model in range(len(panel.labels))])


def _evidence(panel: Panel, cohort: Cohort, model: int, classes: int, cache: dict[str, Values], tested: bool) -> float:
    author = str(cohort.authors[model])
    others = cohort.without(author)
    if author not in cache:
        cache[author] = surprises(panel.labels[others], classes)
    weights, labels = cache[author], panel.labels[model]
    own = common(labels, panel.targets, weights)
    if not tested or not len(others):
        return own
    given = panel.labels[others]  # (R, N)
    rare = weights[np.arange(given.shape[1])[None], given]
    shared = (rare * (given == labels)).sum(axis=1) / np.maximum(rare.sum(axis=1), 1e-9)
    return float(own - shared.mean())


def standardise(values: Values, cohort: Cohort, probes: int) -> Values:
    """z-values of all models (M,) against the references. The spread includes that of sampling `probes` probes."""
    known = values[cohort.references]
    middle = float(known.mean())
    share = min(max(middle, 1.0 / (probes + 2)), 1.0 - 1.0 / (probes + 2))
    spread = float(known.var(ddof=1)) if len(known) > 1 else 0.0
    return np.asarray((values - middle) / np.sqrt(spread + share * (1.0 - share) / probes))


def combined(panels: Sequence[Panel], cohort: Cohort, *, tested: bool = True) -> Values:
    """One score per model (M,), higher = more related: root of the sum of squares of positive z-values.

    Below zero everywhere, it is the largest z-value, so that no two unrelated models are tied.
    """
    found = np.stack([standardise(evidence(p, cohort, tested=tested), cohort, len(p.targets)) for p in panels])
    up = np.sqrt(np.square(np.maximum(found, 0.0)).sum(axis=0))
    return np.asarray(np.where(up > 0, up, found.max(axis=0)))
