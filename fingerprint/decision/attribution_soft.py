"""Attribution where the suspect gives soft outputs: one logistic regression over all kinds.

Features, each of a copy with itself left out: the deviation of `integrity` from the nearest copy of each kind; how much
the changes of the log margins point the same way as those of each kind's copies (the largest cosine); how large the
changes are on integrity and on lineage probes, how many labels changed, and whether they pile up on one. Penalty and
temperature are chosen on left-out copies, each kind counting the same. What is farther from every copy than copies are
from each other is not named. Why not with labels: ADR 0028.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fingerprint.decision.allow import KINDS, kind_of
from fingerprint.decision.attribution import (
    BEYOND,
    FAR,
    FEWEST,
    FOLDS,
    LIKELY,
    Attribution,
    Attributor,
    Matrix,
    favourite,
    logit,
    loss_of,
    mean_right,
    part_of,
    softmax,
    temperature_of,
)
from fingerprint.decision.deviation import Deviation
from fingerprint.decision.integrity import Trials
from fingerprint.decision.logistic import Logistic
from fingerprint.model import Labels

PENALTIES = (1e-3, 1e-2, 1e-1)
LINEAGE = 0.3  # weight of lineage probes in directions: their margins are wide, and their changes large
HAIR = 0.03  # deviation, and nats, below which differences say nothing


class SoftAttributor:
    """Learns from the trials of a record, on the probes that the suspect was asked.

    Args:
        trials: on all probes asked.
        integrity: (N,) which of them are integrity probes.
    """

    def __init__(self, trials: Trials, integrity: NDArray[np.bool_]) -> None:
        self._trials, self._integrity = trials, integrity
        self._deviation = Deviation(part_of(trials, integrity), "soft margins")
        kinds = np.array([KINDS.index(kind_of(how)) for how in trials.hows], np.int64)
        counts = np.bincount(kinds, minlength=len(KINDS))
        self._kept = np.nonzero((counts[kinds] >= FEWEST) | (kinds == 0))[0]
        self._groups = [np.nonzero(kinds == kind)[0] for kind in np.unique(kinds[self._kept])]
        self._directions = self._direction(trials.margins)
        rows, truth = self._learnt(), kinds[self._kept]
        self._centre, self._scale = rows.mean(axis=0), rows.std(axis=0) + 1e-9
        self._rows = (rows - self._centre) / self._scale
        self._names = [KINDS[kind] for kind in np.unique(truth)]
        self._fit(truth)

    def _fit(self, truth: NDArray[np.int64]) -> None:
        fold, best = np.arange(len(truth)) % FOLDS, (np.inf, PENALTIES[0])
        held = {penalty: np.zeros((len(truth), len(KINDS))) for penalty in PENALTIES}
        for penalty, scores in held.items():
            for number in range(FOLDS):
                learnt = Logistic(self._rows[fold != number], truth[fold != number], len(KINDS), penalty)
                scores[fold == number] = learnt.scores(self._rows[fold == number])
            best = min(best, (loss_of(softmax(scores)[np.arange(len(truth)), truth], truth), penalty))
        chosen = held[best[1]]
        self._temperature = temperature_of(chosen, truth)
        self.accuracy = mean_right(chosen.argmax(axis=1), truth)
        self._logistic = Logistic(self._rows, truth, len(KINDS), best[1])
        among = np.square(self._rows[:, None] - self._rows[None]).mean(axis=2)
        np.fill_diagonal(among, np.inf)
        self._farthest = BEYOND**2 * float(among.min(axis=1).max())

    def name(self, labels: Labels, margins: NDArray[np.float64] | None) -> Attribution:
        """The likely transformation of a model that gives these labels (N,) and log margins (N,)."""
        assert margins is not None  # noqa: S101  (there are none with labels only)
        ratios = self._deviation.ratios(margins[None, self._integrity])
        alike = self._direction(margins[None]) @ self._directions.T
        row = (self._features(labels[None], margins[None], ratios, alike) - self._centre) / self._scale
        chances = softmax(self._logistic.scores(row) / self._temperature)[0]
        shown: dict[str, float] = {name: round(float(chances[KINDS.index(name)]), 4) for name in self._names}
        best = max(self._names, key=lambda name: shown[name])
        if float(np.square(self._rows - row).mean(axis=1).min()) > self._farthest:
            return Attribution(None, shown, self.accuracy, "It answers unlike every copy that the record knows.")
        if shown[best] < LIKELY:
            return Attribution(None, shown, self.accuracy, "No transformation is likely enough.")
        return Attribution(best, shown, self.accuracy)

    def _learnt(self) -> Matrix:
        """(M, F): of the copies that are learnt from."""
        alike = self._directions @ self._directions.T
        np.fill_diagonal(alike, -1.0)
        trials, ratios = self._trials, self._deviation.among_copies()
        return self._features(trials.labels, trials.margins, ratios, alike)[self._kept]

    def _direction(self, margins: NDArray[np.float64]) -> Matrix:
        """(M, N) changes of log margins, of length one."""
        change = (margins - self._trials.margins[:1]) * np.where(self._integrity, 1.0, LINEAGE)
        return np.asarray(change / (np.linalg.norm(change, axis=1, keepdims=True) + 1e-9))

    def _features(
        self, labels: NDArray[np.int64], margins: NDArray[np.float64], ratios: Matrix, alike: Matrix
    ) -> Matrix:
        """(M, F) of labels and margins (M, N) on all probes, deviations and cosines (M, T) to the copies."""
        near = [np.log(HAIR + np.minimum(ratios[:, group].min(axis=1), FAR)) for group in self._groups]
        cosines = [alike[:, group].max(axis=1) for group in self._groups]
        changed, change = labels != self._trials.targets, margins - self._trials.margins[:1]
        sides = (self._integrity, ~self._integrity)
        sizes = [np.log(HAIR + np.sqrt(np.square(change[:, side]).mean(axis=1))) for side in sides]
        rates = [logit(changed[:, side]) for side in sides]
        shift = np.arcsinh(3.0 * change[:, ~self._integrity].mean(axis=1))
        return np.stack([*near, *cosines, *rates, favourite(labels, changed), *sizes, shift], axis=1)


def attributor(trials: Trials, integrity: NDArray[np.bool_], *, soft: bool) -> Attributor | SoftAttributor:
    """What names transformations from labels, or from soft outputs."""
    return SoftAttributor(trials, integrity) if soft else Attributor(trials, integrity, soft=False)
