"""What everybody answered to one family's probes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fingerprint.frozen import dataclass
from fingerprint.model import Floats, Labels

Index = NDArray[np.int64]


@dataclass(frozen=True)
class Panel:
    """One family's probes of one owner, and all models' answers.

    Attributes:
        family: its name.
        targets: (N,) labels that the owner gives.
        responses: (N, K) the owner's outputs.
        labels: (M, N) labels that the models give.
        outputs: (M, N, K) their outputs, or None where labels are all that may be used.
        groups: (N,) number of the group that a probe belongs to, -1 where it stands alone.
    """

    family: str
    targets: Labels
    responses: Floats
    labels: NDArray[np.int64]
    outputs: Floats | None
    groups: Labels

    def take(self, probes: Index) -> Panel:
        """The same with some of the probes."""
        return replace(
            self,
            targets=self.targets[probes],
            responses=self.responses[probes],
            labels=self.labels[:, probes],
            outputs=None if self.outputs is None else self.outputs[:, probes],
            groups=self.groups[probes],
        )

    def some(self, wanted: int, rng: np.random.Generator) -> Panel:
        """The same with at most so many of the probes, drawn at random; groups stay whole."""
        if wanted >= len(self.targets):
            return self
        order = rng.permutation(len(self.targets))
        numbers = np.where(self.groups < 0, -1 - np.arange(len(self.groups)), self.groups)
        chosen: list[int] = []
        for number in dict.fromkeys(numbers[order].tolist()):
            members = np.nonzero(numbers == number)[0].tolist()
            if len(chosen) + len(members) <= wanted:
                chosen += members
        return self.take(np.sort(np.array(chosen, np.int64)))

    def hard(self) -> Panel:
        """The same with labels only."""
        return replace(self, outputs=None)

    @property
    def matches(self) -> NDArray[np.bool_]:
        """(M, N) whether a model gives a probe the owner's label."""
        return np.asarray(self.labels == self.targets)
