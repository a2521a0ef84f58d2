"""Universal perturbations: one perturbation per class that sends many images there.

After universal adversarial perturbations (Moosavi-Dezfooli et al., CVPR 2017; as a fingerprint: Peng et al., CVPR 2022;
learned and source-agnostic with few shots: IJCAI 2022). The perturbation of a class is descended on all its images at
once: signed gradient summed over the images that do not yet have the class with a margin, inside an l-infinity ball.
Probes are images plus perturbation; those of one class form a group. The decision by label match is ours; the CVPR'22
paper's contrastive encoder needs soft outputs and reference models.
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import torch

from fingerprint.errors import UsageError
from fingerprint.frozen import dataclass
from fingerprint.probes.descent import Loss, hinge
from fingerprint.probes.interface import Candidates, ProbeContext, ProbeFamily, settings
from fingerprint.probes.making import Maker, check_start


@dataclass(frozen=True)
class UniversalFamily(ProbeFamily):
    """Makes images that one perturbation per class sends to that class.

    start: images; images: how many share a perturbation; radius: largest change of a value, in 8-bit levels; kappa:
    margin in logit spreads; steps, rate: of the descent, in levels.
    """

    start: str = "auto"
    images: int = 10
    radius: float = 24.0
    kappa: float = 0.5
    steps: int = 60
    rate: float = 4.0

    name: ClassVar[str] = "universal"
    needs_gradients: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_start(self.start)
        if self.images < 1 or not 1.0 <= self.radius <= 255.0 or self.kappa <= 0:
            raise UsageError("universal probes: at least 1 image, radius from 1 to 255, kappa above 0")

    def generate(self, context: ProbeContext, count: int) -> Candidates:
        """See `ProbeFamily.generate`. `groups` numbers the perturbations."""
        maker = Maker(context, self.name)
        number = -(-count // self.images)
        groups = torch.arange(count) // self.images
        targets = maker.balanced(number, "universal")[groups]
        seeds = maker.starts(count, self.start, "universal")
        images = self._perturbed(maker, seeds, targets, groups, number)
        kinds = ["universal"] * count
        return maker.candidates(images, targets, kinds, settings(self), margin=self.kappa * maker.spread, groups=groups)

    def _perturbed(
        self, maker: Maker, seeds: torch.Tensor, targets: torch.Tensor, groups: torch.Tensor, number: int
    ) -> torch.Tensor:
        """(N, C, H, W) images, each with the perturbation of its group; a group that is through leaves the batch."""
        loss = hinge(targets, self.kappa * maker.spread)
        delta = torch.zeros(number, *seeds.shape[1:])
        short = torch.ones(number, dtype=torch.bool)  # groups with an image that is not there yet
        for step in range(self.steps):
            total, still = torch.zeros_like(delta), torch.zeros_like(short)
            for rows in torch.split(short[groups].nonzero()[:, 0], maker.owner.chunk):
                mine = groups[rows]
                perturbed = (seeds[rows] + delta[mine]).clamp_(0.0, 255.0)
                found, gradient = maker.owner.loss_and_gradient(perturbed, partial(_rows_of, loss, rows))
                still[mine[found.cpu() > 0]] = True
                total.index_add_(0, mine, gradient.cpu())
            short = still
            if not short.any():
                break
            rate = self.rate * (1.0 - 0.9 * step / self.steps)
            moved = (delta - rate * total.sign()).clamp_(-self.radius, self.radius)
            delta = torch.where(short.view(-1, 1, 1, 1), moved, delta)
            maker.step(step + 1, self.steps)
        return (seeds + delta[groups]).clamp_(0.0, 255.0).round_()


def _rows_of(loss: Loss, rows: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    return loss(logits, rows)
