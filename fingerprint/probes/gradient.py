"""Differentiable owners: 8-bit images to logits, weight noise, and the optimisation loop of gradient-made probes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch

from fingerprint.errors import CreateError, DegenerateModel
from fingerprint.frozen import dataclass
from fingerprint.model import Images, InputSpec

CHUNK_PIXELS = 6_000_000  # values in one optimisation batch: 128 CIFAR images are 0.4 M, 40 ImageNet images are 6 M
CHUNK_PROBES = 128
NOISE_HALVINGS = 6  # of the weight noise, at most
NOISE_DRAWS = 8
PATIENCE = 20  # steps without a better margin after which a probe is left as it is


class RoundStraightThrough(torch.autograd.Function):
    """Round to 8 bits in the forward pass, identity in the backward pass."""

    @staticmethod
    def forward(ctx: object, value: torch.Tensor) -> torch.Tensor:
        """Nearest integer."""
        return value.round()

    @staticmethod
    def backward(ctx: object, *gradients: torch.Tensor) -> torch.Tensor:
        """Pass the gradient through."""
        return gradients[0]


class DifferentiableOwner:
    """The owner as a function of 8-bit images in [0, 255], (B, C, H, W), to logits (B, K). Counts example-passes.

    Computes on the device of the module's weights; images may come from any.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        spec: InputSpec,
        classes: int,
        batches: tuple[int, int | None] = (1, None),
    ) -> None:
        self.module = module
        self._fewest, self._most = batches  # batch sizes that the module takes
        self.spec = spec
        self.classes = classes
        self.passes = 0
        first = next(itertools.chain(module.parameters(), module.buffers()), None)
        self.device = torch.device("cpu") if first is None else first.device
        low, high = spec.range
        # in canonical channel order; `_to_input` reorders
        mean, std = torch.tensor(spec.mean), torch.tensor(spec.std)
        if spec.channels == "BGR":
            mean, std = mean.flip(0), std.flip(0)
        self._scale = ((high - low) / 255.0 / std).view(1, -1, 1, 1).float().to(self.device)
        self._shift = ((low - mean) / std).view(1, -1, 1, 1).float().to(self.device)
        self._probabilities: bool | None = None

    @property
    def chunk(self) -> int:
        """How many probes one optimisation batch holds."""
        size = max(1, min(CHUNK_PROBES, CHUNK_PIXELS // math.prod(self.spec.shape)))
        return size if self._most is None else min(size, self._most)

    def _to_input(self, images: torch.Tensor) -> torch.Tensor:
        value: torch.Tensor = torch.addcmul(self._shift, images.to(self.device), self._scale)
        if self.spec.channels == "BGR":
            value = value.flip(1)
        return value if self.spec.layout == "NCHW" else value.permute(0, 2, 3, 1)

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """(B, K) logits of common classes; log-probabilities where the model answers probabilities."""
        self.passes += len(images)
        value, count = self._to_input(images), len(images)
        if count < self._fewest:
            value = torch.cat([value, value[:1].expand(self._fewest - count, *value.shape[1:])])
        answer = self.module(value)
        if isinstance(answer, dict):
            answer = list(answer.values())
        output: torch.Tensor = answer[0] if isinstance(answer, (tuple, list)) else answer
        offset = self.spec.class_offset
        output = output[:count].flatten(1)[:, offset : offset + self.classes]
        if self._probabilities is None:
            total = output.detach().sum(1)
            self._probabilities = bool(output.min() >= 0) and bool(((total - 1.0).abs() < 0.02).all())
        if not bool(torch.isfinite(output.detach()).all()):
            raise DegenerateModel("the model answers NaN or infinity")
        return output.clamp_min(1e-30).log() if self._probabilities else output

    def margin_and_gradient(
        self, images: torch.Tensor, targets: torch.Tensor, kappa: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Margin z_t - max_{j != t} z_j (B,) of the rounded images, and the gradient of relu(kappa - margin)."""
        margins: list[torch.Tensor] = []

        def short_of(logits: torch.Tensor) -> torch.Tensor:
            margins.append(target_margin(logits, targets))
            return torch.relu(kappa - margins[0])

        _, gradient = self.loss_and_gradient(images, short_of)
        return margins[0].detach(), gradient

    def loss_and_gradient(
        self, images: torch.Tensor, loss: Callable[[torch.Tensor], torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`loss` (B, K) -> (B,) of the logits of the rounded images, and its gradient (B, C, H, W)."""
        value = images.detach().to(self.device).requires_grad_()
        found = loss(self.logits(RoundStraightThrough.apply(value)))  # type: ignore[no-untyped-call]
        self.passes += len(images)  # the backward pass
        (gradient,) = torch.autograd.grad(found.sum(), value)
        return found.detach(), gradient


def target_margin(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """z_t - max_{j != t} z_j, (B,)."""
    own = logits.gather(1, targets[:, None])[:, 0]
    others = logits.scatter(1, targets[:, None], -torch.inf).max(1).values
    return own - others


class WeightNoise:
    """Uniform noise on weight tensors (two or more dimensions): U(-delta, delta) times each tensor's RMS.

    The law and the per-layer scaling are our reconstruction of RC-examples (arXiv 2105.07078 gives a bound only).
    """

    def __init__(self, module: torch.nn.Module, delta: float, generator: torch.Generator) -> None:
        tensors = [*module.parameters(), *module.buffers()]
        self.weights = [t for t in tensors if t.is_floating_point() and t.ndim >= 2]
        self._clean = [w.detach().clone() for w in self.weights]
        self._amplitude = [delta * float(w.square().mean().sqrt()) for w in self._clean]
        self._generator = generator

    @contextmanager
    def held(self) -> Iterator[None]:
        """Whatever happens inside, the weights are the clean ones afterwards."""
        try:
            yield
        finally:
            self._write([None] * len(self._clean))

    def draw(self) -> None:
        """Perturb all weights afresh."""
        self._write([self._uniform(w).to(w.device) for w in self._clean])

    def worst(self, loss: Callable[[], torch.Tensor]) -> None:
        """Move every weight by its amplitude in the direction that raises `loss` () (one signed ascent step)."""
        self._write([None] * len(self._clean))
        self._write([None if g is None else g.sign() for g in self.gradients(loss)])

    def gradients(self, loss: Callable[[], torch.Tensor]) -> list[torch.Tensor | None]:
        """Gradient of `loss` () to each weight tensor as it is now; None for one that has no part in it."""
        if not self.weights:
            return []
        wanted = [w.requires_grad for w in self.weights]
        try:
            for weight in self.weights:
                weight.requires_grad_(True)
            with torch.enable_grad():
                return list(torch.autograd.grad(loss(), self.weights, allow_unused=True))
        finally:
            for weight, before in zip(self.weights, wanted, strict=True):
                weight.requires_grad_(before)

    def _uniform(self, weight: torch.Tensor) -> torch.Tensor:
        """Drawn on the CPU, so that one seed gives the same noise on every device."""
        return torch.empty(weight.shape, dtype=weight.dtype).uniform_(-1.0, 1.0, generator=self._generator)

    @torch.no_grad()
    def _write(self, noise: list[torch.Tensor | None]) -> None:
        for weight, clean, amplitude, value in zip(self.weights, self._clean, self._amplitude, noise, strict=True):
            weight.copy_(clean) if value is None else torch.add(clean, value, alpha=amplitude, out=weight.data)


def dct_matrix(size: int) -> torch.Tensor:
    """Orthonormal DCT-II matrix (size, size)."""
    k = torch.arange(size, dtype=torch.float32)
    matrix = torch.cos(torch.pi * (k[None] + 0.5) * k[:, None] / size) * math.sqrt(2.0 / size)
    matrix[0] /= math.sqrt(2.0)
    return matrix


class HighPass:
    """Zeroes the low-frequency corner (share `cut` of each axis) of the DCT of (B, C, H, W)."""

    def __init__(self, height: int, width: int, cut: float, device: torch.device | None = None) -> None:
        self._rows, self._columns = dct_matrix(height).to(device), dct_matrix(width).to(device)
        self._mask = torch.ones(height, width, device=device)
        self._mask[: round(cut * height), : round(cut * width)] = 0.0

    def __call__(self, value: torch.Tensor) -> torch.Tensor:
        """The filtered images."""
        spectrum = self._rows @ value @ self._columns.T
        return self._rows.T @ (self._mask * spectrum) @ self._columns


@dataclass(frozen=True)
class Recipe:
    """How one kind of gradient-made probe is optimised.

    kappa: margin to reach at first, in units of the spread of the owner's logits; growth, rounds: the margin is
    raised by this factor, so many times at most, for probes that a compressed copy answers differently; delta: weight
    noise relative to each tensor's RMS, halved for owners that it breaks (`tolerated_noise`); draws: gradient mean over
    so many noise draws; cut: share of low frequencies removed from the step; steps: at most, per round; rate: sign
    step in 8-bit levels, falling linearly to a tenth.
    """

    kappa: float
    growth: float = 1.5
    rounds: int = 3
    delta: float = 0.0
    draws: int = 1
    cut: float = 0.0
    steps: int = 60
    rate: float = 4.0


def logit_spread(owner: DifferentiableOwner, images: torch.Tensor) -> float:
    """Standard deviation of centred logits over seeds and classes: the scale-free unit of margins."""
    with torch.no_grad():
        logits = owner.logits(images.round())
    spread = float((logits - logits.mean(1, keepdim=True)).std())
    if not math.isfinite(spread) or spread <= 1e-9:
        raise CreateError("the model's answers do not depend on its input", remedy="Check the model file and its spec.")
    return spread


def tolerated_noise(
    owner: DifferentiableOwner, images: torch.Tensor, targets: torch.Tensor, delta: float, generator: torch.Generator
) -> float:
    """`delta` halved until `images` (B, C, H, W) keep their labels `targets` (B,) under it more often than not.

    That is half-way between guessing and always.

    Depthwise networks (MobileNet) stand a quarter of the noise that residual ones do: noise that breaks the owner
    tells the optimisation nothing about the owner's neighbours.
    """
    for _ in range(NOISE_HALVINGS):
        noise, kept = WeightNoise(owner.module, delta, generator), 0.0
        with noise.held(), torch.no_grad():
            for _ in range(NOISE_DRAWS):
                noise.draw()
                kept += (
                    float((target_margin(owner.logits(images), targets.to(owner.device)) > 0).float().mean())
                    / NOISE_DRAWS
                )
        if kept >= (1.0 + 1.0 / owner.classes) / 2.0:
            break
        delta /= 2.0
    return delta


def optimise(
    owner: DifferentiableOwner,
    seeds: torch.Tensor,
    targets: torch.Tensor,
    recipe: Recipe,
    margin: float,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Projected sign-gradient descent on relu(margin - (z_t - max z_j)) inside [0, 255].

    Vectorised over probes (B, C, H, W); a probe that has reached the margin at its *rounded* values, on every noise
    draw of a step, leaves the batch, and so does one whose margin has not grown for `PATIENCE` steps.

    Returns:
        images (B, C, H, W), rounded to 8-bit levels, and reached (B,): whether the margin was met. Both on the CPU.
    """
    images, targets = seeds.clone().to(owner.device), targets.to(owner.device)
    reached = torch.zeros(len(seeds), dtype=torch.bool, device=owner.device)
    best, stalled = (
        torch.full_like(reached, -torch.inf, dtype=torch.float32),
        torch.zeros_like(reached, dtype=torch.int64),
    )
    noise = WeightNoise(owner.module, recipe.delta, generator) if recipe.delta else None
    high_pass = HighPass(seeds.shape[2], seeds.shape[3], recipe.cut, owner.device) if recipe.cut else None
    for step in range(recipe.steps):
        active = (~reached & (stalled < PATIENCE)).nonzero()[:, 0]
        if not len(active):
            break
        rate = recipe.rate * (1.0 - 0.9 * step / recipe.steps)
        lowest, gradient = _mean_gradient(owner, images[active], targets[active], margin, noise, recipe.draws)
        reached[active] = lowest >= margin
        stalled[active] = torch.where(lowest > best[active], 0, stalled[active] + 1)
        best[active] = torch.maximum(lowest, best[active])
        moving = active[lowest < margin]
        direction = gradient[lowest < margin]
        direction = (high_pass(direction) if high_pass else direction).sign()
        images[moving] = (images[moving] - rate * direction).clamp_(0.0, 255.0)
    return images.round_().cpu(), reached.cpu()


def to_images(value: torch.Tensor) -> Images:
    """(B, C, H, W) at 8-bit levels to canonical images (B, H, W, C) uint8."""
    return np.asarray(value.to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy())


def _mean_gradient(
    owner: DifferentiableOwner,
    images: torch.Tensor,
    targets: torch.Tensor,
    margin: float,
    noise: WeightNoise | None,
    draws: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Lowest margin over the draws (B,), and the gradient averaged over them (B, C, H, W)."""
    if noise is None:
        return owner.margin_and_gradient(images, targets, margin)
    total, lowest = torch.zeros_like(images), torch.full((len(images),), torch.inf, device=images.device)
    with noise.held():
        for _ in range(draws):
            noise.draw()
            found, gradient = owner.margin_and_gradient(images, targets, margin)
            total.add_(gradient, alpha=1.0 / draws)
            lowest = torch.minimum(lowest, found)
    return lowest, total
