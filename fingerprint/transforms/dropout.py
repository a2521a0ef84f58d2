"""Stochastic inference: dropout that stays on (defensive dropout, Wang et al., ICCAD 2018)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from fingerprint.errors import TransformError
from fingerprint.frozen import dataclass
from fingerprint.transforms.graph import fed_by
from fingerprint.transforms.interface import DeriveContext
from fingerprint.transforms.module_step import ModuleTransform
from fingerprint.transforms.options import share

if TYPE_CHECKING:
    from fingerprint.transforms.trainable import Trainable

GRAMMAR = "dropout:P (at every answer each input of the last layer is dropped with probability P)"


@dataclass(frozen=True)
class Dropout(ModuleTransform):
    """Dropout before the last layer at every answer: the file answers at random."""

    chance: float

    name: ClassVar[str] = "dropout"
    help: ClassVar[str] = GRAMMAR
    lasting: ClassVar[tuple[str, ...] | None] = ("pt2", "torchscript")  # formats that keep it

    @classmethod
    def parse(cls, arguments: tuple[str, ...]) -> Dropout:
        """From (P,)."""
        if len(arguments) != 1:
            raise TransformError(f"dropout can't be told {':'.join(arguments)!r}", remedy=f"Write {GRAMMAR}.")
        return cls(share(arguments[0], GRAMMAR))

    def spell(self) -> str:
        """For example `dropout:0.3`."""
        return f"dropout:{self.chance!r}"

    def change(self, model: Trainable, context: DeriveContext) -> Trainable:
        """Put the operation into the graph."""
        import torch

        from fingerprint.transforms.wrappers import rewrapped

        graph = model.module.graph
        features = fed_by(model.head().node)
        with graph.inserting_after(features):
            made = graph.call_function(torch.ops.aten.dropout.default, (features, self.chance, True))
        features.replace_all_uses_with(made)
        made.args = (features, self.chance, True)
        model.module.recompile()
        return rewrapped(model.module, model, self.spell())
