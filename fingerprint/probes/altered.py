"""Altered copies of an owner, made in memory: what integrity probes should notice.

Small stand-ins for tampering: faults (a few weights of one tensor take an extreme value, as after a flipped bit:
Rakin et al., ICCV 2019), tuning (normalised gradient steps on shuffled labels, as transfer learning or a backdoor
begins) and drift (noise on all weights beyond what compression does). They only rank probes; they calibrate nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from fingerprint.errors import DegenerateModel
from fingerprint.frozen import dataclass
from fingerprint.probes.gradient import DifferentiableOwner, WeightNoise

SAMPLE = 64  # images that tuning steps look at


@dataclass(frozen=True)
class Alterations:
    """How many copies of each kind, and how far they go.

    faults: copies with faults; fault_share: share of one tensor's weights that take its extreme value; tuned: copies
    after `tuning_steps` steps of `tuning_rate` of each tensor's RMS; drifts: copies with weight noise `drift`.
    """

    faults: int = 3
    fault_share: float = 0.01
    tuned: int = 3
    tuning_steps: int = 4
    tuning_rate: float = 0.03
    drifts: int = 2
    drift: float = 0.3


class AlteredCopies:
    """Alters the owner's module in place, asks it, and puts it back."""

    def __init__(self, owner: DifferentiableOwner, alterations: Alterations, generator: torch.Generator) -> None:
        self._owner, self._alterations, self._generator = owner, alterations, generator
        self._noise = WeightNoise(owner.module, alterations.drift, generator)

    def changed(self, images: torch.Tensor, targets: torch.Tensor, seeds: torch.Tensor) -> NDArray[np.bool_]:
        """(copies, N): whether each altered copy gives another label than `targets` (N,) to `images` (N, C, H, W).

        An answer that is not finite is another one. seeds (M, C, H, W): what tuning looks at.
        """
        rows = [np.zeros((0, len(images)), np.bool_)]
        sample = seeds[: min(SAMPLE, self._owner.chunk)]
        for alter in self._alterations_of(sample):
            with self._noise.held():
                alter()
                rows.append((self._labels(images) != targets).numpy()[None])
        return np.concatenate(rows)

    def _alterations_of(self, sample: torch.Tensor) -> list[Callable[[], None]]:
        wanted = self._alterations
        tune = partial(self._tune, sample)
        return [self._fault] * wanted.faults + [tune] * wanted.tuned + [self._noise.draw] * wanted.drifts

    @torch.no_grad()
    def _labels(self, images: torch.Tensor) -> torch.Tensor:
        """(N,) labels on the CPU, -1 where the copy answers nothing finite."""
        parts = []
        for part in torch.split(images, self._owner.chunk):
            try:
                parts.append(self._owner.logits(part).argmax(1).cpu())
            except DegenerateModel:
                parts.append(torch.full((len(part),), -1))
        return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.int64)

    @torch.no_grad()
    def _fault(self) -> None:
        weights = self._noise.weights
        if not weights:
            return
        chosen = weights[int(torch.randint(len(weights), (), generator=self._generator))]
        count = max(1, round(self._alterations.fault_share * chosen.numel()))
        places = torch.randperm(chosen.numel(), generator=self._generator)[:count].to(chosen.device)
        values = chosen.detach().clone().flatten()
        extreme = values.abs().max()
        values[places] = torch.where(values[places] > 0, -extreme, extreme)
        chosen.data.copy_(values.view(chosen.shape))

    def _tune(self, sample: torch.Tensor) -> None:
        """Signed steps would be compression noise; these have the shape of a training step."""
        labels = torch.randint(0, self._owner.classes, (len(sample),), generator=self._generator).to(self._owner.device)

        def loss() -> torch.Tensor:
            return torch.nn.functional.cross_entropy(self._owner.logits(sample), labels)

        for _ in range(self._alterations.tuning_steps):
            self._owner.passes += len(sample)  # the backward pass
            with torch.no_grad():
                for weight, gradient in zip(self._noise.weights, self._noise.gradients(loss), strict=True):
                    if gradient is not None:
                        size = weight.square().mean().sqrt() / gradient.square().mean().sqrt().clamp_min(1e-20)
                        weight.data.sub_(self._alterations.tuning_rate * size * gradient)
