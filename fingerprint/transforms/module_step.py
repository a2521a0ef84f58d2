"""Base of the transformations that work on a model as a torch module."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from fingerprint.transforms.interface import DeriveContext, Transform

if TYPE_CHECKING:
    from fingerprint.transforms.trainable import Trainable


class ModuleTransform(Transform):
    """A step that turns a file into a torch module, changes it, and writes a `.pt2`."""

    lasting: ClassVar[tuple[str, ...] | None] = None  # formats that can hold what it makes; None = all

    def apply(self, source: Path, out: Path, context: DeriveContext) -> None:
        """Read, change, write. Everything random starts at the context's seed."""
        from fingerprint.transforms.trainable import load_trainable, seeded

        with seeded(context):
            model = load_trainable(source, context)
            self.change(model, context).save(out)

    @abstractmethod
    def change(self, model: Trainable, context: DeriveContext) -> Trainable:
        """The changed model: the same one or another.

        Raises:
            TransformError: the model or the images do not fit.
        """
