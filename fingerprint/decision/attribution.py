"""Attribution: how was a derived suspect probably made from the owner's model?

Learned from the owner's own copies (`integrity.Trials`), in two steps. Does it answer like a compressed copy: the
deviation of `integrity`, a logistic curve on it. If so, which kind's copies are nearest; if not, a linear discriminant
(common covariance, shrunk to its diagonal) on how its changes point the same way as those of each kind's copies, how
many there are, and whether they pile up on one label. All three are fitted on scores of copies that were left out, so
that the probabilities are honest (temperatures: Guo et al., ICML 2017). It may say that it does not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from fingerprint.decision.allow import KINDS, Kind, is_compression, kind_of, steps_of
from fingerprint.decision.deviation import Answers, Deviation, Statistic
from fingerprint.decision.integrity import Trials
from fingerprint.frozen import dataclass
from fingerprint.model import Labels

if TYPE_CHECKING:
    from fingerprint.decision.weights import WeightEvidence

Matrix = NDArray[np.float64]
COMPRESSIONS, OTHERS = KINDS[:3], KINDS[3:]
SHRINKAGE = 0.1  # share of the diagonal in the common covariance
LIKELY = 0.5  # probability below which nothing is named
FEWEST = 3  # copies of a kind below which it can't be named
FOLDS = 5
FAR = 50.0  # deviation beyond which more says nothing
TEMPERATURES = np.geomspace(0.05, 20.0, 25)
SIMPLER = (0.02, 0.03, 0.04)  # deviation below which copies of each compression are alike: the simpler one is preferred
CUTS = np.geomspace(0.05, 5.0, 41)  # deviations at which a model may stop counting as compressed
BEYOND = 2.0  # times the farthest copy's distance from its kind, beyond which a suspect is unlike all copies


@dataclass(frozen=True)
class Attribution:
    """The likely transformation.

    kind: None = don't know. probabilities: of the kinds that the record knows, adding up to one. accuracy: share of the
    record's own left-out copies that were named rightly by their answers, each kind counting the same. reason: why
    nothing is named. basis: `weights` where these show more than the answers do.
    """

    kind: Kind | None
    probabilities: Mapping[str, float] = field(default_factory=dict)
    accuracy: float = 0.0
    reason: str = ""
    basis: Literal["answers", "weights"] = "answers"


def by_weights(found: Attribution | None, weights: WeightEvidence) -> Attribution | None:
    """What the answers say, or what the weights show: compression leaves marks, and what it does not explain is no
    compression. Weights that do not resemble the owner's say nothing here: the answers stand.
    """
    accuracy = found.accuracy if found else 0.0
    if weights.relation in ("identical", "renamed", "reordered", "re-encoded"):
        return Attribution("re-encoded", {"re-encoded": 1.0}, accuracy, basis="weights")
    if weights.relation == "compressed":
        kind: Kind = "pruned" if weights.pruned else "quantized"
        return Attribution(kind, {kind: 1.0}, accuracy, basis="weights")
    if weights.relation not in ("changed", "changed in part") or found is None:
        return found
    rest = {kind: found.probabilities.get(kind, 0.0) for kind in OTHERS if kind in found.probabilities}
    total = sum(rest.values())
    shown: dict[str, float] = {kind: round(p / total, 4) for kind, p in rest.items()} if total > 0.0 else {}
    best = max(OTHERS, key=lambda kind: shown.get(kind, 0.0))
    if shown.get(best, 0.0) < LIKELY:
        return Attribution(None, shown, accuracy, "Its weights were changed; how can't be told.", "weights")
    return Attribution(best, shown, accuracy, basis="weights")


class Attributor:
    """Learns from the trials of a record, on the probes that the suspect was asked.

    Args:
        trials: on all probes asked.
        integrity: (N,) which of them are integrity probes.
        soft: use log margins instead of labels.
    """

    def __init__(self, trials: Trials, integrity: NDArray[np.bool_], *, soft: bool) -> None:
        self._trials, self._integrity = trials, integrity
        self._statistic: Statistic = "soft margins" if soft else "labels"
        self._near = part_of(trials, integrity)
        self._deviation = Deviation(self._near, self._statistic)
        kinds = np.array([KINDS.index(kind_of(how)) for how in trials.hows], np.int64)
        squeezed = np.array([is_compression(how) for how in trials.hows], np.bool_)
        pure = np.array([len(steps_of(how)) <= 1 for how in trials.hows], np.bool_) & squeezed
        self._groups = [np.nonzero(pure & (kinds == i))[0] for i in range(len(COMPRESSIONS))]
        counts = np.bincount(kinds[~squeezed], minlength=len(KINDS))
        self._known = [i for i in range(len(COMPRESSIONS), len(KINDS)) if counts[i] >= FEWEST]
        self._others = np.nonzero(~squeezed & np.isin(kinds, self._known))[0]
        self._directions = self._direction(trials.labels, trials.margins)
        self._other_groups = [np.nonzero(~squeezed & (kinds == i))[0] for i in self._known]
        self._fit(kinds, squeezed, pure)

    def _fit(self, kinds: NDArray[np.int64], squeezed: NDArray[np.bool_], pure: NDArray[np.bool_]) -> None:
        among = self._deviation.among_copies()
        nearest, closest = self._nearest(among), among[:, squeezed].min(axis=1, initial=FAR)  # each copy left out
        self._squeezed = squeezed
        self._cut, self._slope = _logistic(closest, squeezed)
        truth = kinds[pure]
        scores = _closeness(nearest)[pure]
        self._width = temperature_of(scores, truth)
        right = [mean_right(scores.argmax(axis=1), truth)]
        self._discriminant: Discriminant | None = None
        if len(self._known) > 1:
            alike = self._directions @ self._directions.T
            np.fill_diagonal(alike, -1.0)
            features = self._features(self._trials.labels, alike)[self._others]
            self._centre, self._scale = features.mean(axis=0), features.std(axis=0) + 1e-9
            right.append(self._fit_others((features - self._centre) / self._scale, kinds[self._others]))
        shares = [len(COMPRESSIONS), len(self._known)][: len(right)]
        called = closest <= self._cut
        apart = (float(called[squeezed].mean()), float((~called[~squeezed]).mean()) if (~squeezed).any() else 1.0)
        self.accuracy = float(np.average([r * a for r, a in zip(right, apart, strict=False)], weights=shares))

    def _fit_others(self, rows: Matrix, kinds: NDArray[np.int64]) -> float:
        """The discriminant and its temperature; what it gets right of left-out copies."""
        truth = np.searchsorted(self._known, kinds)
        held, fold = np.zeros((len(rows), len(self._known))), np.arange(len(rows)) % FOLDS
        for number in range(FOLDS):
            learnt = Discriminant(rows[fold != number], truth[fold != number], len(self._known))
            held[fold == number] = learnt.scores(rows[fold == number])
        self._temperature = temperature_of(held, truth)
        self._discriminant = Discriminant(rows, truth, len(self._known))
        own = self._discriminant.scores(rows)[np.arange(len(rows)), truth]
        self._farthest = float(-own.min()) * BEYOND
        return mean_right(held.argmax(axis=1), truth)

    def name(self, labels: Labels, margins: NDArray[np.float64] | None) -> Attribution:
        """The likely transformation of a model that gives these labels (N,) and log margins (N,)."""
        answers: Answers = labels[None, self._integrity]
        if self._statistic == "soft margins":
            assert margins is not None  # noqa: S101  (asked for when it was built)
            answers = margins[None, self._integrity]
        ratios = self._deviation.ratios(answers)
        nearest, closest = self._nearest(ratios), ratios[:, self._squeezed].min(initial=FAR)
        squeezed = _sigmoid((np.log(self._cut) - np.log(closest + 1e-3)) / self._slope)
        found = dict.fromkeys(COMPRESSIONS, 0.0) | dict.fromkeys((KINDS[i] for i in self._known), 0.0)
        for kind, share in zip(COMPRESSIONS, softmax(_closeness(nearest) / self._width)[0], strict=True):
            found[kind] = squeezed * float(share)
        unlike = self._add_others(found, labels, margins, 1.0 - squeezed)
        best = max(found, key=lambda kind: found[kind])
        shown: dict[str, float] = {kind: round(p, 4) for kind, p in found.items()}
        if best in OTHERS and unlike:
            return Attribution(None, shown, self.accuracy, "It answers unlike every copy that the record knows.")
        if found[best] < LIKELY:
            return Attribution(None, shown, self.accuracy, "No transformation is likely enough.")
        return Attribution(best, shown, self.accuracy)

    def _add_others(
        self, found: dict[Kind, float], labels: Labels, margins: NDArray[np.float64] | None, share: float
    ) -> bool:
        """Divide `share` among the kinds that are no compression. Whether the model is unlike all of their copies."""
        if self._discriminant is None:
            for i in self._known:
                found[KINDS[i]] = share
            return False
        given = None if margins is None else margins[None]
        alike = self._direction(labels[None], given) @ self._directions.T
        features = self._features(labels[None], alike)
        scores = self._discriminant.scores((features - self._centre) / self._scale)
        for i, part in zip(self._known, softmax(scores / self._temperature)[0], strict=True):
            found[KINDS[i]] = share * float(part)
        return bool(-scores.max() > self._farthest)

    def _nearest(self, ratios: Matrix) -> Matrix:
        """(M, 3) deviation from the nearest copy of each kind of compression, of ratios (M, T)."""
        parts = [ratios[:, group].min(axis=1, initial=FAR) for group in self._groups]
        return np.stack(parts, axis=1)

    def _direction(self, labels: NDArray[np.int64], margins: NDArray[np.float64] | None) -> Matrix:
        """(M, n) changes on the integrity probes, of length one."""
        if self._statistic == "labels" or margins is None:
            change = (labels != self._trials.targets)[:, self._integrity].astype(np.float64)
        else:
            change = (margins - self._trials.margins[:1])[:, self._integrity]
        return np.asarray(change / (np.linalg.norm(change, axis=1, keepdims=True) + 1e-9))

    def _features(self, labels: NDArray[np.int64], alike: Matrix) -> Matrix:
        """(M, F) of labels (M, N) on all probes, and of cosines (M, T) with the copies' changes."""
        groups = [*self._groups[1:], *self._other_groups]
        cosines = [alike[:, group].max(axis=1, initial=-1.0) for group in groups]
        changed = labels != self._trials.targets
        rates = [logit(changed[:, self._integrity]), logit(changed[:, ~self._integrity])]
        return np.stack([*cosines, *rates, favourite(labels, changed)], axis=1)


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


def part_of(trials: Trials, probes: NDArray[np.bool_]) -> Trials:
    """The trials on these of the probes."""
    return Trials(trials.hows, trials.labels[:, probes], trials.margins[:, probes], trials.targets[probes])


def _closeness(nearest: Matrix) -> Matrix:
    """(M, 3) scores of deviations from the nearest copy of each compression: what counts is their ratio."""
    return np.asarray(-np.log(nearest + np.array(SIMPLER)))


def favourite(labels: NDArray[np.int64], changed: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(M,) share of the changed answers that one label has; 0.3 where there are too few to say."""
    found = np.full(len(labels), 0.3)
    for i, (row, other) in enumerate(zip(labels, changed, strict=True)):
        if other.sum() >= 3:
            found[i] = np.unique(row[other], return_counts=True)[1].max() / other.sum()
    return found


def logit(changed: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Log odds of a share (M,) of (M, n), finite at its ends."""
    count = changed.sum(axis=1)
    return np.asarray(np.log((count + 0.5) / (changed.shape[1] - count + 0.5)))


def _sigmoid(value: float) -> float:
    return float(1.0 / (1.0 + np.exp(-np.clip(value, -30.0, 30.0))))


def softmax(scores: Matrix) -> Matrix:
    """(M, kinds) probabilities of scores (M, kinds)."""
    shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def temperature_of(scores: Matrix, truth: NDArray[np.int64]) -> float:
    """The divisor of scores (M, kinds) that makes their softmax fit the truth best."""
    losses = [loss_of(softmax(scores / t)[np.arange(len(truth)), truth], truth) for t in TEMPERATURES]
    return float(TEMPERATURES[int(np.argmin(losses))])


def _logistic(values: NDArray[np.float64], positive: NDArray[np.bool_]) -> tuple[float, float]:
    """Where and how steeply the chance of `positive` falls with the logarithm of the values (M,)."""
    if positive.all():
        return float(CUTS[-1]), 0.1
    logs, sides = np.log(values + 1e-3), positive.astype(np.int64)
    best = (np.inf, 1.0, 1.0)
    for cut in CUTS:
        for slope in (0.05, 0.1, 0.2, 0.4, 0.8):
            chance = 1.0 / (1.0 + np.exp(np.clip((logs - np.log(cut)) / slope, -30.0, 30.0)))
            best = min(best, (loss_of(np.where(positive, chance, 1.0 - chance), sides), float(cut), slope))
    return best[1], best[2]


def loss_of(chances: NDArray[np.float64], truth: NDArray[np.int64]) -> float:
    """Mean negative log of the chances (M,) given to the truth, each kind counting the same."""
    losses = -np.log(np.maximum(chances, 1e-3))
    return float(np.mean([losses[truth == kind].mean() for kind in np.unique(truth)]))


def mean_right(said: NDArray[np.int64], truth: NDArray[np.int64]) -> float:
    """The share of answers (M,) that are right, each kind counting the same."""
    return float(np.mean([(said[truth == kind] == kind).mean() for kind in np.unique(truth)]))
