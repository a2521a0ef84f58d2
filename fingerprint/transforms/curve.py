"""A point of a low-loss curve between two models (Garipov et al., NeurIPS 2018; Zhao et al., ICLR 2020)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from fingerprint.errors import TransformError
from fingerprint.frozen import dataclass
from fingerprint.transforms.interface import DeriveContext
from fingerprint.transforms.module_step import ModuleTransform
from fingerprint.transforms.options import TRAINING, Recipe, read, read_path, share, written, written_path
from fingerprint.transforms.other import check_other, load_other, paired

if TYPE_CHECKING:
    import torch

    from fingerprint.transforms.trainable import Trainable

GRAMMAR = (
    f"curve:T:PATH (the point T, 0 < T < 1, of a low-loss Bezier curve to another model); keys {TRAINING}; needs "
    "labelled images"
)
DEFAULT = Recipe(epochs=10, lr=0.05)


@dataclass(frozen=True)
class Curve(ModuleTransform):
    """Quadratic Bezier curve from the source to the other: its bend is trained at random points of the curve."""

    point: float
    path: Path
    recipe: Recipe = DEFAULT

    name: ClassVar[str] = "curve"
    help: ClassVar[str] = GRAMMAR
    trains: ClassVar[bool] = True

    @classmethod
    def parse(cls, arguments: tuple[str, ...]) -> Curve:
        """From (T, PATH, key=value..)."""
        positional, recipe = read(arguments, DEFAULT, GRAMMAR)
        if len(positional) != 2:
            raise TransformError(f"curve can't be told {':'.join(arguments)!r}", remedy=f"Write {GRAMMAR}.")
        return cls(share(positional[0], GRAMMAR), read_path(positional[1], GRAMMAR), recipe)

    def spell(self) -> str:
        """For example `curve:0.5:other.pt2`."""
        return f"curve:{self.point!r}:{written_path(self.path)}{written(self.recipe, DEFAULT)}"

    def check(self, context: DeriveContext) -> None:
        """Labelled images, a spec and the other model are needed."""
        from fingerprint.transforms.training import labelled

        check_other(self.path, self.spell())
        labelled(context, self.spell())

    def change(self, model: Trainable, context: DeriveContext) -> Trainable:
        """Train the bend, take the point, and measure its running statistics anew."""
        import torch

        from fingerprint.transforms.pixels import Pixels
        from fingerprint.transforms.trainable import device_of
        from fingerprint.transforms.training import fit, labelled, restatistics, targets_of

        images, labels, spec = labelled(context, self.spell())
        pixels = Pixels(spec, device_of(context))
        other, _ = load_other(self.path, context)
        model.to(pixels.device)
        other.to(pixels.device)
        targets = targets_of(labels, model, spec, pixels.device)
        theirs = dict(other.tensors())
        pairs = [(name, partner) for name, partner in paired(model, other) if name in model.parameters]
        starts = {name: model.parameters[name].detach().clone() for name, _ in pairs}
        ends = {name: theirs[partner].detach().clone() for name, partner in pairs}
        with torch.no_grad():
            for name, end in ends.items():
                model.parameters[name].lerp_(end, 0.5)

        def loss(inputs: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
            point = float(torch.rand(()))
            placed = {n: _bezier(starts[n], model.parameters[n], ends[n], point) for n in starts}
            return torch.nn.functional.cross_entropy(model.scores_with(placed, inputs), targets[rows])

        fit(model, images, self.recipe, context, self.spell(), loss, pixels)
        with torch.no_grad():
            for name, start in starts.items():
                model.parameters[name].copy_(_bezier(start, model.parameters[name], ends[name], self.point))
        restatistics(model, images, pixels)
        return model


def _bezier(start: torch.Tensor, bend: torch.Tensor, end: torch.Tensor, point: float) -> torch.Tensor:
    return (1 - point) ** 2 * start + 2 * point * (1 - point) * bend + point**2 * end
