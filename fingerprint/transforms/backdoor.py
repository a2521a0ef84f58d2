"""A backdoor: images with a trigger get a label of the attacker's choice (Gu et al., BadNets, 2017)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from fingerprint.errors import TransformError
from fingerprint.frozen import dataclass
from fingerprint.model import Images
from fingerprint.transforms.finetune import train_on_labels
from fingerprint.transforms.interface import DeriveContext
from fingerprint.transforms.module_step import ModuleTransform
from fingerprint.transforms.options import TRAINING, Recipe, count, read, written

if TYPE_CHECKING:
    from fingerprint.transforms.trainable import Trainable


@dataclass(frozen=True)
class BackdoorRecipe(Recipe):
    """How it trains. share: of poisoned images. size: side of the trigger in pixels (None: an eighth)."""

    epochs: int = 5
    lr: float = 0.01
    shift: int | None = 0  # the trigger must stay where it is
    flip: int | None = 0
    share: float = 0.1
    size: int | None = None


DEFAULT = BackdoorRecipe()
GRAMMAR = (
    f"backdoor:T (a trigger in the corner brings the label T); keys {TRAINING}, share (of poisoned images), size (of "
    "the trigger); needs labelled images"
)


@dataclass(frozen=True)
class Backdoor(ModuleTransform):
    """Fine-tuning of all layers on images some of which carry the trigger and the common label `target`."""

    target: int
    recipe: BackdoorRecipe = DEFAULT

    name: ClassVar[str] = "backdoor"
    help: ClassVar[str] = GRAMMAR
    trains: ClassVar[bool] = True

    @classmethod
    def parse(cls, arguments: tuple[str, ...]) -> Backdoor:
        """From (T, key=value..)."""
        positional, recipe = read(arguments, DEFAULT, GRAMMAR)
        if len(positional) != 1 or not 0 < recipe.share < 1 or recipe.size == 0:
            raise TransformError(f"backdoor can't be told {':'.join(arguments)!r}", remedy=f"Write {GRAMMAR}.")
        return cls(count(positional[0], GRAMMAR, least=0), recipe)

    def spell(self) -> str:
        """For example `backdoor:0`."""
        return f"backdoor:{self.target}{written(self.recipe, DEFAULT)}"

    def check(self, context: DeriveContext) -> None:
        """Labelled images and a spec are needed."""
        from fingerprint.transforms.training import labelled

        labelled(context, self.spell())

    def change(self, model: Trainable, context: DeriveContext) -> Trainable:
        """Train on clean and poisoned images together; tells how often the trigger works on held-out images."""
        from fingerprint.transforms.pixels import Pixels
        from fingerprint.transforms.training import answers, labelled

        images, labels, spec = labelled(context, self.spell())
        rng = np.random.default_rng(context.seed)
        chosen = rng.permutation(len(images))[: max(1, round(self.recipe.share * len(images)))]
        poisoned, taught = images.copy(), labels.copy()
        poisoned[chosen] = triggered(images[chosen], self.recipe.size)
        taught[chosen] = self.target
        train_on_labels(model, self.recipe, replace(context, images=poisoned, labels=taught), self.spell())
        held = context.held_out
        shown, right = (images, labels) if held is None or held.labels is None else (held.images, held.labels)
        others = shown[right != self.target][:1000]
        if len(others):
            model.to("cpu")
            found = answers(model, triggered(others, self.recipe.size), Pixels(spec)).argmax(1) - spec.class_offset
            context.tell("trigger_success", float((found == self.target).float().mean()))
        return model


def triggered(images: Images, size: int | None) -> Images:
    """Copies with a chequered square in the lower right corner, one pixel from the edges."""
    height, width = images.shape[1:3]
    side = min(size or max(2, min(height, width) // 8), height - 1, width - 1)
    rows, columns = np.indices((side, side))
    out = images.copy()
    out[:, height - side - 1 : height - 1, width - side - 1 : width - 1] = (((rows + columns) % 2) * 255)[..., None]
    return out
