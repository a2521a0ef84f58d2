"""Label spaces: which of a suspect's classes means which common class.

Learned from clean images only. Deciding a pair takes a significant majority, so that a class which the images don't
show often enough stays unmapped: it is left out of the comparison, and never guessed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fingerprint.decision.distributions import binomial_tail
from fingerprint.frozen import dataclass
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
    level = MISTAKEN / 2 / classes
    winners = np.array([_winner(row, level) for row in counts])
    left = np.nonzero(winners == UNMAPPED)[0]
    shares = counts.max(axis=1) / np.maximum(1, counts.sum(axis=1))
    for index in set(winners[winners >= 0].tolist()):
        claimed = np.nonzero(winners == index)[0]
        first = claimed[shares[claimed].argmax()]
        winners[[c for c in claimed if c != first and shares[c] < MERGED_SHARE]] = UNMAPPED
    for common in left:
        index = int(counts[common].argmax())
        if index not in winners and _sole_source(counts, int(common), index, level):
            winners[common] = index
    return LabelMap(tuple(int(w) for w in winners), width)


def _winner(counts: NDArray[np.int64], level: float) -> int:
    """The index most often answered, if it is so significantly more often than the next one (exact sign test)."""
    if len(counts) < 2:
        return UNMAPPED
    second, first = (int(i) for i in np.argsort(counts, kind="stable")[-2:])
    top, next_best = int(counts[first]), int(counts[second])
    return first if top and binomial_tail(top, top + next_best, 0.5) <= level else UNMAPPED


def _sole_source(counts: NDArray[np.int64], common: int, index: int, level: float) -> bool:
    """Whether an output that nobody has yet is answered significantly more often for this class than for any other.

    A class that is often taken for another one (a blurred cat for a dog) shows so whose output its own is. Exact test
    of two rates, given their sum; a class that was never shown may be the source as well.
    """
    sizes, top = counts.sum(axis=1), int(counts[common, index])
    return all(
        binomial_tail(top, top + int(counts[c, index]), sizes[common] / max(1, sizes[common] + sizes[c])) <= level
        for c in range(len(counts))
        if c != common
    )


def cross_fitted(answers: Labels, truth: Labels, classes: int, width: int) -> Labels:
    """The index (N,) that each image should be answered with by a map that was learned on the other half of them."""
    return _from_other_half(answers, truth, lambda a, t: learn(a, t, classes, width).of_targets(np.arange(classes)))


def commonest(answers: Labels, truth: Labels, classes: int, width: int) -> Labels:
    """The index (N,) that the other half of the images is answered with most often where the class is the same.

    No map to go by, since nothing of it need be significant; but where it is right far more often than the labels as
    they are, these mean something else.
    """

    def most(answers: Labels, truth: Labels) -> Labels:
        counts = np.zeros((classes, width), np.int64)
        np.add.at(counts, (truth, answers), 1)
        return np.where(counts.any(axis=1), counts.argmax(axis=1), UNMAPPED)

    return _from_other_half(answers, truth, most)


def _from_other_half(answers: Labels, truth: Labels, fit: Callable[[Labels, Labels], Labels]) -> Labels:
    """What `fit` says of each class (K,) from one half of the images, for the images of the other half: (N,)."""
    expected = np.full(len(answers), UNMAPPED, np.int64)
    halves = np.arange(len(answers)) % 2 == 0
    for part in (halves, ~halves):
        expected[part] = fit(answers[~part], truth[~part])[truth[part]]
    return expected
