"""What every family needs: the owner, its unit of margins, images to start from, targets, and a last look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import JsonValue

from fingerprint.errors import CreateError, UsageError
from fingerprint.model import Images, Labels
from fingerprint.probes.gradient import DifferentiableOwner, logit_spread, target_margin, to_images
from fingerprint.probes.interface import Candidates, ProbeContext
from fingerprint.probes.seeds import numpy_seed, torch_generator

SEED_SAMPLE = 64  # images on which the spread of the logits is measured
STARTS = ("auto", "data", "uniform", "smooth", "flat", "blend")
SMOOTH_SIDE = 4  # smooth noise is drawn on this many points a side and magnified


class Maker:
    """One family at work: counts passes, draws from the family's seed, and builds candidates.

    Raises:
        CreateError: the file gives no gradients.
    """

    def __init__(self, context: ProbeContext, family: str) -> None:
        if context.module is None:
            raise CreateError(
                f"{family} probes need gradients, which this file can't give",
                remedy="Create from its .pt2, TorchScript or .onnx, or choose --families natural.",
            )
        self.context, self.family = context, family
        self.owner = DifferentiableOwner(context.module, context.spec, context.classes, context.batches)
        self._spread: float | None = None

    @property
    def spread(self) -> float:
        """The unit of margins: the spread of the owner's logits on uniform noise (`gradient.logit_spread`)."""
        if self._spread is None:
            height, width, depth = self.context.spec.image_shape
            sample = (min(SEED_SAMPLE, self.owner.chunk), depth, height, width)
            self._spread = logit_spread(self.owner, torch.rand(sample, generator=self.generator("spread")) * 255.0)
        return self._spread

    def generator(self, purpose: str) -> torch.Generator:
        """A CPU generator for one purpose."""
        return torch_generator(self.context.seed, purpose)

    def starts(self, count: int, kind: str, purpose: str) -> torch.Tensor:
        """(count, C, H, W) images to start from, at 8-bit levels; see `start_images`."""
        return start_images(self.context, count, kind, purpose)

    def balanced(self, count: int, purpose: str) -> torch.Tensor:
        """(count,) target labels in random order, no class twice before every class once."""
        shuffled = torch.randperm(self.context.classes, generator=self.generator(f"{purpose}/targets"))
        return shuffled.repeat(-(-count // self.context.classes))[:count]

    @torch.no_grad()
    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """(N, K) logits on the CPU, chunk by chunk."""
        if not len(images):
            return torch.zeros(0, self.context.classes)
        return torch.cat([self.owner.logits(part).cpu() for part in torch.split(images, self.owner.chunk)])

    def survived(self, images: torch.Tensor, targets: torch.Tensor, slack: float = 0.0) -> NDArray[np.float64]:
        """Share of compressed copies on which each probe keeps its label with `slack`, (N,)."""
        margins = self.context.survival(to_images(images), targets.numpy())
        return np.asarray((margins >= slack).mean(axis=0), np.float64)

    def step(self, done: int, total: int) -> None:
        """Tell how far the family is."""
        self.context.progress.step(f"{self.family} probes", done, total)

    def candidates(
        self,
        images: torch.Tensor,
        targets: torch.Tensor,
        kinds: Sequence[str],
        parameters: Mapping[str, JsonValue],
        *,
        margin: float = 0.0,
        slack: float = 0.0,
        groups: torch.Tensor | None = None,
        merit: NDArray[np.float64] | None = None,
    ) -> Candidates:
        """Those whose target label the owner gives with at least `margin`, at the values that are stored.

        Raises:
            CreateError: none does.
        """
        found = target_margin(self.logits(images), targets) if len(images) else torch.zeros(0)
        # Batches of another size sum in another order: a hair less is the same margin.
        kept = ((found > 0) & (found >= margin * (1.0 - 1e-3))).numpy()
        if not kept.any():
            raise CreateError(
                f"the model gave no {self.family} probe its target label",
                remedy="Check the input spec; --families can choose others.",
            )
        index = np.nonzero(kept)[0]
        whole = Candidates(
            images=to_images(images),
            targets=targets.numpy(),
            kinds=tuple(kinds),
            passes=self.owner.passes,
            parameters=dict(parameters),
            slack=slack,
            groups=None if groups is None else np.asarray(groups.numpy(), np.int64),
            merit=merit,
        )
        return whole.take(index)


def start_images(context: ProbeContext, count: int, kind: str, purpose: str) -> torch.Tensor:
    """Images from which probes start, (count, C, H, W) at 8-bit levels.

    kind: "uniform" noise; "smooth" noise of few points, magnified; "flat" colours; "data" (clean images, each used
    once before any twice); "blend" (means of two clean images); "auto" = data where there are some, else uniform.

    Raises:
        CreateError: the kind needs clean images and there are none.
    """
    check_start(kind)
    generator = torch_generator(context.seed, f"{purpose}/starts")
    height, width, depth = context.spec.image_shape
    if kind == "auto":
        kind = "uniform" if context.data is None or not len(context.data) else "data"
    if kind in ("data", "blend"):
        return _from_data(context, count, generator, blend=kind == "blend")
    if kind == "uniform":
        return (torch.rand(count, depth, height, width, generator=generator) * 255.0).round_()
    side = SMOOTH_SIDE if kind == "smooth" else 1
    points = torch.rand(count, depth, side, side, generator=generator) * 255.0
    size = (height, width)
    magnified = torch.nn.functional.interpolate(points, size, mode="bilinear", align_corners=False)
    return magnified.round_()


def check_start(kind: str) -> None:
    """Raises UsageError for a kind of start images that there isn't."""
    if kind not in STARTS:
        raise UsageError(f"there are no start images of kind {kind!r}", remedy="Kinds: " + ", ".join(STARTS))


def _from_data(context: ProbeContext, count: int, generator: torch.Generator, *, blend: bool) -> torch.Tensor:
    if context.data is None or not len(context.data):
        raise CreateError("there are no clean images to start from", remedy="Give --data, or choose noise.")
    first = _as_tensor(context.data.images, _cycle(len(context.data), count, generator))
    if not blend:
        return first
    second = _as_tensor(context.data.images, _cycle(len(context.data), count, generator))
    return ((first + second) / 2.0).round_()


def _cycle(size: int, count: int, generator: torch.Generator) -> Labels:
    rounds = [torch.randperm(size, generator=generator) for _ in range(-(-count // size))]
    return np.asarray(torch.cat(rounds)[:count].numpy()) if rounds else np.zeros(0, np.int64)


def _as_tensor(images: Images, index: Labels) -> torch.Tensor:
    return torch.from_numpy(images[index]).permute(0, 3, 1, 2).float().contiguous()


def numpy_generator(context: ProbeContext, purpose: str) -> np.random.Generator:
    """numpy's generator for one purpose."""
    return np.random.default_rng(numpy_seed(context.seed, purpose))
