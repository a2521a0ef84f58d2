"""How a suspect's answers to clean images can be read under one spec, and which of two readings explains more."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fingerprint.decision.distributions import binomial_tail
from fingerprint.engine.labels import LabelMap, commonest
from fingerprint.frozen import dataclass
from fingerprint.model import InputSpec, Labels

ABOVE_CHANCE = 1e-3  # the best setting must be better than guessing at this level, all candidates together


@dataclass(frozen=True)
class Setting:
    """One way to feed a suspect and to read its labels. `labels` None: the spec's class offset tells all."""

    spec: InputSpec
    labels: LabelMap | None = None


class Reading:
    """One way to read one spec's answers.

    Args:
        base: the candidate.
        spec: the same, with its class offset.
        labels: what its labels mean.
        expected: (N,) the index that each image should be answered with, -1 = none.
        answers: (N,) the index that it was answered with.
        truth: (N,) common labels.
    """

    def __init__(
        self, base: InputSpec, spec: InputSpec, labels: LabelMap, expected: Labels, answers: Labels, truth: Labels
    ) -> None:
        self.base, self.labels = base, labels
        self.expected, self.answers, self.truth = expected, answers, truth
        self.right: NDArray[np.bool_] = expected == answers
        self.accuracy = float(self.right.mean())
        reached = np.asarray(labels.to_suspect)[truth]
        shares = np.bincount(answers, minlength=labels.width) / len(answers)
        guess = float(np.where(reached >= 0, shares[reached], 0.0).mean())  # right by chance, with these answers
        self.guess = max(guess, 1.0 / labels.classes)
        self.merged = not labels.distinct
        self.score = (self.accuracy - self.guess) / max(1e-9, 1.0 - self.guess) if self.merged else self.accuracy
        plain = labels == LabelMap.shifted(labels.classes, labels.width, spec.class_offset)
        self.setting = Setting(spec, None if plain else labels)

    def explains(self, learned: LabelMap) -> bool:
        """Whether it is better than chance, and a learned map says nothing else of the classes that it has."""
        pairs = zip(self.labels.to_suspect, learned.to_suspect, strict=True)
        return self.above_chance(ABOVE_CHANCE) and all(ours < 0 or found in (ours, -1) for ours, found in pairs)

    def as_good_as(self, other: Reading, level: float) -> bool:
        """Whether it is not significantly worse than `other` on the same images (one-sided exact McNemar test).

        Where classes are merged, guessing is easier: the skill beyond guessing is compared, with three standard errors.
        """
        if self.merged or other.merged:
            spread = sum(r.accuracy * (1 - r.accuracy) / (1 - r.guess + 1e-9) ** 2 for r in (self, other))
            skill, best = (max(0.0, r.accuracy - r.guess) / (1 - r.guess + 1e-9) for r in (self, other))
            return bool(best - skill <= 3.0 * float(np.sqrt(spread / len(self.right))))
        # A class that only one of the two maps knows yet is read in both by that one: else the accident of who learned
        # it first would decide.
        ours = np.where(self.expected >= 0, self.expected, other.expected) == self.answers
        theirs = np.where(other.expected >= 0, other.expected, self.expected) == other.answers
        return _more_often(theirs, ours) > level

    def relabelled(self, level: float) -> bool:
        """Whether its classes' commonest answers, as other images show them, fit significantly better than its map."""
        usual = commonest(self.answers, self.truth, self.labels.classes, self.labels.width)
        return _more_often(usual == self.answers, self.right) <= level

    def above_chance(self, level: float) -> bool:
        """Whether it explains more than guessing would, whatever classes it favours."""
        return binomial_tail(int(self.right.sum()), len(self.right), self.guess) <= level


def _more_often(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """P-value of that `one` is no more often true than `other`, on the same images (exact McNemar test)."""
    only_one, only_other = int((one & ~other).sum()), int((other & ~one).sum())
    return binomial_tail(only_one, only_one + only_other, 0.5)
