"""Composite probes at the meeting point of all boundaries, after IrisFP (CVPR 2026).

From each start the owner's answer is driven to a near-uniform one (KL divergence), which puts it near every boundary at
once; from there the members of a composite step just far enough towards one class each to have that label with a
margin. A composite is judged as a whole: how many of its labels a suspect gives, against a threshold of its own
(`decision.relations`). IrisFP's text could not be read: the targets of the members, the margins and the thresholds
(set from references at decision time, none are needed to generate) are our reconstruction.
"""

from __future__ import annotations

from typing import ClassVar

import torch

from fingerprint.errors import UsageError
from fingerprint.frozen import dataclass
from fingerprint.probes.descent import Descent, Loss, descend, hinge
from fingerprint.probes.interface import Candidates, ProbeContext, ProbeFamily, settings
from fingerprint.probes.making import Maker, check_start

NEAREST = 10  # classes between which a meeting point lies, where the model has more


@dataclass(frozen=True)
class CompositeFamily(ProbeFamily):
    """Makes groups of probes round meeting points of boundaries.

    start: images to start from; members: probes in a composite, each with a class of its own; flatness: how far the
    logits at the meeting point may lie apart, in spreads; kappa: margin of a member, in spreads; steps, rate: of the
    descents, in 8-bit levels.
    """

    start: str = "auto"
    members: int = 5
    flatness: float = 0.5
    kappa: float = 0.5
    steps: int = 80
    rate: float = 2.0

    name: ClassVar[str] = "composite"
    needs_gradients: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_start(self.start)
        if self.members < 2 or self.flatness <= 0 or self.kappa <= 0:
            raise UsageError("composite probes: at least 2 members, flatness and kappa above 0")

    def generate(self, context: ProbeContext, count: int) -> Candidates:
        """See `ProbeFamily.generate`. `groups` numbers the composites; one that lost a member is whole without it."""
        maker = Maker(context, self.name)
        members = min(self.members, context.classes, count)
        composites = max(1, count // members)
        seeds = maker.starts(composites, self.start, "composite")
        classes = maker.logits(seeds).topk(min(NEAREST, context.classes), dim=1).indices
        descent = Descent(steps=self.steps, rate=self.rate)
        points, _ = descend(
            maker.owner, seeds, level(classes, self.flatness * maker.spread), descent, maker.generator("meeting")
        )
        maker.step(composites, composites * (members + 1))
        chosen = _choose(classes, members, maker.generator("members"))
        targets, starts = chosen.flatten(), points.repeat_interleave(members, dim=0)
        margin = self.kappa * maker.spread
        images, _ = descend(maker.owner, starts, hinge(targets, margin), descent, maker.generator("steps"))
        maker.step(1, 1)
        return maker.candidates(
            images,
            targets,
            ["composite"] * len(images),
            settings(self),
            margin=margin,
            groups=torch.arange(composites).repeat_interleave(members),
        )


def level(classes: torch.Tensor, flatness: float) -> Loss:
    """KL(uniform || softmax) over `classes` (N, M), and zero once their logits lie within `flatness`.

    Logits of classes outside may not lie above them either.
    """

    def loss(logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        mine = classes[rows.to(classes.device)].to(logits.device)
        values = logits.gather(1, mine)
        outside = logits.scatter(1, mine, -torch.inf).max(1).values
        above = torch.relu(outside - values.max(1).values)
        divergence = -torch.log_softmax(values, 1).mean(1) - float(torch.log(torch.tensor(float(mine.shape[1]))))
        apart = values.max(1).values - values.min(1).values
        return torch.where((apart <= flatness) & (above <= 0), 0.0, divergence + above)

    return loss


def _choose(classes: torch.Tensor, members: int, generator: torch.Generator) -> torch.Tensor:
    """(N, members) different classes of each row, in random order."""
    ranks = torch.rand(classes.shape, generator=generator).argsort(dim=1)
    return classes.gather(1, ranks[:, :members])
