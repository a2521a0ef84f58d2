"""Fine-tuning on labelled images: of the last layer or all, also with a last layer that is drawn anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from fingerprint.errors import TransformError
from fingerprint.frozen import dataclass
from fingerprint.transforms.interface import DeriveContext
from fingerprint.transforms.module_step import ModuleTransform
from fingerprint.transforms.options import TRAINING, Recipe, read, written

if TYPE_CHECKING:
    import torch

    from fingerprint.transforms.trainable import Trainable

KINDS = ("last", "all", "reset-last", "reset-all")
GRAMMAR = (
    "finetune:last, finetune:all, finetune:reset-last (last layer drawn anew, only it is trained) or "
    f"finetune:reset-all (last layer drawn anew, all are trained); keys {TRAINING}; needs labelled images"
)
DEFAULTS = {
    "last": Recipe(epochs=5, lr=0.01),
    "all": Recipe(epochs=5, lr=0.01),
    "reset-last": Recipe(epochs=5, lr=0.1),
    "reset-all": Recipe(epochs=5, lr=0.02),
}


@dataclass(frozen=True)
class FineTune(ModuleTransform):
    """FTLL (`last`), FTAL (`all`), RTLL (`reset-last`), RTAL (`reset-all`)."""

    kind: str
    recipe: Recipe

    name: ClassVar[str] = "finetune"
    help: ClassVar[str] = GRAMMAR
    trains: ClassVar[bool] = True

    @classmethod
    def parse(cls, arguments: tuple[str, ...]) -> FineTune:
        """From (kind, key=value..)."""
        if not arguments or arguments[0] not in KINDS:
            raise TransformError(f"finetune can't be told {':'.join(arguments)!r}", remedy=f"Write {GRAMMAR}.")
        (kind, *rest), recipe = read(arguments, DEFAULTS[arguments[0]], GRAMMAR)
        if rest:
            raise TransformError(f"finetune can't be told {':'.join(arguments)!r}", remedy=f"Write {GRAMMAR}.")
        return cls(kind, recipe)

    def spell(self) -> str:
        """For example `finetune:all:epochs=3`."""
        return f"finetune:{self.kind}{written(self.recipe, DEFAULTS[self.kind])}"

    def check(self, context: DeriveContext) -> None:
        """Labelled images and a spec are needed."""
        from fingerprint.transforms.training import labelled

        labelled(context, self.spell())

    def change(self, model: Trainable, context: DeriveContext) -> Trainable:
        """Draw the last layer anew if told so, then train on cross-entropy."""
        if self.kind.startswith("reset"):
            for name in model.head().names():
                model.reset(name)
        train_on_labels(model, self.recipe, context, self.spell(), last=self.kind.endswith("last"))
        return model


def train_on_labels(
    model: Trainable,
    recipe: Recipe,
    context: DeriveContext,
    task: str,
    *,
    last: bool = False,
    after: Callable[[], None] | None = None,
) -> None:
    """Cross-entropy on the context's labels.

    Args:
        model: trained in place.
        recipe: how.
        context: labelled images, spec, progress.
        task: what progress calls it.
        last: only the last layer learns, and normalization stays as it is.
        after: called after each update.

    Raises:
        TransformError: as `training.fit` and `training.labelled` say.
    """
    import torch

    from fingerprint.transforms.pixels import Pixels
    from fingerprint.transforms.trainable import device_of
    from fingerprint.transforms.training import fit, labelled, targets_of

    images, labels, spec = labelled(context, task)
    pixels = Pixels(spec, device_of(context))
    targets = targets_of(labels, model, spec, pixels.device)
    model.to(pixels.device)

    def loss(inputs: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(model.scores(inputs), targets[rows])

    only = model.head().names() if last else None
    fit(model, images, recipe, context, task, loss, pixels, only=only, statistics=not last, after=after)
