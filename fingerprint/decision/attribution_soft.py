"""Attribution where the suspect gives soft outputs: one logistic regression over all kinds.

Features, each of a copy with itself left out: the deviation of `integrity` from the nearest copy of each kind; how much
the changes of the log margins point the same way as those of each kind's copies (the largest cosine); how large the
changes are on integrity and on lineage probes, how many labels changed, and whether they pile up on one; whether few
probes bear the change; the slope of the line from the owner's margins to the copy's, and what it leaves; and how many
margins differ from all others (rounded outputs repeat). Penalty and
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
from fingerprint.decision.deviation import Deviation, LocalDeviation
from fingerprint.decision.integrity import Trials
from fingerprint.decision.logistic import Logistic
from fingerprint.model import Labels

PENALTIES = (1e-3, 1e-2, 1e-1)
LINEAGE = 0.3  # weight of lineage probes in directions: their margins are wide, and their changes large
CERTAIN = 9.2  # nats: log margins stop there (`statistics.centred_log_outputs`)
HAIR = 0.03  # deviation, and nats, below which differences say nothing


class SoftAttributor:
    """Learns from the trials of a record, on the probes that the suspect was asked.

    Args:
        trials: on all probes asked.
        integrity: (N,) which of them are integrity probes.
    """

    def __init__(self, trials: Trials, integrity: NDArray[np.bool_]) -> None:
        self._trials, self._integrity = trials, integrity
        near = part_of(trials, integrity)
        self._deviations = (Deviation(near, "soft margins"), LocalDeviation(near, "soft margins"))
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
        ratios = [deviation.ratios(margins[None, self._integrity]) for deviation in self._deviations]
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
        trials, ratios = self._trials, [deviation.among_copies() for deviation in self._deviations]
        return self._features(trials.labels, trials.margins, ratios, alike)[self._kept]

    def _direction(self, margins: NDArray[np.float64]) -> Matrix:
        """(M, N) changes of log margins, of length one."""
        change = (margins - self._trials.margins[:1]) * np.where(self._integrity, 1.0, LINEAGE)
        return np.asarray(change / (np.linalg.norm(change, axis=1, keepdims=True) + 1e-9))

    def _features(
        self, labels: NDArray[np.int64], margins: NDArray[np.float64], ratios: list[Matrix], alike: Matrix
    ) -> Matrix:
        """(M, F) of labels and margins (M, N) on all probes, deviations of both sorts and cosines (M, T) to copies."""
        near = [np.log(HAIR + np.minimum(r[:, group].min(axis=1), FAR)) for r in ratios for group in self._groups]
        cosines = [alike[:, group].max(axis=1) for group in self._groups]
        own = self._trials.margins[:1]
        changed, change = labels != self._trials.targets, margins - own
        sides = (self._integrity, ~self._integrity)
        rates = [logit(changed[:, side]) for side in sides]
        sizes = [part for side in sides for part in spread(change[:, side])]
        lines = [part for side in sides for part in line(own[0, side], margins[:, side])]
        return np.stack(
            [*near, *cosines, *rates, favourite(labels, changed), *sizes, *lines, distinct(margins)], axis=1
        )


def spread(change: Matrix) -> list[NDArray[np.float64]]:
    """Of changes (M, n): how large, the largest of them, how even, and the share of none."""
    sizes = np.abs(change)
    mean = np.sqrt(np.square(sizes).mean(axis=1))
    even, none = np.median(sizes, axis=1) / (mean + HAIR), (sizes < HAIR).mean(axis=1)
    return [np.log(HAIR + mean), np.log(HAIR + sizes.max(axis=1)), even, none]


def line(own: NDArray[np.float64], margins: Matrix) -> list[NDArray[np.float64]]:
    """Of margins (M, n) against the owner's (n,): slope less one, what the line leaves, and the mean change."""
    centred, others = own - own.mean(), margins - margins.mean(axis=1, keepdims=True)
    slope = others @ centred / max(float(centred @ centred), HAIR)
    rest = np.sqrt(np.square(others - slope[:, None] * centred).mean(axis=1))
    return [np.arcsinh(3.0 * (slope - 1.0)), np.log(HAIR + rest), np.arcsinh(3.0 * (margins.mean(axis=1) - own.mean()))]


def distinct(margins: Matrix) -> NDArray[np.float64]:
    """(M,) log share of margins (M, N) that differ from all others, those at the floor of probabilities left out."""
    found = np.zeros(len(margins))
    for i, row in enumerate(margins):
        inner = np.abs(row) < CERTAIN
        found[i] = np.log((1.0 + len(np.unique(np.round(row[inner], 4)))) / (1.0 + inner.sum()))
    return found


def attributor(trials: Trials, integrity: NDArray[np.bool_], *, soft: bool) -> Attributor | SoftAttributor:
    """What names transformations from labels, or from soft outputs."""
    return SoftAttributor(trials, integrity) if soft else Attributor(trials, integrity, soft=False)
