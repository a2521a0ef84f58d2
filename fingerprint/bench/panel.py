"""What everybody answered to one family's probes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

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
    """

    family: str
    targets: Labels
    responses: Floats
    labels: NDArray[np.int64]
    outputs: Floats | None

    def take(self, probes: Index) -> Panel:
        """The same with some of the probes."""
        return replace(
            self,
            targets=self.targets[probes],
            responses=self.responses[probes],
            labels=self.labels[:, probes],
            outputs=None if self.outputs is None else self.outputs[:, probes],
        )

    def hard(self) -> Panel:
        """The same with labels only."""
        return replace(self, outputs=None)

    @property
    def matches(self) -> NDArray[np.bool_]:
        """(M, N) whether a model gives a probe the owner's label."""
        return np.asarray(self.labels == self.targets)
