"""Transfer to another task: a last layer for other classes (Yosinski et al., NIPS 2014)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from fingerprint.errors import TransformError
from fingerprint.frozen import dataclass
from fingerprint.transforms.finetune import DEFAULTS, train_on_labels
from fingerprint.transforms.interface import DeriveContext
from fingerprint.transforms.module_step import ModuleTransform
from fingerprint.transforms.options import TRAINING, Recipe, read, written

if TYPE_CHECKING:
    from fingerprint.model import InputSpec
    from fingerprint.transforms.trainable import Trainable


@dataclass(frozen=True)
class Transfer(ModuleTransform):
    """Transfer to another task: a last layer with as many classes as the labels have."""

    kind: str
    recipe: Recipe

    name: ClassVar[str] = "transfer"
    help: ClassVar[str] = (
        f"transfer:last or transfer:all (a new last layer for other classes); keys {TRAINING}; needs labelled images"
    )
    trains: ClassVar[bool] = True
    same_task: ClassVar[bool] = False

    @classmethod
    def parse(cls, arguments: tuple[str, ...]) -> Transfer:
        """From (`last` or `all`, key=value..)."""
        given = arguments[0] if arguments else ""
        positional, recipe = read(arguments, DEFAULTS.get(f"reset-{given}", Recipe()), cls.help)
        if positional not in (("last",), ("all",)):
            raise TransformError(f"transfer can't be told {':'.join(arguments)!r}", remedy=f"Write {cls.help}.")
        return cls(given, recipe)

    def spell(self) -> str:
        """For example `transfer:all`."""
        return f"transfer:{self.kind}{written(self.recipe, DEFAULTS[f'reset-{self.kind}'])}"

    def check(self, context: DeriveContext) -> None:
        """Labelled images and a spec are needed."""
        from fingerprint.transforms.training import labelled

        labelled(context, self.spell())

    def spec_after(self, context: DeriveContext) -> InputSpec | None:
        """The labels' number of classes."""
        if context.spec is None or context.labels is None:
            return context.spec
        return replace(context.spec, classes=int(context.labels.max()) + 1, class_offset=0)

    def change(self, model: Trainable, context: DeriveContext) -> Trainable:
        """Replace the last layer, then train on cross-entropy."""
        spec = self.spec_after(context)
        if spec is None or spec.classes is None or spec.classes < 2:
            raise TransformError("the labels hold fewer than two classes")
        resize_head(model, spec.classes)
        train_on_labels(model, self.recipe, replace(context, spec=spec), self.spell(), last=self.kind == "last")
        return model


def resize_head(model: Trainable, classes: int) -> None:
    """A last layer for so many classes, drawn anew."""
    import torch

    head = model.head()
    weight = model.parameters[head.weight]
    shape = list(weight.shape)
    shape[head.axis] = classes
    model.replace(head.weight, torch.zeros(shape))
    if head.bias:
        model.replace(head.bias, torch.zeros(classes))
    for name in head.names():
        model.reset(name)
    model.classes = classes
