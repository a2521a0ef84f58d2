"""Retraining of a pruned model: weights that are zero stay zero (Han et al., NIPS 2015)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from fingerprint.errors import TransformError
from fingerprint.frozen import dataclass
from fingerprint.transforms.finetune import train_on_labels
from fingerprint.transforms.interface import DeriveContext
from fingerprint.transforms.module_step import ModuleTransform
from fingerprint.transforms.options import TRAINING, Recipe, read, written

if TYPE_CHECKING:
    import torch

    from fingerprint.transforms.trainable import Trainable

DEFAULT = Recipe(epochs=8, lr=0.05)


@dataclass(frozen=True)
class Retrain(ModuleTransform):
    """Training on labels with a mask of the zeros that the weights hold."""

    recipe: Recipe = DEFAULT

    name: ClassVar[str] = "retrain"
    help: ClassVar[str] = f"retrain (zeros stay zero: behind a prune); keys {TRAINING}; needs labelled images"
    trains: ClassVar[bool] = True

    @classmethod
    def parse(cls, arguments: tuple[str, ...]) -> Retrain:
        """From (key=value..)."""
        positional, recipe = read(arguments, DEFAULT, cls.help)
        if positional:
            raise TransformError(f"retrain can't be told {':'.join(arguments)!r}", remedy=f"Write {cls.help}.")
        return cls(recipe)

    def spell(self) -> str:
        """For example `retrain:epochs=3`."""
        return f"retrain{written(self.recipe, DEFAULT)}"

    def check(self, context: DeriveContext) -> None:
        """Labelled images and a spec are needed."""
        from fingerprint.transforms.training import labelled

        labelled(context, self.spell())

    def change(self, model: Trainable, context: DeriveContext) -> Trainable:
        """Train all layers; after each update, what was zero in a weight of two or more dimensions is zero again."""
        masks = zero_masks(model)
        train_on_labels(model, self.recipe, context, self.spell(), after=masks.apply)
        context.tell("sparsity", masks.sparsity())
        return model


def zero_masks(model: Trainable) -> Masks:
    """Masks of the zeros that the weights hold now."""
    return Masks(model, {name: model.parameters[name] != 0 for name in model.weights()})


class Masks:
    """Which weights of a model may differ from zero, by name (bool, the weight's shape)."""

    def __init__(self, model: Trainable, kept: dict[str, torch.Tensor]) -> None:
        self._model, self.kept = model, kept

    def apply(self) -> None:
        """Set the others to zero."""
        import torch

        with torch.no_grad():
            for name, mask in self.kept.items():
                self._model.parameters[name].mul_(mask.to(self._model.parameters[name].device))

    def sparsity(self) -> float:
        """Share of the weights that the masks hold at zero."""
        kept = sum(int(mask.sum()) for mask in self.kept.values())
        return 1 - kept / sum(mask.numel() for mask in self.kept.values())
