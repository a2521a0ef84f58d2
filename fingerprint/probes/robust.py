"""Probes of robust features: what an adversarially trained copy should keep.

Adversarial training removes the features that small perturbations ride on (Ilyas et al., NeurIPS 2019), and with them
every probe made by small sign steps. These probes are made of what is left: from a smooth image, large steps along
gradients that are averaged over strong input noise (as randomised smoothing does: Cohen et al., ICML 2019) and freed
of high frequencies, until the owner gives the target label with a margin on every noisy look. An idea to be measured,
not a published method.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fingerprint.errors import UsageError
from fingerprint.probes.descent import Descent, descend, hinge
from fingerprint.probes.interface import Candidates, ProbeContext, ProbeFamily, settings
from fingerprint.probes.making import Maker, check_start

SLACK = 0.5  # margin that a probe must keep on a compressed copy, in logit spreads


@dataclass(frozen=True)
class RobustFamily(ProbeFamily):
    """Makes probes that keep their label under strong input noise.

    start: images to start from; noise: standard deviation of the input noise, in 8-bit levels; draws: noisy looks per
    step; kappa: margin on each of them, in logit spreads; cut: share of frequencies that a step may use, from the
    lowest; steps, rate: of the descent.
    """

    start: str = "smooth"
    noise: float = 16.0
    draws: int = 3
    kappa: float = 2.0
    cut: float = 0.5
    steps: int = 40
    rate: float = 16.0

    name: ClassVar[str] = "robust"
    needs_gradients: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_start(self.start)
        if not 0.0 < self.noise <= 128.0 or self.draws < 1 or not 0.0 < self.cut <= 1.0:
            raise UsageError("robust probes: noise from above 0 to 128, at least 1 draw, cut from above 0 to 1")

    def generate(self, context: ProbeContext, count: int) -> Candidates:
        """See `ProbeFamily.generate`."""
        maker = Maker(context, self.name)
        seeds, targets = maker.starts(count, self.start, "robust"), maker.balanced(count, "robust")
        descent = Descent(
            steps=self.steps,
            rate=self.rate,
            rule="normal",
            jitter=self.noise,
            draws=self.draws,
            cut=0.0 if self.cut == 1.0 else -self.cut,
        )
        loss = hinge(targets, self.kappa * maker.spread)
        images, _ = descend(maker.owner, seeds, loss, descent, maker.generator("robust"))
        maker.step(count, count)
        return maker.candidates(images, targets, ["robust"] * count, settings(self), slack=SLACK * maker.spread)
