"""Distillation and extraction: a student learns the answers of the source, never the labels of the images.

Soft: Hinton et al., 2015. Hard: Tramer et al., USENIX Security 2016; Orekondy et al., CVPR 2019. Adversarial: queries
near the student's boundaries, in the manner of Papernot et al., AsiaCCS 2017. Noise: made-up queries (data-free).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from fingerprint.errors import TransformError
from fingerprint.frozen import dataclass
from fingerprint.model import Images, InputSpec
from fingerprint.transforms.interface import DeriveContext
from fingerprint.transforms.module_step import ModuleTransform
from fingerprint.transforms.options import TRAINING, Recipe, read, written

if TYPE_CHECKING:
    import torch

    from fingerprint.transforms.pixels import Pixels
    from fingerprint.transforms.trainable import Trainable

KINDS = ("soft", "hard", "adversarial", "noise")
ARCHITECTURES = ("same", "cnn", "vgg", "resnet", "mobile")
GRAMMAR = (
    f"distil:KIND:ARCH with KIND {', '.join(KINDS)} (answers as probabilities, as labels, at adversarially shifted "
    f"images, at made-up images) and ARCH {', '.join(ARCHITECTURES)}; keys {TRAINING}, t (temperature), eps (of 255), "
    "queries (made-up images); needs images, except for noise"
)


@dataclass(frozen=True)
class DistilRecipe(Recipe):
    """How a student learns.

    t: temperature of soft answers. eps: largest shift of an adversarial query, of 255. queries: made-up images.
    """

    epochs: int = 20
    lr: float = 0.1
    t: float = 4.0
    eps: float = 8.0
    queries: int = 5000


DEFAULT = DistilRecipe()


@dataclass(frozen=True)
class Distil(ModuleTransform):
    """A student of the architecture `architecture`, taught in the way `kind`."""

    kind: str
    architecture: str
    recipe: DistilRecipe = DEFAULT

    name: ClassVar[str] = "distil"
    help: ClassVar[str] = GRAMMAR
    trains: ClassVar[bool] = True

    @classmethod
    def parse(cls, arguments: tuple[str, ...]) -> Distil:
        """From (kind, architecture, key=value..)."""
        positional, recipe = read(arguments, DEFAULT, GRAMMAR)
        match positional:
            case (kind, architecture) if kind in KINDS and architecture in ARCHITECTURES and recipe.t > 0:
                return cls(kind, architecture, recipe)
        raise TransformError(f"distil can't be told {':'.join(arguments)!r}", remedy=f"Write {GRAMMAR}.")

    def spell(self) -> str:
        """For example `distil:soft:same`."""
        return f"distil:{self.kind}:{self.architecture}{written(self.recipe, DEFAULT)}"

    def check(self, context: DeriveContext) -> None:
        """Images and a spec are needed; made-up images need the spec only."""
        from fingerprint.transforms.training import pictured, specified

        if self.kind == "noise":
            specified(context, self.spell())
        else:
            pictured(context, self.spell())

    def change(self, model: Trainable, context: DeriveContext) -> Trainable:
        """Ask the source once for each image as it is trained on, and teach the student its answers."""
        import torch

        from fingerprint.transforms.pixels import Pixels
        from fingerprint.transforms.students import student
        from fingerprint.transforms.trainable import device_of
        from fingerprint.transforms.training import fit, pictured, specified

        spec = specified(context, self.spell())
        images = made_up(self.recipe.queries, spec, context.seed) if self.kind == "noise" else pictured(context, "")[0]
        pupil = student(self.architecture, model, spec)
        pixels = Pixels(spec, device_of(context))
        for one in (model, pupil):
            one.to(pixels.device)
        asked = 0

        def loss(inputs: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
            nonlocal asked
            if self.kind == "adversarial":
                inputs = self._shifted(inputs, pupil, pixels)
            with torch.no_grad():
                answer = model.scores(inputs)
            asked += len(inputs)
            return self._distance(pupil.scores(inputs), answer)

        fit(pupil, images, self.recipe, context, self.spell(), loss, pixels)
        context.tell("queries", asked)
        return pupil

    def _distance(self, given: torch.Tensor, answer: torch.Tensor) -> torch.Tensor:
        """Of a student's scores from the source's answers, both (B, classes)."""
        import torch

        if self.kind == "hard":
            return torch.nn.functional.cross_entropy(given, answer.argmax(1))
        warm = self.recipe.t
        aim = torch.softmax(answer / warm, 1)
        return -(aim * torch.log_softmax(given / warm, 1)).sum(1).mean() * warm

    def _shifted(self, inputs: torch.Tensor, pupil: Trainable, pixels: Pixels) -> torch.Tensor:
        """Half of the batch moved by one signed gradient step against the student's own label."""
        import torch

        half = len(inputs) // 2
        moving = inputs[:half].clone().requires_grad_(True)
        pupil.training(False)
        scores = pupil.scores(moving)
        lost = torch.nn.functional.cross_entropy(scores, scores.argmax(1))
        (slope,) = torch.autograd.grad(lost, moving)
        pupil.training(True)
        step = torch.rand((half, 1, 1, 1), device=inputs.device) * self.recipe.eps * pixels.scale
        moved = (moving.detach() + step * slope.sign()).clamp(pixels.lowest, pixels.highest)
        return torch.cat([moved, inputs[half:]])


def made_up(count: int, spec: InputSpec, seed: int) -> Images:
    """Images (N, H, W, C) uint8 that need no data: sums of random waves with an amplitude that falls with frequency.

    Natural images have such spectra; uniform noise would get one label from most models.
    """
    rng = np.random.default_rng(seed)
    height, width, depth = spec.image_shape
    rows, columns = np.meshgrid(np.fft.fftfreq(height), np.fft.fftfreq(width), indexing="ij")
    falling = 1 / np.maximum(np.hypot(rows, columns), 1 / max(height, width))[None, None]
    out = np.empty((count, height, width, depth), np.uint8)
    for start in range(0, count, 500):
        size = min(500, count - start)
        power = falling ** rng.uniform(0.6, 1.6, (size, 1, 1, 1))
        waves = np.fft.ifft2(np.fft.fft2(rng.standard_normal((size, depth, height, width))) * power).real
        waves = waves + waves.mean(1, keepdims=True) * rng.uniform(0, 3, (size, 1, 1, 1))
        waves /= waves.std((1, 2, 3), keepdims=True)
        shade = rng.uniform(70, 180, (size, depth, 1, 1))
        pictures = waves * rng.uniform(20, 70, (size, 1, 1, 1)) + shade
        out[start : start + size] = np.clip(pictures, 0, 255).transpose(0, 2, 3, 1).astype(np.uint8)
    return out
