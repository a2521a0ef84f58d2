"""Probes of robust features: what an adversarially trained copy should keep.

Adversarial training removes the features that small perturbations ride on (Ilyas et al., NeurIPS 2019), and with them
every probe made by small sign steps. These probes are made of what is left: from a smooth image, large steps along
gradients that are averaged over strong input noise (as randomised smoothing does: Cohen et al., ICML 2019) and freed
of high frequencies, until the owner gives the target label with a margin on every noisy look. An idea of ours, not a
published method.

Where the owner gives screen models, nets of its own from other seeds (`api.screen_models`), the same steps hold them
off: each must keep the target label below its other classes by a margin. What is left is what this training run, not
this recipe, has made of the images. Conferrable examples (Lukas et al., ICLR 2021) ask the same of models of others;
these are the owner's own, and no accuracy of theirs decides anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch

from fingerprint.errors import UsageError
from fingerprint.frozen import dataclass
from fingerprint.probes.descent import Descent, Loss, descend, hinge
from fingerprint.probes.gradient import DifferentiableOwner, logit_spread, target_margin
from fingerprint.probes.interface import Candidates, ProbeContext, ProbeFamily, settings
from fingerprint.probes.making import Maker, check_start

SPREAD_SAMPLE = 64  # images on which the spread of a screen model's logits is measured
SLACK = 0.5  # margin that a probe must keep on a compressed copy, in logit spreads


@dataclass(frozen=True)
class RobustFamily(ProbeFamily):
    """Makes probes that keep their label under strong input noise.

    start: images to start from; noise: standard deviation of the input noise, in 8-bit levels; draws: noisy looks per
    step; kappa: margin on each of them, in logit spreads; cut: share of frequencies that a step may use, from the
    lowest; steps, rate: of the descent. Beside screen models: far: margin on the owner in the place of kappa; against:
    margin by which each of them must give another label, in its own spread; weight: of each of them in the loss.
    """

    start: str = "smooth"
    noise: float = 16.0
    draws: int = 2
    kappa: float = 2.0
    cut: float = 0.5
    steps: int = 40
    rate: float = 16.0
    far: float = 4.0
    against: float = 3.0
    weight: float = 2.0

    holds_off: ClassVar[bool] = True
    name: ClassVar[str] = "robust"
    needs_gradients: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_start(self.start)
        if not 0.0 < self.noise <= 128.0 or self.draws < 1 or not 0.0 < self.cut <= 1.0:
            raise UsageError("robust probes: noise from above 0 to 128, at least 1 draw, cut from above 0 to 1")
        if min(self.kappa, self.far) <= 0 or min(self.against, self.weight) < 0:
            raise UsageError("robust probes: kappa and far above 0, against and weight at least 0")

    def generate(self, context: ProbeContext, count: int) -> Candidates:
        """See `ProbeFamily.generate`."""
        maker = Maker(context, self.name)
        seeds, targets = maker.starts(count, self.start, "robust"), maker.balanced(count, "robust")
        descent = noisy_descent(self.steps, self.rate, self.noise, self.draws, self.cut)
        if context.twins and self.weight:
            sample = maker.starts(min(SPREAD_SAMPLE, maker.owner.chunk), "uniform", "twins")
            spreads = [logit_spread(twin, sample) for twin in context.twins]
            beside = Beside(maker.owner, context.twins)
            margins = Margins(self.far, 0.0, self.against, self.weight)
            loss = apart(targets, [maker.spread, *spreads], context.classes, margins)
            images, _ = descend(beside, seeds, loss, descent, maker.generator("robust"))
            maker.owner.passes += beside.spent()
        else:
            loss = hinge(targets, self.kappa * maker.spread)
            images, _ = descend(maker.owner, seeds, loss, descent, maker.generator("robust"))
        maker.step(count, count)
        return maker.candidates(images, targets, ["robust"] * count, settings(self), slack=SLACK * maker.spread)


def noisy_descent(steps: int, rate: float, noise: float, draws: int, cut: float) -> Descent:
    """Large steps along gradients that are averaged over noisy looks and freed of the highest frequencies."""
    return Descent(steps=steps, rate=rate, rule="normal", jitter=noise, draws=draws, cut=0.0 if cut == 1.0 else -cut)


@dataclass(frozen=True)
class Margins:
    """What margins should be, each in a net's own logit spread: `far` on the owner, `along` on its kin, and below
    zero by `against` on all others. weight: of each net but the owner in the loss."""

    far: float
    along: float
    against: float
    weight: float


def apart(targets: torch.Tensor, spreads: Sequence[float], classes: int, wanted: Margins, kin: int = 0) -> Loss:
    """What the margins lack, where the logits of the owner, its `kin` and others stand side by side (`Beside`)."""

    def loss(logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        goal = targets[rows.cpu()].to(logits.device)
        own, *rest = (
            target_margin(part, goal) / spread
            for part, spread in zip(torch.split(logits, classes, dim=1), spreads, strict=True)
        )
        lacking = [torch.relu(wanted.along - margin) for margin in rest[:kin]]
        lacking += [torch.relu(margin + wanted.against) for margin in rest[kin:]]
        return torch.relu(wanted.far - own) + wanted.weight * torch.stack(lacking).sum(dim=0)

    return loss


class Beside(DifferentiableOwner):
    """The owner and other models on the same images: logits (B, K) of each, side by side."""

    def __init__(self, owner: DifferentiableOwner, others: Sequence[DifferentiableOwner]) -> None:
        super().__init__(owner.module, owner.spec, owner.classes)
        self._each = (owner, *others)
        self._before = [other.passes for other in others]

    @property
    def chunk(self) -> int:
        """How many probes all of them take at once."""
        return min(one.chunk for one in self._each)

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """(B, K (1 + others))."""
        return torch.cat([one.logits(images).to(self.device) for one in self._each], dim=1)

    def spent(self) -> int:
        """Example-passes besides the owner's forward ones: the others' forward, and everybody's backward."""
        forward = sum(one.passes - start for one, start in zip(self._each[1:], self._before, strict=True))
        return forward + self.passes * len(self._each)
