"""Trajectory probes: ordered walks through several classes, after ADV-TRA (NeurIPS 2024).

A trajectory leads from a start through a random tour of classes. Each leg ends at a waypoint, where the owner gives
the next class with a margin, and adds the crossing before it: the point of the leg nearest to where it came from that
has the new class already, with a smaller margin. A suspect is compared label by label along the walk
(`decision.relations`). Length of a leg, margins and the pair of points per leg are our reconstruction.
"""

from __future__ import annotations

from typing import ClassVar

import torch

from fingerprint.errors import UsageError
from fingerprint.frozen import dataclass
from fingerprint.probes.descent import Descent, approach, descend, hinge
from fingerprint.probes.interface import Candidates, ProbeContext, ProbeFamily, settings
from fingerprint.probes.making import Maker, check_start

CROSSING = 0.25  # margin of a crossing, as a share of a waypoint's


@dataclass(frozen=True)
class TrajectoryFamily(ProbeFamily):
    """Makes ordered groups of probes along walks through classes.

    start: images to start from; legs: classes on the way, two probes each; kappa: margin of a waypoint, in logit
    spreads; steps, rate: of each leg, in 8-bit levels.
    """

    start: str = "auto"
    legs: int = 4
    kappa: float = 1.0
    steps: int = 60
    rate: float = 4.0

    name: ClassVar[str] = "trajectory"
    needs_gradients: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_start(self.start)
        if self.legs < 2 or self.kappa <= 0:
            raise UsageError("trajectory probes: at least 2 legs, kappa above 0")

    def generate(self, context: ProbeContext, count: int) -> Candidates:
        """See `ProbeFamily.generate`. `groups` numbers the trajectories; their probes lie in walking order."""
        maker = Maker(context, self.name)
        legs = max(1, min(self.legs, count // 2))
        number = max(1, count // (2 * legs))
        here = maker.starts(number, self.start, "trajectory")
        tour = tours(maker.logits(here).argmax(1), legs, context.classes, maker.generator("tours"))
        margin = self.kappa * maker.spread
        descent = Descent(steps=self.steps, rate=self.rate)
        points = []
        for leg in range(legs):
            goal = tour[:, leg]
            there, _ = descend(maker.owner, here, hinge(goal, margin), descent, maker.generator(f"leg {leg}"))
            points += [approach(maker.owner, there, here, hinge(goal, CROSSING * margin)), there]
            here = there
            maker.step(leg + 1, legs)
        return maker.candidates(
            torch.stack(points, dim=1).flatten(0, 1)[:count],
            tour.repeat_interleave(2, dim=1).flatten()[:count],
            (["crossing", "waypoint"] * (number * legs))[:count],
            settings(self),
            margin=CROSSING * margin,
            groups=torch.arange(number).repeat_interleave(2 * legs)[:count],
        )


def tours(first: torch.Tensor, legs: int, classes: int, generator: torch.Generator) -> torch.Tensor:
    """(N, legs) classes to visit from `first` (N,), no class twice in a row, each once before any twice."""
    rows = []
    for start in first.tolist():
        tour = [start]
        while len(tour) <= legs:
            others = torch.randperm(classes, generator=generator).tolist()
            fresh = [c for c in others if c not in tour] or others
            tour += fresh if fresh[0] != tour[-1] else fresh[::-1]
        rows.append(tour[1 : legs + 1])
    return torch.tensor(rows, dtype=torch.int64).reshape(len(rows), legs)
