"""Quantization-aware training of weights, with straight-through gradients (Jacob et al., CVPR 2018)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from fingerprint.errors import TransformError
from fingerprint.frozen import dataclass
from fingerprint.transforms.interface import DeriveContext, Transform
from fingerprint.transforms.module_step import ModuleTransform
from fingerprint.transforms.options import Recipe, read, written

if TYPE_CHECKING:
    import torch

    from fingerprint.transforms.trainable import Trainable

DEFAULT = Recipe(epochs=4, lr=0.005)


@dataclass(frozen=True)
class QuantizeTrained(ModuleTransform):
    """Weights that are `bits`-bit symmetric integers times a scale per output channel, in training and in the file."""

    bits: int
    recipe: Recipe = DEFAULT

    name: ClassVar[str] = "quantize"
    help: ClassVar[str] = "quantize:qat:intN"
    trains: ClassVar[bool] = True

    @classmethod
    def parse(cls, arguments: tuple[str, ...]) -> Transform:
        """See `Quantize.parse`."""
        from fingerprint.transforms.quantize import Quantize

        return Quantize.parse(arguments)

    @classmethod
    def read(cls, bits: int, arguments: tuple[str, ...], grammar: str) -> QuantizeTrained:
        """From bits and (key=value..). Raises TransformError, as `parse`."""
        positional, recipe = read(arguments, DEFAULT, grammar)
        if positional:
            raise TransformError(f"quantize:qat can't be told {':'.join(positional)!r}", remedy=f"Write {grammar}.")
        return cls(bits, recipe)

    def spell(self) -> str:
        """For example `quantize:qat:int4`."""
        return f"quantize:qat:int{self.bits}{written(self.recipe, DEFAULT)}"

    def check(self, context: DeriveContext) -> None:
        """Labelled images and a spec are needed."""
        from fingerprint.transforms.training import labelled

        labelled(context, self.spell())

    def change(self, model: Trainable, context: DeriveContext) -> Trainable:
        """Forward passes see rounded weights; gradients reach the real ones."""
        import torch

        from fingerprint.transforms.pixels import Pixels
        from fingerprint.transforms.trainable import device_of
        from fingerprint.transforms.training import fit, labelled, targets_of
        from fingerprint.transforms.weights.axes import graph_axes

        images, labels, spec = labelled(context, self.spell())
        pixels = Pixels(spec, device_of(context))
        targets = targets_of(labels, model, spec, pixels.device)
        model.to(pixels.device)
        axes = graph_axes(model.module.graph, {})
        weights = {name: axes.get(name, 0) for name in model.weights()}

        def rounded(name: str) -> torch.Tensor:
            value = model.parameters[name]
            return value + (_on_grid(value.detach(), self.bits, weights[name]) - value.detach())

        def loss(inputs: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
            scores = model.scores_with({name: rounded(name) for name in weights}, inputs)
            return torch.nn.functional.cross_entropy(scores, targets[rows])

        fit(model, images, self.recipe, context, self.spell(), loss, pixels)
        with torch.no_grad():
            for name, axis in weights.items():
                model.parameters[name].copy_(_on_grid(model.parameters[name], self.bits, axis))
        return model


def _on_grid(value: torch.Tensor, bits: int, axis: int) -> torch.Tensor:
    """The nearest `bits`-bit symmetric integers times a scale per entry of `axis`."""
    levels = 2 ** (bits - 1) - 1
    others = [place for place in range(value.ndim) if place != axis % value.ndim]
    scale = (value.abs().amax(others, keepdim=True) / levels).clamp_min(1e-12)
    placed: torch.Tensor = (value / scale).round().clamp(-levels, levels) * scale
    return placed
