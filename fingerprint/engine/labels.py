"""Label spaces: which of a suspect's classes means which common class.

Learned from clean images only. Deciding a pair takes a significant majority, so that a class which the images don't
show often enough stays unmapped: it is left out of the comparison, and never guessed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fingerprint.decision.distributions import binomial_tail
from fingerprint.model import Floats, Labels

UNMAPPED = -1
MISTAKEN = 0.01  # largest probability that any class of a learned map is mapped to the runner-up by chance
MERGED_SHARE = 0.8  # of a class's answers that go where another class's go, from which on the two are one: a class
# that the suspect does not have is often taken for the same other one, too


@dataclass(frozen=True)
class LabelMap:
    """`to_suspect[c]`: index into the suspect's outputs of common class c, or -1 where it has none; `width`: K'."""

    to_suspect: tuple[int, ...]
    width: int

    @property
    def classes(self) -> int:
        """Number of common classes."""
        return len(self.to_suspect)

    @property
    def distinct(self) -> bool:
        """Whether no two common classes share an output."""
        found = [index for index in self.to_suspect if index >= 0]
        return len(set(found)) == len(found)

    @property
    def complete(self) -> bool:
        """Whether every common class has an output of its own: outputs can be put in the owner's order."""
        return UNMAPPED not in self.to_suspect and self.distinct

    @property
    def kind(self) -> str:
        """`same`, `offset` (background classes come first), `permuted`, or `reduced` (classes missing or merged)."""
        if not self.complete:
            return "reduced"
        first = self.to_suspect[0]
        shifted = self.to_suspect == tuple(range(first, first + self.classes))
        return "permuted" if not shifted else "same" if first == 0 else "offset"

    def aligned(self, outputs: Floats) -> Floats:
        """Outputs (N, K') in the owner's order, (N, K). Only for a complete map."""
        return np.ascontiguousarray(outputs[:, list(self.to_suspect)])

    def of_targets(self, labels: Labels) -> Labels:
        """The suspect's index of each common label (N,), -1 where it has none."""
        return np.asarray(self.to_suspect, np.int64)[labels]

    def of_outputs(self, outputs: Floats) -> Labels:
        """The suspect's index (N,) that a model with common outputs (N, K) would answer in this label space.

        It chooses among the classes that the suspect has.
        """
        index = np.asarray(self.to_suspect, np.int64)
        return np.asarray(index[np.where(index >= 0, outputs, -np.inf).argmax(axis=1)], np.int64)

    @classmethod
    def shifted(cls, classes: int, width: int, offset: int) -> LabelMap:
        """Common class c is output c + offset; classes beyond the last output are missing."""
        return cls(tuple(c + offset if c + offset < width else UNMAPPED for c in range(classes)), width)


def learn(answers: Labels, truth: Labels, classes: int, width: int) -> LabelMap:
    """The map that clean images show.

    Args:
        answers: (N,) indices that the suspect answered.
        truth: (N,) common labels.
        classes: number of common classes.
        width: K', number of the suspect's outputs.
    """
    counts = np.zeros((classes, width), np.int64)
    np.add.at(counts, (truth, answers), 1)
    winners = np.array([_winner(row, MISTAKEN / classes) for row in counts])
    shares = counts.max(axis=1) / np.maximum(1, counts.sum(axis=1))
    for index in set(winners[winners >= 0].tolist()):
        claimed = np.nonzero(winners == index)[0]
        first = claimed[shares[claimed].argmax()]
        winners[[c for c in claimed if c != first and shares[c] < MERGED_SHARE]] = UNMAPPED
    return LabelMap(tuple(int(w) for w in winners), width)


def _winner(counts: NDArray[np.int64], level: float) -> int:
    """The index most often answered, if it is so significantly more often than the next one (exact sign test)."""
    if len(counts) < 2:
        return UNMAPPED
    second, first = (int(i) for i in np.argsort(counts, kind="stable")[-2:])
    top, next_best = int(counts[first]), int(counts[second])
    return first if top and binomial_tail(top, top + next_best, 0.5) <= level else UNMAPPED


def cross_fitted(answers: Labels, truth: Labels, classes: int, width: int) -> Labels:
    """The index (N,) that each image should be answered with by a map that was learned on the other half of them."""
    expected = np.full(len(answers), UNMAPPED, np.int64)
    halves = np.arange(len(answers)) % 2 == 0
    for part in (halves, ~halves):
        found = learn(answers[~part], truth[~part], classes, width)
        expected[part] = found.of_targets(truth[part])
    return expected
