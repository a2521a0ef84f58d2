"""Intrinsic examples (Wang, Zhao, Wang, Chin, Wahl, Fei, Chen, Lin: BMVC 2021): is the function still the released one?

They sit just inside a decision boundary of the owner: the owner's own compression leaves their label alone, while
transfer learning, faults and backdoors move the boundary over them. From a clean image (or noise) the nearest other
class is reached with a small margin, and the probe is then pulled back towards where it came from. Three kinds:
"plain"; "minmax", which holds the margin under the worst small change of the weights; "mean", whose gradient and margin
are taken over random weight noise. The three objectives, the ladder of margins and the altered copies that rank the
probes are our reconstruction: the paper's are not public.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from fingerprint.errors import UsageError
from fingerprint.frozen import dataclass
from fingerprint.probes.altered import Alterations, AlteredCopies
from fingerprint.probes.descent import Descent, approach, descend, hinge
from fingerprint.probes.gradient import target_margin
from fingerprint.probes.interface import Candidates, ProbeContext, ProbeFamily, settings
from fingerprint.probes.making import Maker, check_start

KINDS = ("plain", "minmax", "mean")
HALVINGS = 12  # of the way back to where a probe came from: to a few of its values
SHARE_ALTERED = 1.0  # what noticing every altered copy is worth, against surviving every compressed one


@dataclass(frozen=True)
class IntrinsicFamily(ProbeFamily):
    """Makes plain, min-max and mean-gradient intrinsic examples in equal parts.

    kinds: which; start: images to start from (`making.start_images`); margins: the ladder of margins, in spreads of
    the owner's logits, that probes take in turn: low rungs notice more, high rungs survive more; delta: weight change
    relative to each tensor's RMS that "minmax" and "mean" hold against; draws: noise draws of "mean"; steps, rate: of
    the descent, in 8-bit levels.
    """

    kinds: tuple[str, ...] = KINDS
    start: str = "auto"
    margins: tuple[float, ...] = (0.3, 0.8, 1.5)
    delta: float = 0.05
    draws: int = 2
    steps: int = 40
    rate: float = 2.0

    name: ClassVar[str] = "intrinsic"
    needs_gradients: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = False
    purpose: ClassVar[Literal["lineage", "integrity"]] = "integrity"

    def __post_init__(self) -> None:
        check_start(self.start)
        if not self.kinds or not set(self.kinds) <= set(KINDS):
            raise UsageError(f"intrinsic kinds are {'+'.join(self.kinds)!r}", remedy="Kinds: " + ", ".join(KINDS))
        if not self.margins or min(self.margins) <= 0:
            raise UsageError("the margins of intrinsic probes are above zero")

    def generate(self, context: ProbeContext, count: int) -> Candidates:
        """See `ProbeFamily.generate`. `merit` is the share of altered copies that change a probe's label."""
        maker = Maker(context, self.name)
        seeds = maker.starts(count, self.start, "intrinsic")
        targets = runners_up(maker, seeds)
        numbers = torch.arange(count)
        margins = torch.tensor(self.margins)[numbers // len(self.kinds) % len(self.margins)] * maker.spread
        images = seeds.clone()
        for i, kind in enumerate(self.kinds):
            mine = numbers % len(self.kinds) == i
            images[mine] = self._kind(maker, kind, seeds[mine], targets[mine], margins[mine])
            maker.step(int((numbers % len(self.kinds) <= i).sum()), count)
        found = AlteredCopies(maker.owner, Alterations(), maker.generator("altered"))
        changed = found.changed(images, targets, seeds)
        merit: NDArray[np.float64] = SHARE_ALTERED * changed.mean(axis=0)
        parameters = {**settings(self), "purpose": self.purpose, "altered": settings(Alterations())}
        return maker.candidates(
            images, targets, [self.kinds[i % len(self.kinds)] for i in range(count)], parameters, merit=merit
        )

    def _kind(
        self, maker: Maker, kind: str, seeds: torch.Tensor, targets: torch.Tensor, margins: torch.Tensor
    ) -> torch.Tensor:
        """(N, C, H, W) probes of one kind: over the boundary, then back as far as the margin allows."""
        descent = Descent(
            steps=self.steps,
            rate=self.rate,
            delta=0.0 if kind == "plain" else self.delta,
            weights="worst" if kind == "minmax" else "mean",
            draws=self.draws if kind == "mean" else 1,
        )
        images, _ = descend(maker.owner, seeds, hinge(targets, margins), descent, maker.generator(kind))
        # The margin was held on changed weights; on the owner's own, where it is larger, half of it may be given back.
        least = margins if kind == "plain" else _held(maker, images, targets, margins)
        return approach(maker.owner, images, seeds, hinge(targets, least), HALVINGS, maker.generator("dither"))


def runners_up(maker: Maker, seeds: torch.Tensor) -> torch.Tensor:
    """(N,) the class that the owner ranks second on each image: the nearest boundary, as far as logits tell."""
    return maker.logits(seeds).topk(2, dim=1).indices[:, 1]


def _held(maker: Maker, images: torch.Tensor, targets: torch.Tensor, margins: torch.Tensor) -> torch.Tensor:
    """The margin that a probe keeps on the owner's own weights when it is pulled back."""
    own = target_margin(maker.logits(images), targets)
    return torch.maximum(margins, (own + margins) / 2.0)
