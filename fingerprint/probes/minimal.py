"""Minimum-distortion and group-sparse probes by one ADMM solver (StrAttack: Xu et al., ICLR 2019; ADMM attacks).

A natural image is changed as little as the distortion allows until the owner gives another class with a margin, so a
host can't spot the probe by its noise. ADMM splits the change into d (moves against the loss, stays in the 8-bit box)
and z (proximal step of the distortion), tied by a dual u:

    z = prox(d + u),  d = box(z - u - step * gradient / |gradient|),  u = u + d - z

Every iterate z is looked at rounded to 8 bits; of those that have the margin, the one with the least distortion is
kept. The weight of the distortion adapts per probe: it grows while the probe holds and falls while it doesn't.
"""

from __future__ import annotations

from typing import ClassVar

import torch

from fingerprint.errors import UsageError
from fingerprint.frozen import dataclass
from fingerprint.probes.descent import hinge
from fingerprint.probes.interface import Candidates, ProbeContext, ProbeFamily, settings
from fingerprint.probes.intrinsic import runners_up
from fingerprint.probes.making import Maker, check_start
from fingerprint.probes.proximal import DISTORTIONS, Distortion

FIRST = {"l0": 2.0, "l1": 8.0, "l2": 20.0, "linf": 200.0, "group": 5.0}  # first weight of each distortion, 8-bit levels
FALL, RISE = 0.7, 1.15  # of the weight, after a step without and with the margin
PATIENCE = 20  # steps without a smaller distortion after which a probe that has one is left as it is


@dataclass(frozen=True)
class MinimalFamily(ProbeFamily):
    """Makes probes at the least distortion from natural images, one part of each norm.

    norms: which of l0, l1, l2, linf and group (StrAttack's blocks); start: images to start from; kappa: margin in
    logit spreads; steps: of ADMM at most; rate: l2 length of one step against the loss, as a share of the square root
    of the number of values, in 8-bit levels.
    """

    norms: tuple[str, ...] = ("l0", "l1", "l2", "linf", "group")
    start: str = "auto"
    kappa: float = 0.5
    steps: int = 60
    rate: float = 2.0

    name: ClassVar[str] = "minimal"
    needs_gradients: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_start(self.start)
        if not self.norms or not set(self.norms) <= set(DISTORTIONS) or self.kappa <= 0:
            raise UsageError("minimal probes: norms out of " + ", ".join(DISTORTIONS) + "; kappa above 0")

    def generate(self, context: ProbeContext, count: int) -> Candidates:
        """See `ProbeFamily.generate`. `kinds` names the norm that was minimised."""
        maker = Maker(context, self.name)
        seeds = maker.starts(count, self.start, "minimal")
        targets = runners_up(maker, seeds)
        images = seeds.clone()
        numbers = torch.arange(count) % len(self.norms)
        for i, norm in enumerate(self.norms):
            for rows in torch.split((numbers == i).nonzero()[:, 0], maker.owner.chunk):
                images[rows] = self._solve(maker, seeds[rows], targets[rows], norm)
            maker.step(int((numbers <= i).sum()), count)
        kinds = [self.norms[i] for i in numbers.tolist()]
        return maker.candidates(images, targets, kinds, settings(self), margin=self.kappa * maker.spread)

    def _solve(self, maker: Maker, seeds: torch.Tensor, targets: torch.Tensor, norm: str) -> torch.Tensor:
        """(N, C, H, W) rounded images with the margin and the least distortion found; the seed where none has it."""
        if not len(seeds):
            return seeds
        solver = _Admm(maker, seeds, targets, DISTORTIONS[norm], FIRST[norm], self)
        for _ in range(self.steps):
            if not solver.step():
                break
        return solver.best.cpu()


class _Admm:
    """One chunk of probes on its way to the least distortion."""

    def __init__(
        self,
        maker: Maker,
        seeds: torch.Tensor,
        targets: torch.Tensor,
        distortion: Distortion,
        first: float,
        family: MinimalFamily,
    ) -> None:
        self.owner, self.distortion = maker.owner, distortion
        self.seeds = seeds.to(self.owner.device)
        self.loss = hinge(targets, family.kappa * maker.spread)
        self.length = family.rate * seeds[0].numel() ** 0.5
        self.z, self.d, self.u = (torch.zeros_like(self.seeds) for _ in range(3))
        self.weight = torch.full((len(seeds),), first, device=self.owner.device)
        self.best, self.least = self.seeds.clone(), torch.full_like(self.weight, torch.inf)
        self.stalled = torch.zeros_like(self.weight)

    def step(self) -> bool:
        """One ADMM iteration of the probes still on their way; False where there are none."""
        rows = (self.stalled < PATIENCE).nonzero()[:, 0]
        if not len(rows):
            return False
        looked = (self.seeds[rows] + self.z[rows]).clamp_(0.0, 255.0)
        found, gradient = self.owner.loss_and_gradient(looked, lambda logits: self.loss(logits, rows))
        holds = found <= 0
        self._remember(rows, looked.round(), holds)
        self.weight[rows] *= torch.where(holds, RISE, FALL)
        size = gradient.flatten(1).norm(dim=1).clamp_min(1e-20)
        push = self.length * gradient / size[:, None, None, None]
        moved = self.seeds[rows] + self.z[rows] - self.u[rows] - push
        self.d[rows] = moved.clamp(0.0, 255.0) - self.seeds[rows]
        self.z[rows] = self.distortion.prox(self.d[rows] + self.u[rows], self.weight[rows])
        self.u[rows] += self.d[rows] - self.z[rows]
        return True

    def _remember(self, rows: torch.Tensor, images: torch.Tensor, holds: torch.Tensor) -> None:
        size = self.distortion.measure(images - self.seeds[rows])
        better = holds & (size < self.least[rows])
        self.best[rows[better]] = images[better]
        self.least[rows] = torch.where(better, size, self.least[rows])
        self.stalled[rows] = torch.where(better | self.least[rows].isinf(), 0, self.stalled[rows] + 1)
