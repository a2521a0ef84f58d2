"""A certificate per probe: how large a random change of the weights its label stands, with a stated confidence.

Certified robustness to weight perturbation (Weng et al., AAAI 2020) bounds the *worst* change by linear relaxation.
The maintained library for that does not install beside this tool's PyTorch (ADR 0009). What is given instead is a
randomised bound: for a change of every weight that is uniform in +-radius (times its tensor's RMS), the label holds
with at least `probability`, and that statement is right with at least `confidence`. It says nothing of a change
chosen against the probe.

Radii are tried in ascending order; one counts if all draws keep the label, and the first that does not ends the search.
In such a fixed sequence no correction for several tests is due. n draws without a failure reject "p < probability" at
level probability^n (Clopper-Pearson).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from fingerprint.errors import DegenerateModel, UsageError
from fingerprint.frozen import dataclass
from fingerprint.model import Images, Labels
from fingerprint.probes.gradient import DifferentiableOwner, WeightNoise

RADII = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4)  # of each tensor's RMS; 0.1 is about what 4-bit weights change


@dataclass(frozen=True)
class Certificate:
    """radius (N,): largest certified change, relative to each weight tensor's RMS, 0.0 where none is; for each probe
    the statement holds with `confidence`. draws: weight changes drawn per radius; passes: example-passes spent."""

    radius: NDArray[np.float64]
    probability: float
    confidence: float
    draws: int
    passes: int

    def summary(self) -> dict[str, float | int | str]:
        """What a public manifest says: no probe's own radius, which is secret with the probes (`Payload`)."""
        return {
            "law": "uniform, relative to tensor RMS",
            "probability": self.probability,
            "confidence": self.confidence,
            "draws": self.draws,
            "lowest": float(self.radius.min()) if len(self.radius) else 0.0,
            "median": float(np.median(self.radius)) if len(self.radius) else 0.0,
            "passes": self.passes,
        }


def draws_needed(probability: float, confidence: float) -> int:
    """Draws without a failure after which "the label holds with less than `probability`" is rejected.

    Raises:
        UsageError: one of them is not between 0 and 1.
    """
    if not (0.0 < probability < 1.0 and 0.0 < confidence < 1.0):
        raise UsageError("the probability and confidence of a certificate lie between 0 and 1")
    return max(1, math.ceil(math.log(1.0 - confidence) / math.log(probability)))


def certify(
    owner: DifferentiableOwner,
    images: Images,
    targets: Labels,
    generator: torch.Generator,
    *,
    probability: float = 0.9,
    confidence: float = 0.99,
    radii: tuple[float, ...] = RADII,
) -> Certificate:
    """Certify each probe against random changes of the owner's weights.

    Args:
        owner: the owner; its weights are changed and put back.
        images: (N, H, W, C) probes.
        targets: (N,) their labels.
        generator: decides the changes; all probes see the same ones.
        probability: with which the label holds at the certified radius.
        confidence: of the statement on each probe.
        radii: to try, relative to each tensor's RMS, ascending.

    Raises:
        UsageError: probability or confidence out of range, or radii that do not ascend.
    """
    draws, before = draws_needed(probability, confidence), owner.passes
    if list(radii) != sorted(set(radii)) or min(radii, default=1.0) <= 0:
        raise UsageError("the radii of a certificate are above zero and ascend")
    values = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    wanted = torch.from_numpy(targets)
    found, alive = np.zeros(len(images)), np.arange(len(images))
    for radius in radii:
        noise = WeightNoise(owner.module, radius, generator)
        with noise.held(), torch.no_grad():
            for _ in range(draws):
                if not len(alive):
                    break
                noise.draw()
                index = torch.from_numpy(alive)
                alive = alive[(_labels(owner, values[index]) == wanted[index]).numpy()]
        found[alive] = radius
        if not len(alive):
            break
    return Certificate(found, probability, confidence, draws, owner.passes - before)


def _labels(owner: DifferentiableOwner, images: torch.Tensor) -> torch.Tensor:
    """(N,) labels on the CPU; -1 where the changed owner answers nothing finite."""
    parts = []
    for part in torch.split(images, owner.chunk):
        try:
            parts.append(owner.logits(part).argmax(1).cpu())
        except DegenerateModel:
            parts.append(torch.full((len(part),), -1))
    return torch.cat(parts)
