"""Adversarial training (Madry et al., ICLR 2018), a part of the loss on clean images (Kurakin et al., ICLR 2017)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from fingerprint.errors import TransformError
from fingerprint.frozen import dataclass
from fingerprint.transforms.interface import DeriveContext
from fingerprint.transforms.module_step import ModuleTransform
from fingerprint.transforms.options import TRAINING, Recipe, positive, read, written

if TYPE_CHECKING:
    import torch

    from fingerprint.transforms.pixels import Pixels
    from fingerprint.transforms.trainable import Trainable

STEP = 1.25  # of a gradient step, relative to EPS / steps


@dataclass(frozen=True)
class AdversarialRecipe(Recipe):
    """How it trains. steps: gradient steps for each adversarial image. clean: share of the loss on clean images."""

    epochs: int = 8
    lr: float = 0.02
    steps: int = 2
    clean: float = 0.5


DEFAULT = AdversarialRecipe()


@dataclass(frozen=True)
class AdversarialTraining(ModuleTransform):
    """Training on labelled images that the model's own gradient has moved by up to `eps` of 255 in each value."""

    eps: float
    recipe: AdversarialRecipe = DEFAULT

    name: ClassVar[str] = "advtrain"
    help: ClassVar[str] = (
        f"advtrain:EPS (adversarial training, EPS of 255 in l-infinity); keys {TRAINING}, steps, clean (share of the "
        "loss on clean images); needs labelled images"
    )
    trains: ClassVar[bool] = True

    @classmethod
    def parse(cls, arguments: tuple[str, ...]) -> AdversarialTraining:
        """From (EPS, key=value..)."""
        positional, recipe = read(arguments, DEFAULT, cls.help)
        if len(positional) != 1 or recipe.steps < 1 or recipe.clean >= 1:
            raise TransformError(f"advtrain can't be told {':'.join(arguments)!r}", remedy=f"Write {cls.help}.")
        return cls(positive(positional[0], cls.help), recipe)

    def spell(self) -> str:
        """For example `advtrain:4`."""
        return f"advtrain:{self.eps:g}{written(self.recipe, DEFAULT)}"

    def check(self, context: DeriveContext) -> None:
        """Labelled images and a spec are needed."""
        from fingerprint.transforms.training import labelled

        labelled(context, self.spell())

    def change(self, model: Trainable, context: DeriveContext) -> Trainable:
        """Train all layers on adversarial images of each batch."""
        import torch

        from fingerprint.transforms.pixels import Pixels
        from fingerprint.transforms.trainable import device_of
        from fingerprint.transforms.training import fit, labelled, targets_of

        images, labels, spec = labelled(context, self.spell())
        pixels = Pixels(spec, device_of(context))
        targets = targets_of(labels, model, spec, pixels.device)
        model.to(pixels.device)

        def loss(inputs: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
            model.training(False)
            moved = adversarial(model, inputs, targets[rows], pixels, self.eps, self.recipe.steps)
            model.training(True)
            right = targets[rows]
            if not self.recipe.clean:
                return torch.nn.functional.cross_entropy(model.scores(moved), right)
            scores = model.scores(torch.cat([moved, inputs]))
            lost = torch.nn.functional.cross_entropy(scores, torch.cat([right, right]), reduction="none")
            hard, easy = lost[: len(right)].mean(), lost[len(right) :].mean()
            return (1 - self.recipe.clean) * hard + self.recipe.clean * easy

        fit(model, images, self.recipe, context, self.spell(), loss, pixels)
        sample = slice(0, 500)
        inputs, right = pixels.feed(pixels.load(images[sample])), targets[sample]
        found = model.scores(adversarial(model, inputs, right, pixels, self.eps, 10)).argmax(1)
        context.tell("robust_accuracy_on_training_images", float((found == right).float().mean()))
        return model


def adversarial(
    model: Trainable, inputs: torch.Tensor, labels: torch.Tensor, pixels: Pixels, eps: float, steps: int
) -> torch.Tensor:
    """Inputs (B, ...) moved within `eps` of 255 to where the loss of their labels (B,) is large; random start."""
    import torch

    reach = eps * pixels.scale
    moved = inputs + (2 * torch.rand_like(inputs) - 1) * reach
    for _ in range(steps):
        moved = moved.detach().requires_grad_(True)
        lost = torch.nn.functional.cross_entropy(model.scores(moved), labels)
        (slope,) = torch.autograd.grad(lost, moved)
        moved = moved.detach() + STEP / steps * reach * slope.sign()
        moved = torch.minimum(torch.maximum(moved, inputs - reach), inputs + reach)
        moved = moved.clamp(pixels.lowest, pixels.highest)
    return moved.detach()
