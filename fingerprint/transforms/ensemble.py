"""An ensemble of two models in one file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from fingerprint.errors import TransformError
from fingerprint.frozen import dataclass
from fingerprint.transforms.interface import DeriveContext
from fingerprint.transforms.module_step import ModuleTransform
from fingerprint.transforms.options import read_path, written_path
from fingerprint.transforms.other import check_other, load_other

if TYPE_CHECKING:
    from fingerprint.transforms.trainable import Trainable

GRAMMAR = "ensemble:PATH (mean of the probabilities of this and another model)"


@dataclass(frozen=True)
class Ensemble(ModuleTransform):
    """The mean of the probabilities of the source and another model, of any architecture."""

    path: Path

    name: ClassVar[str] = "ensemble"
    help: ClassVar[str] = GRAMMAR

    @classmethod
    def parse(cls, arguments: tuple[str, ...]) -> Ensemble:
        """From (PATH,)."""
        if len(arguments) != 1:
            raise TransformError(f"ensemble can't be told {':'.join(arguments)!r}", remedy=f"Write {GRAMMAR}.")
        return cls(read_path(arguments[0], GRAMMAR))

    def spell(self) -> str:
        """For example `ensemble:other.pt2`."""
        return f"ensemble:{written_path(self.path)}"

    def check(self, context: DeriveContext) -> None:
        """The other model must exist, and a spec say how the source is fed."""
        from fingerprint.transforms.training import specified

        specified(context, self.spell())
        check_other(self.path, self.spell())

    def change(self, model: Trainable, context: DeriveContext) -> Trainable:
        """One graph that holds both; the other is fed by its own spec."""
        from fingerprint.transforms.training import specified
        from fingerprint.transforms.wrappers import ensemble, rewrapped

        other, spec = load_other(self.path, context)
        module = ensemble(model, specified(context, self.spell()), other, spec)
        return rewrapped(module, model, self.spell())
