"""How far answers are from those of the copies of an owner that a record knows, each measured in a unit of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from fingerprint.decision.allow import is_compression, steps_of

if TYPE_CHECKING:
    from fingerprint.decision.integrity import Trials

Answers = NDArray[np.int64] | NDArray[np.float64]  # (M, N) labels, or log margins, of M models on N probes
Statistic = Literal["labels", "soft margins"]

EPSILON: dict[Statistic, float] = {"labels": 4.0, "soft margins": 0.1}  # labels that a runtime may flip; nats


def distances(one: Answers, other: Answers, statistic: Statistic) -> NDArray[np.float64]:
    """(A, B) between the rows of (A, N) and (B, N): other labels, or root mean square difference of margins."""
    if statistic == "labels":
        return np.stack([(one != row).sum(axis=1) for row in other], axis=1).astype(np.float64)
    return np.stack([np.sqrt(((one - row) ** 2).mean(axis=1)) for row in other], axis=1)


class Deviation:
    """How far answers are from those of a set of copies, relative to how far these are from the owner."""

    def __init__(self, trials: Trials, statistic: Statistic) -> None:
        self.statistic = statistic
        self._copies = trials.answers(statistic)
        self._owner = self._copies[:1]
        self._own = distances(self._copies, self._owner, statistic)[:, 0]
        pruned = [tuple(s for s in steps_of(how) if s[0] == "prune") or (how, i) for i, how in enumerate(trials.hows)]
        self._twins = np.array([[one == other for other in pruned] for one in pruned], np.bool_)

    def ratios(self, answers: Answers) -> NDArray[np.float64]:
        """(M, T): of each of the rows (M, N) to each copy."""
        own = distances(answers, self._owner, self.statistic)
        return distances(answers, self._copies, self.statistic) / (
            EPSILON[self.statistic] + np.minimum(own, self._own[None])
        )

    def among_copies(self) -> NDArray[np.float64]:
        """(T, T): of the copies to each other; infinite to themselves and to those that are pruned to the same share.

        A suspect's strength lies between those of the record, so a twin that differs in bits only would flatter a copy.
        """
        ratios = self.ratios(self._copies)
        ratios[self._twins] = np.inf
        return ratios


class LocalDeviation(Deviation):
    """How far answers are from those of each copy, relative to how far the nearest other compressed copy is from it.

    Copies that lie on a path (ever more pruning) are close to each other; copies of different quantizers of activations
    are as far from each other as from the owner. In units of the local distance both look alike, so that one threshold
    serves both (after Breunig et al., SIGMOD 2000). The unit is never more than the distance to the owner.
    """

    def __init__(self, trials: Trials, statistic: Statistic) -> None:
        super().__init__(trials, statistic)
        self._between = distances(self._copies, self._copies, statistic)
        compressed = np.array([is_compression(how) for how in trials.hows], np.bool_)
        self._neighbours = np.where(self._twins | ~compressed[None], np.inf, self._between)

    def ratios(self, answers: Answers) -> NDArray[np.float64]:
        """(M, T): of each of the rows (M, N) to each copy."""
        own = distances(answers, self._owner, self.statistic)
        unit = np.minimum(own, self._neighbours.min(axis=1)[None])
        return np.asarray(distances(answers, self._copies, self.statistic) / (EPSILON[self.statistic] + unit))

    def among_copies(self) -> NDArray[np.float64]:
        """(T, T): see `Deviation`. A copy that is left out is nobody's neighbour, nor are its twins."""
        found = np.empty_like(self._between)
        for i, twins in enumerate(self._twins):
            local = np.where(twins[None], np.inf, self._neighbours).min(axis=1)
            found[i] = self._between[i] / (EPSILON[self.statistic] + np.minimum(local, self._own[i]))
        found[self._twins] = np.inf
        return found
