"""Averages of the weights of two models (Wortsman et al., ICML 2022)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from fingerprint.errors import TransformError
from fingerprint.frozen import dataclass
from fingerprint.transforms.interface import DeriveContext
from fingerprint.transforms.module_step import ModuleTransform
from fingerprint.transforms.options import read_path, share, written_path
from fingerprint.transforms.other import check_other, load_other, paired

if TYPE_CHECKING:
    from fingerprint.transforms.trainable import Trainable

GRAMMAR = "average:W:PATH ((1 - W) times this model plus W times another of the same architecture, 0 < W < 1)"


@dataclass(frozen=True)
class Average(ModuleTransform):
    """(1 - weight) times the source plus weight times the other, running statistics included."""

    weight: float
    path: Path

    name: ClassVar[str] = "average"
    help: ClassVar[str] = GRAMMAR

    @classmethod
    def parse(cls, arguments: tuple[str, ...]) -> Average:
        """From (W, PATH)."""
        if len(arguments) != 2:
            raise TransformError(f"average can't be told {':'.join(arguments)!r}", remedy=f"Write {GRAMMAR}.")
        return cls(share(arguments[0], GRAMMAR), read_path(arguments[1], GRAMMAR))

    def spell(self) -> str:
        """For example `average:0.5:other.pt2`."""
        return f"average:{self.weight!r}:{written_path(self.path)}"

    def check(self, context: DeriveContext) -> None:
        """The other model must exist."""
        check_other(self.path, self.spell())

    def change(self, model: Trainable, context: DeriveContext) -> Trainable:
        """All float tensors."""
        import torch

        other, _ = load_other(self.path, context)
        mine, theirs = dict(model.tensors()), dict(other.tensors())
        with torch.no_grad():
            for name, partner in paired(model, other):
                if mine[name].is_floating_point():
                    mine[name].lerp_(theirs[partner].to(mine[name].dtype), self.weight)
        return model
