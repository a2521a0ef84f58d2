"""Boundary probes (IPGuard: Cao, Jia, Gong: AsiaCCS 2021), with a margin that is kept after rounding.

From an image of class i, the loss relu(z_i - z_j + k) + relu(max_{t != i, j} z_t - z_i) is descended by Adam: the probe
lies on the boundary between the class it came from and class j, on j's side by k. Unlike the original, the loss is
taken at 8-bit values and the descent does not end at the first flip, so the stored probe has the margin. It is then
pulled back towards its start, which puts it as near the boundary as the margin allows.
"""

from __future__ import annotations

from typing import ClassVar

import torch

from fingerprint.errors import UsageError
from fingerprint.frozen import dataclass
from fingerprint.probes.descent import Descent, Loss, approach, descend
from fingerprint.probes.interface import Candidates, ProbeContext, ProbeFamily, settings
from fingerprint.probes.making import Maker, check_start

RUNNER_UP, RANDOM = "runner-up", "random"


@dataclass(frozen=True)
class BoundaryFamily(ProbeFamily):
    """Makes probes just inside the boundary between two classes.

    start: images to start from; target: the other class, "random" or the "runner-up" of the start; kappa: margin k in
    logit spreads; steps, rate: of Adam, in 8-bit levels (the paper: 1000 steps of 0.01 = 2.55 levels).
    """

    start: str = "auto"
    target: str = RANDOM
    kappa: float = 0.5
    steps: int = 100
    rate: float = 2.55

    name: ClassVar[str] = "boundary"
    needs_gradients: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_start(self.start)
        if self.target not in (RUNNER_UP, RANDOM) or self.kappa <= 0:
            raise UsageError(f"boundary probes: target is {RANDOM} or {RUNNER_UP}, kappa above 0")

    def generate(self, context: ProbeContext, count: int) -> Candidates:
        """See `ProbeFamily.generate`."""
        maker = Maker(context, self.name)
        seeds = maker.starts(count, self.start, "boundary")
        ranks = maker.logits(seeds).argsort(dim=1, descending=True)
        here = ranks[:, 0]
        away = torch.randint(1, context.classes, (count,), generator=maker.generator("away"))
        there = ranks[:, 1] if self.target == RUNNER_UP else (here + away) % context.classes
        margin = self.kappa * maker.spread
        loss = between(here, there, margin)
        descent = Descent(steps=self.steps, rate=self.rate, rule="adam", patience=self.steps)
        images, _ = descend(maker.owner, seeds, loss, descent, maker.generator("descent"))
        maker.step(count // 2, count)
        images = approach(maker.owner, images, seeds, loss)
        maker.step(count, count)
        return maker.candidates(images, there, ["boundary"] * count, settings(self), margin=margin)


def between(here: torch.Tensor, there: torch.Tensor, margin: float) -> Loss:
    """relu(z_i - z_j + margin) + relu(max_{t != i, j} z_t - z_i), with i = here (N,), j = there (N,).

    With two classes there is no other t, and the second term is zero.
    """

    def loss(logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        index = rows.to(here.device)
        pair = torch.stack([here[index], there[index]], dim=1).to(logits.device)
        values = logits.gather(1, pair)
        others = logits.scatter(1, pair, -torch.inf).max(1).values
        return torch.relu(values[:, 0] - values[:, 1] + margin) + torch.relu(others - values[:, 0])

    return loss
