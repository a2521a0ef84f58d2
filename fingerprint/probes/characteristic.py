"""Characteristic examples: C, RC and LTRC (Wang, Wang, Chen, Zhao, Lin: IJCAI 2021, arXiv 2105.07078).

Data-free: from a random-noise seed, gradient descent until the owner gives a random target label with a margin.
RC adds noise to the weights at every step and averages the gradient over several draws; LTRC keeps only the high
frequencies of the step. Step rule, noise law, filter position and margin are our reconstruction. A margin in units of
the spread of the owner's logits, and leaving the batch as soon as it is reached, keep the perturbation (and with it
the transfer to unrelated models) small; see docs/families.md for what each knob does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from fingerprint.errors import CreateError, UsageError
from fingerprint.model import Images
from fingerprint.probes.gradient import (
    DifferentiableOwner,
    Recipe,
    logit_spread,
    optimise,
    to_images,
    tolerated_noise,
)
from fingerprint.probes.interface import Candidates, ProbeContext, ProbeFamily
from fingerprint.probes.making import check_start, start_images
from fingerprint.probes.seeds import torch_generator

KINDS: Mapping[str, Recipe] = {
    "C": Recipe(kappa=5.0),
    "RC": Recipe(kappa=3.0, delta=0.4, draws=2),
    "LTRC": Recipe(kappa=3.0, delta=0.4, draws=2, cut=0.25),
}
SEED_SAMPLE = 64  # seeds on which the spread of the logits is measured
NOISE_SAMPLE = 16  # noise-free examples on which the weight noise that the owner stands is measured
SLACK = 0.5  # margin that a probe must keep on a compressed copy, in logit spreads: the next copy is another one
BROKEN = 0.5  # a compressed copy on which fewer probes keep their label is broken, and drives no probe further


def _changed(recipe: Recipe, values: Mapping[str, float | int | None]) -> Recipe:
    given: dict[str, Any] = {key: value for key, value in values.items() if value is not None}
    changed = replace(recipe, **given)
    positive = (changed.kappa, changed.growth, changed.rounds, changed.draws, changed.steps, changed.rate)
    if min(positive) <= 0 or not 0 <= changed.delta <= 4 or not 0 <= changed.cut < 1:
        raise UsageError(f"no characteristic probe can be made so: {given}")
    return changed


class CharacteristicFamily(ProbeFamily):
    """Makes C, RC and LTRC examples in equal parts.

    kinds: recipes by name, or names out of `KINDS`. start: images to start from (`making.start_images`). The others
    override a field of all recipes (`Recipe`): kappa, growth, rounds, steps, rate; delta and draws of those that use
    weight noise; cut of those that filter.
    """

    name: ClassVar[str] = "characteristic"
    needs_gradients: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = False

    def __init__(
        self,
        kinds: Mapping[str, Recipe] | tuple[str, ...] = tuple(KINDS),
        *,
        start: str = "uniform",
        kappa: float | None = None,
        growth: float | None = None,
        rounds: int | None = None,
        delta: float | None = None,
        draws: int | None = None,
        cut: float | None = None,
        steps: int | None = None,
        rate: float | None = None,
    ) -> None:
        check_start(start)
        if not isinstance(kinds, Mapping):
            if not kinds or not set(kinds) <= set(KINDS):
                raise UsageError(f"characteristic kinds are {'+'.join(kinds)!r}", remedy="Kinds: " + ", ".join(KINDS))
            kinds = {kind: KINDS[kind] for kind in kinds}
        noise, filtering = {"delta": delta, "draws": draws}, {"cut": cut}
        plain = {"kappa": kappa, "growth": growth, "rounds": rounds, "steps": steps, "rate": rate}
        self.start = start
        self.kinds = {
            kind: _changed(recipe, plain | (noise if recipe.delta else {}) | (filtering if recipe.cut else {}))
            for kind, recipe in kinds.items()
        }

    def generate(self, context: ProbeContext, count: int) -> Candidates:
        """See `ProbeFamily.generate`. Candidates without their target label are dropped."""
        if context.module is None:
            raise CreateError("characteristic examples need gradients, which this file can't give")
        owner = DifferentiableOwner(context.module, context.spec, context.classes, context.batches)
        spread = self._spread(owner, context)
        kinds = self._tolerated(owner, context, spread)
        names = list(kinds)
        shares = [count // len(names) + (i < count % len(names)) for i in range(len(names))]
        parts: list[tuple[Images, NDArray[np.int64]]] = []
        for kind, share in zip(names, shares, strict=True):
            parts.append(self._kind(owner, context, kind, kinds[kind], share, spread))
            context.progress.step("characteristic probes", sum(shares[: len(parts)]), count)
        images, targets = (np.concatenate(part) for part in zip(*parts, strict=True))
        if not len(images):
            raise CreateError(
                "the model gave no characteristic example its target label",
                remedy="Check the input spec; --families can choose others.",
            )
        return Candidates(
            images=images,
            targets=targets,
            kinds=tuple(kind for kind, part in zip(names, parts, strict=True) for _ in part[1]),
            passes=owner.passes,
            parameters={"kinds": {k: asdict(r) for k, r in kinds.items()}, "start": self.start},
            slack=SLACK * spread,
        )

    @staticmethod
    def _spread(owner: DifferentiableOwner, context: ProbeContext) -> float:
        """The scale of the owner's logits on seeds."""
        height, width, depth = context.spec.image_shape
        sample = min(SEED_SAMPLE, owner.chunk)
        return logit_spread(
            owner, torch.rand(sample, depth, height, width, generator=torch_generator(context.seed, "spread")) * 255.0
        )

    def _tolerated(self, owner: DifferentiableOwner, context: ProbeContext, spread: float) -> dict[str, Recipe]:
        """The recipes, with the weight noise that this owner stands."""
        largest = max((r.delta for r in self.kinds.values()), default=0.0)
        if not largest:
            return dict(self.kinds)
        height, width, depth = context.spec.image_shape
        generator, sample = torch_generator(context.seed, "noise"), min(NOISE_SAMPLE, owner.chunk)
        seeds = (torch.rand(sample, depth, height, width, generator=generator) * 255.0).round_()
        targets = torch.randint(0, context.classes, (sample,), generator=generator)
        plain = Recipe(kappa=min(r.kappa for r in self.kinds.values() if r.delta))
        images, reached = optimise(owner, seeds, targets, plain, plain.kappa * spread, generator)
        if not reached.any():
            return dict(self.kinds)
        factor = tolerated_noise(owner, images[reached], targets[reached], largest, generator) / largest
        return {kind: replace(recipe, delta=recipe.delta * factor) for kind, recipe in self.kinds.items()}

    def _kind(
        self,
        owner: DifferentiableOwner,
        context: ProbeContext,
        kind: str,
        recipe: Recipe,
        count: int,
        spread: float,
    ) -> tuple[Images, NDArray[np.int64]]:
        """Optimise `count` seeds; raise the margin only for those that a compressed copy answers differently.

        So every probe carries the smallest perturbation that survives compression: what is not needed for robustness
        would only add transfer.
        """
        generator = torch_generator(context.seed, kind)
        height, width, depth = context.spec.image_shape
        if not count:  # fewer probes than kinds
            return np.zeros((0, height, width, depth), np.uint8), np.zeros(0, np.int64)
        if self.start == "uniform":
            images = (torch.rand((count, depth, height, width), generator=generator) * 255.0).round_()
        else:
            images = start_images(context, count, self.start, kind)
        shuffled = torch.randperm(context.classes, generator=generator)
        targets = shuffled.repeat(-(-count // context.classes))[:count]  # balanced
        active, reached = torch.arange(count), torch.zeros(count, dtype=torch.bool)
        margin = recipe.kappa * spread
        for _ in range(recipe.rounds):
            for chunk in torch.split(active, owner.chunk):
                found = optimise(owner, images[chunk], targets[chunk], recipe, margin, generator)
                images[chunk], reached[chunk] = found
            survived = self._survive(context, images[active], targets[active], count, SLACK * spread)
            active = active[~survived & reached[active]]  # who did not reach this margin will not reach the next
            if not len(active):
                break
            margin *= recipe.growth
        kept = self._labelled(owner, images, targets)
        return to_images(images[kept]), targets[kept].numpy()

    @staticmethod
    @torch.no_grad()
    def _labelled(owner: DifferentiableOwner, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Whether the owner gives each probe its target label, with whatever margin, (N,)."""
        parts = [owner.logits(part).argmax(1).cpu() for part in torch.split(images, owner.chunk)]
        return torch.cat(parts) == targets

    @staticmethod
    def _survive(
        context: ProbeContext, images: torch.Tensor, targets: torch.Tensor, count: int, slack: float
    ) -> torch.Tensor:
        """Whether each probe keeps its label with `slack` on every copy that is not broken, (N,).

        Of `count` probes, those not given here survived an earlier round.
        """
        kept = context.survival(to_images(images), targets.numpy()) >= slack  # (copies, N)
        share = (kept.sum(axis=1) + count - len(images)) / count
        working = kept[share >= BROKEN]
        return torch.from_numpy(working.all(axis=0) if len(working) else np.ones(len(images), bool))
