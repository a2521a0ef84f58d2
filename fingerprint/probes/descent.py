"""The loop that gradient-made families share: descend a per-probe loss over 8-bit images until it is zero.

Vectorised over probes. The loss is taken at *rounded* values, so what is returned keeps whatever margin the loss asks
for. A probe leaves the batch when its loss is zero (on every draw of weight or input noise) or no longer falls.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Literal

import torch

from fingerprint.frozen import dataclass
from fingerprint.probes.gradient import DifferentiableOwner, HighPass, WeightNoise, target_margin

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # logits (B, K), rows (B,) among the seeds -> (B,)
Rule = Literal["sign", "adam", "normal"]
Weights = Literal["mean", "worst"]


@dataclass(frozen=True)
class Descent:
    """How to descend.

    steps: at most; rate: step in 8-bit levels, falling linearly to a tenth; rule: "sign" of the gradient, "adam", or
    "normal" (gradient over its largest entry); patience: steps without a lower loss after which a probe is left as it
    is; delta: weight noise relative to each tensor's RMS; weights: how it is used, "mean" gradient over `draws` or the
    "worst" direction; jitter: standard deviation of input noise in 8-bit levels, `draws` of it; cut: share of low
    frequencies removed from the step (negative: share of *high* ones); radius: largest change of a value, in levels.
    """

    steps: int = 60
    rate: float = 4.0
    rule: Rule = "sign"
    patience: int = 20
    delta: float = 0.0
    weights: Weights = "mean"
    draws: int = 1
    jitter: float = 0.0
    cut: float = 0.0
    radius: float | None = None


def hinge(targets: torch.Tensor, margin: torch.Tensor | float) -> Loss:
    """relu(margin - (z_t - max_{j != t} z_j)); targets (N,), margin () or (N,)."""
    wanted = torch.as_tensor(margin, dtype=torch.float32).expand(len(targets))

    def loss(logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        index = rows.to(targets.device)
        goal, least = targets[index].to(logits.device), wanted[index.to(wanted.device)].to(logits.device)
        return torch.relu(least - target_margin(logits, goal))

    return loss


def descend(
    owner: DifferentiableOwner, seeds: torch.Tensor, loss: Loss, descent: Descent, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Descend `loss` from `seeds` (N, C, H, W) inside [0, 255], in chunks that the owner takes.

    Returns:
        images (N, C, H, W) at 8-bit levels and their loss (N,), zero where the probe is as wanted. Both on the CPU.
    """
    if not len(seeds):
        return seeds.clone(), torch.zeros(0)
    images, losses = [], []
    for rows in torch.split(torch.arange(len(seeds)), owner.chunk):
        walk = _Walk(owner, seeds[rows], rows, loss, descent, generator)
        image, value = walk.run()
        images.append(image.cpu())
        losses.append(value.cpu())
    return torch.cat(images), torch.cat(losses)


@torch.no_grad()
def approach(
    owner: DifferentiableOwner,
    inside: torch.Tensor,
    outside: torch.Tensor,
    loss: Loss,
    halvings: int = 6,
    dither: torch.Generator | None = None,
) -> torch.Tensor:
    """The rounded images on the segments from `inside` (N, C, H, W), loss zero, that lie nearest to `outside`.

    Bisection, forward passes only. What is returned has loss zero wherever `inside` has. After steps of the sign all
    values are equally far from where they came from, and round over at the same few points of the segment: the loss
    then falls in leaps of many nats. With `dither` each value has a threshold of its own, and it falls value by value.
    """
    if not len(inside):
        return inside.clone()
    threshold = torch.rand(inside.shape[1:], generator=dither) if dither else torch.full(inside.shape[1:], 0.5)
    threshold = threshold.clamp(1e-3, 1.0 - 1e-3).to(owner.device)
    parts = []
    for rows in torch.split(torch.arange(len(inside)), owner.chunk):
        near, far = inside[rows].to(owner.device), outside[rows].to(owner.device)
        low, high = torch.zeros(len(rows), device=owner.device), torch.ones(len(rows), device=owner.device)
        best = near.round()
        for _ in range(halvings):
            middle = (low + high) / 2.0
            value = torch.lerp(near, far, middle.view(-1, 1, 1, 1))
            tried = value.round() if dither is None else (value + threshold).floor()
            good = loss(owner.logits(tried), rows) <= 0
            best[good] = tried[good]
            low, high = torch.where(good, middle, low), torch.where(good, high, middle)
        parts.append(best.cpu())
    return torch.cat(parts)


class _Walk:
    """One chunk on its way."""

    def __init__(
        self,
        owner: DifferentiableOwner,
        seeds: torch.Tensor,
        rows: torch.Tensor,
        loss: Loss,
        descent: Descent,
        generator: torch.Generator,
    ) -> None:
        self.owner, self.descent, self.loss, self.generator = owner, descent, loss, generator
        self.rows = rows.to(owner.device)
        self.seeds = seeds.to(owner.device)
        self.images = self.seeds.clone()
        self.best = self.images.round()
        self.lowest = torch.full((len(rows),), torch.inf, device=owner.device)
        self.stalled = torch.zeros_like(self.rows)
        self.noise = WeightNoise(owner.module, descent.delta, generator) if descent.delta else None
        cut = abs(descent.cut)
        self.filter = HighPass(seeds.shape[2], seeds.shape[3], cut, owner.device) if cut else None
        self.moments = (torch.zeros_like(self.images), torch.zeros_like(self.images))

    def run(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The best images and their losses."""
        for step in range(self.descent.steps):
            active = ((self.lowest > 0) & (self.stalled < self.descent.patience)).nonzero()[:, 0]
            if not len(active):
                break
            loss, gradient = self._gradient(active)
            self._remember(active, loss)
            moving = loss > 0
            self._move(active[moving], gradient[moving], step)
        return self.best, self.lowest

    def _gradient(self, active: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Highest loss over the draws (B,), and the gradient averaged over them."""
        images, rows, draws = self.images[active], self.rows[active], self.descent.draws
        highest = torch.full((len(active),), -torch.inf, device=images.device)
        total = torch.zeros_like(images)
        with self.noise.held() if self.noise else nullcontext():
            for _ in range(draws):
                if self.noise and self.descent.weights == "worst":
                    self.noise.worst(lambda: self._whole_loss(images, rows))
                elif self.noise:
                    self.noise.draw()
                loss, gradient = self.owner.loss_and_gradient(self._jittered(images), lambda z: self.loss(z, rows))
                highest = torch.maximum(highest, loss)
                total.add_(gradient, alpha=1.0 / draws)
        return highest, total

    def _whole_loss(self, images: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """What the worst weights raise: of probes that are as wanted, too, so a margin is not given up for another.

        One perturbation for the whole chunk: each probe faces an adversary that also looks at the others.
        """
        self.owner.passes += len(images)  # the backward pass
        logits = self.owner.logits(images.round())
        return self.loss(logits, rows).sum()

    def _jittered(self, images: torch.Tensor) -> torch.Tensor:
        if not self.descent.jitter:
            return images
        noise = torch.randn(images.shape, generator=self.generator).to(images.device)
        return (images + self.descent.jitter * noise).clamp_(0.0, 255.0)

    def _remember(self, active: torch.Tensor, loss: torch.Tensor) -> None:
        better = loss < self.lowest[active]
        self.best[active[better]] = self.images[active[better]].round()
        self.stalled[active] = torch.where(better, 0, self.stalled[active] + 1)
        self.lowest[active] = torch.minimum(loss, self.lowest[active])

    def _move(self, moving: torch.Tensor, gradient: torch.Tensor, step: int) -> None:
        descent = self.descent
        if self.filter:
            high = self.filter(gradient)
            gradient = high if descent.cut > 0 else gradient - high
        rate = descent.rate * (1.0 - 0.9 * step / descent.steps)
        images = self.images[moving] - rate * self._direction(moving, gradient, step)
        if descent.radius is not None:
            seeds = self.seeds[moving]
            images = torch.minimum(torch.maximum(images, seeds - descent.radius), seeds + descent.radius)
        self.images[moving] = images.clamp_(0.0, 255.0)

    def _direction(self, moving: torch.Tensor, gradient: torch.Tensor, step: int) -> torch.Tensor:
        if self.descent.rule == "sign":
            return gradient.sign()
        if self.descent.rule == "normal":
            return gradient / gradient.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-20)
        first, second = self.moments
        scale = gradient.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-20)
        gradient = gradient / scale  # Adam's epsilon has a scale of its own
        first[moving] = 0.9 * first[moving] + 0.1 * gradient
        second[moving] = 0.999 * second[moving] + 0.001 * gradient.square()
        mean = first[moving] / (1.0 - 0.9 ** (step + 1))
        deviation = (second[moving] / (1.0 - 0.999 ** (step + 1))).sqrt()
        return mean / (deviation + 1e-8)
