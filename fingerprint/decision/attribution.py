"""Attribution: how was a derived suspect probably made from the owner's model?

Learned from the owner's own copies (`integrity.Trials`): a few numbers that say *how* a model's answers differ from the
owner's, and a linear discriminant on them with a shrunken common covariance (Ledoit and Wolf's form, fixed share). Its
probabilities are made honest by a temperature fitted on held-out folds of the copies (Guo et al., ICML 2017).
It may say that it does not know: where no kind is likely enough, or where the suspect is unlike all copies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fingerprint.decision.allow import KINDS, Kind, is_compression, kind_of
from fingerprint.decision.integrity import Answers, Deviation, Statistic, Trials
from fingerprint.model import Labels

Matrix = NDArray[np.float64]
SHRINKAGE = 0.1  # share of the diagonal in the common covariance
FAR = 100.0  # relative deviation beyond which more says nothing
LIKELY = 0.5  # probability below which nothing is named
FEWEST = 3  # copies of a kind below which it can't be named
FOLDS = 5
TEMPERATURES = np.geomspace(0.3, 30.0, 25)
BEYOND = 1.5  # times the farthest copy's distance from its kind, beyond which a suspect is unlike all copies


@dataclass(frozen=True)
class Attribution:
    """The likely transformation.

    kind: None = don't know. probabilities: of the kinds that the record knows, adding up to one. accuracy: share of the
    record's own held-out copies that were named rightly. reason: why nothing is named.
    """

    kind: Kind | None
    probabilities: Mapping[str, float] = field(default_factory=dict)
    accuracy: float = 0.0
    reason: str = ""


class Attributor:
    """Learns from the trials of a record, on the probes that the suspect was asked.

    Args:
        trials: on all probes asked.
        integrity: (N,) which of them are integrity probes.
        soft: use log margins, too.
    """

    def __init__(self, trials: Trials, integrity: NDArray[np.bool_], *, soft: bool) -> None:
        self._trials, self._integrity = trials, integrity
        self._statistic: Statistic = "soft margins" if soft else "labels"
        self._near = _part(trials, integrity)
        self._deviation = Deviation(self._near, self._statistic)
        self._groups = _groups(trials.hows)
        kinds: list[Kind] = [kind_of(how) for how in trials.hows]
        known = [kind for kind in KINDS if kinds.count(kind) >= FEWEST or kind == "re-encoded"]
        rows = np.array([i for i, kind in enumerate(kinds) if kind in known], np.int64)
        self.kinds = known
        self._truth = np.array([known.index(kinds[i]) for i in rows], np.int64)
        features = self._features(trials.labels, self._deviation.among_copies())[rows]
        self._centre, self._scale = features.mean(axis=0), features.std(axis=0) + 1e-9
        self._rows = (features - self._centre) / self._scale
        self._fit()

    def _fit(self) -> None:
        """The discriminant, its temperature, and what it gets right of held-out copies."""
        count, held = len(self._rows), np.zeros((len(self._rows), len(self.kinds)))
        fold = np.random.default_rng(0).permutation(count) % FOLDS
        for number in range(FOLDS):
            learnt = Discriminant(self._rows[fold != number], self._truth[fold != number], len(self.kinds))
            held[fold == number] = learnt.scores(self._rows[fold == number])
        losses = [_loss(held / t, self._truth) for t in TEMPERATURES]
        self._temperature = float(TEMPERATURES[int(np.argmin(losses))])
        right = held.argmax(axis=1) == self._truth
        present = np.unique(self._truth)
        self.accuracy = float(np.mean([right[self._truth == kind].mean() for kind in present]))
        self._discriminant = Discriminant(self._rows, self._truth, len(self.kinds))
        own = -self._discriminant.scores(self._rows)[np.arange(count), self._truth]
        self._farthest = float(own.max()) * BEYOND

    def name(self, labels: Labels, margins: NDArray[np.float64] | None) -> Attribution:
        """The likely transformation of a model that gives these labels (N,) and log margins (N,)."""
        answers: Answers = labels[None, self._integrity]
        if self._statistic == "soft margins":
            assert margins is not None  # noqa: S101  (asked for when it was built)
            answers = margins[None, self._integrity]
        features = self._features(labels[None], self._deviation.ratios(answers))
        scores = self._discriminant.scores((features - self._centre) / self._scale)[0]
        probabilities = _softmax(scores[None] / self._temperature)[0]
        best = int(probabilities.argmax())
        shown: dict[str, float] = {kind: round(float(p), 4) for kind, p in zip(self.kinds, probabilities, strict=True)}
        if -scores.max() > self._farthest:
            return Attribution(None, shown, self.accuracy, "It answers unlike every copy that the record knows.")
        if probabilities[best] < LIKELY:
            return Attribution(None, shown, self.accuracy, "No transformation is likely enough.")
        return Attribution(self.kinds[best], shown, self.accuracy)

    def _features(self, labels: NDArray[np.int64], ratios: Matrix) -> Matrix:
        """(M, F) of labels (M, N) on all probes, and ratios (M, T) on the integrity probes."""
        nearest = [np.log(0.02 + np.minimum(ratios[:, group].min(axis=1), FAR)) for group in self._groups if len(group)]
        changed = labels != self._trials.targets
        near, far = changed[:, self._integrity], changed[:, ~self._integrity]
        size = np.abs(self._near.margins[0])
        thirds = np.array_split(np.argsort(size), 3)
        rates = [_logit(near[:, third]) for third in thirds]
        return np.stack([*nearest, *rates, _logit(far), self._favourite(labels, changed)], axis=1)

    def _favourite(self, labels: NDArray[np.int64], changed: NDArray[np.bool_]) -> NDArray[np.float64]:
        """(M,) how much the changed answers pile up on one label."""
        found = np.zeros(len(labels))
        for i, (row, other) in enumerate(zip(labels, changed, strict=True)):
            if other.sum() >= 3:
                found[i] = np.unique(row[other], return_counts=True)[1].max() / other.sum()
        return found


class Discriminant:
    """Linear discriminant: kinds share one covariance, shrunk to its diagonal; equal priors."""

    def __init__(self, rows: Matrix, truth: NDArray[np.int64], kinds: int) -> None:
        self._means = np.stack(
            [
                rows[truth == k].mean(axis=0) if (truth == k).any() else np.full(rows.shape[1], np.inf)
                for k in range(kinds)
            ]
        )
        present = np.isfinite(self._means).all(axis=1)
        centred = rows - self._means[truth]
        covariance = centred.T @ centred / max(1, len(rows) - int(present.sum()))
        diagonal = np.diag(np.diag(covariance)) + 1e-3 * np.eye(len(covariance))
        self._inverse = np.linalg.inv(
            (1.0 - SHRINKAGE) * covariance + SHRINKAGE * diagonal + 1e-3 * np.eye(len(covariance))
        )
        self._present = present

    def scores(self, rows: Matrix) -> Matrix:
        """(M, kinds): minus half the squared Mahalanobis distance; very low for kinds that were not there."""
        found = np.full((len(rows), len(self._means)), -1e6)
        for k in np.nonzero(self._present)[0]:
            away = rows - self._means[k]
            found[:, k] = -0.5 * np.einsum("mi,ij,mj->m", away, self._inverse, away)
        return found


def _groups(hows: tuple[str, ...]) -> list[NDArray[np.int64]]:
    """Compressed copies by kind, and all that are not compressed."""
    groups = [[i for i, h in enumerate(hows) if is_compression(h) and kind_of(h) == kind] for kind in KINDS[:3]]
    return [np.array(group, np.int64) for group in groups]


def _part(trials: Trials, probes: NDArray[np.bool_]) -> Trials:
    return Trials(trials.hows, trials.labels[:, probes], trials.margins[:, probes], trials.targets[probes])


def _logit(changed: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Log odds of a share (M,) of (M, n), finite at its ends."""
    count = changed.sum(axis=1)
    return np.asarray(np.log((count + 0.5) / (changed.shape[1] - count + 0.5)))


def _softmax(scores: Matrix) -> Matrix:
    shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def _loss(scores: Matrix, truth: NDArray[np.int64]) -> float:
    """Mean negative log probability of the truth, each kind counting the same."""
    losses = -np.log(np.maximum(_softmax(scores)[np.arange(len(truth)), truth], 1e-12))
    return float(np.mean([losses[truth == kind].mean() for kind in np.unique(truth)]))
