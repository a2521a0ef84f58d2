"""Bi-level pruning: the mask and the weights are learned in turns (BiP, Zhang et al., NeurIPS 2022).

The upper level moves a real-valued mask m along -(theta - grad / GAMMA) * grad, with the gradient of the loss at
m * theta, and takes the largest entries; the lower level trains theta under the mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from fingerprint.errors import TransformError
from fingerprint.frozen import dataclass
from fingerprint.transforms.interface import DeriveContext, Transform
from fingerprint.transforms.module_step import ModuleTransform
from fingerprint.transforms.options import Recipe, read, share, written

if TYPE_CHECKING:
    import torch

    from fingerprint.transforms.trainable import Trainable

DEFAULT = Recipe(epochs=8, lr=0.03)
GAMMA = 1.0  # weight of the lower level's regularisation
RATE = 0.02  # of the mask, relative to its spread


@dataclass(frozen=True)
class PruneBilevel(ModuleTransform):
    """The share `fraction` of all weights is zero in the end; which, is learned."""

    fraction: float
    recipe: Recipe = DEFAULT

    name: ClassVar[str] = "prune"
    help: ClassVar[str] = "prune:bilevel:F"
    trains: ClassVar[bool] = True

    @classmethod
    def parse(cls, arguments: tuple[str, ...]) -> Transform:
        """See `Prune.parse`."""
        from fingerprint.transforms.prune import Prune

        return Prune.parse(arguments)

    @classmethod
    def read(cls, arguments: Sequence[str], grammar: str) -> PruneBilevel:
        """From (F, key=value..). Raises TransformError, as `parse`."""
        positional, recipe = read(arguments, DEFAULT, grammar)
        if len(positional) != 1:
            raise TransformError(f"prune:bilevel can't be told {':'.join(arguments)!r}", remedy=f"Write {grammar}.")
        return cls(share(positional[0], grammar), recipe)

    def spell(self) -> str:
        """For example `prune:bilevel:0.9`."""
        return f"prune:bilevel:{self.fraction!r}{written(self.recipe, DEFAULT)}"

    def check(self, context: DeriveContext) -> None:
        """Labelled images and a spec are needed."""
        from fingerprint.transforms.training import labelled

        labelled(context, self.spell())

    def change(self, model: Trainable, context: DeriveContext) -> Trainable:
        """Each update is one of the weights and one of the mask."""
        import torch

        from fingerprint.transforms.pixels import Pixels
        from fingerprint.transforms.trainable import device_of
        from fingerprint.transforms.training import fit, labelled, targets_of

        images, labels, spec = labelled(context, self.spell())
        pixels = Pixels(spec, device_of(context))
        targets = targets_of(labels, model, spec, pixels.device)
        model.to(pixels.device)
        mask = _LearnedMask(model, self.fraction)

        def loss(inputs: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.cross_entropy(model.scores_with(mask.masked(), inputs), targets[rows])

        fit(model, images, self.recipe, context, self.spell(), loss, pixels, after=mask.update)
        with torch.no_grad():
            for name, value in mask.masked().items():
                model.parameters[name].copy_(value)
        context.tell("sparsity", 1 - sum(float(k.sum()) for k in mask.kept.values()) / mask.total)
        return model


class _LearnedMask:
    """Real-valued masks by name, and which of their entries are among the largest."""

    def __init__(self, model: Trainable, fraction: float) -> None:
        self._model, self._fraction = model, fraction
        self.total = sum(model.parameters[name].numel() for name in model.weights())
        spread = float(sum(float(model.parameters[n].detach().abs().sum()) for n in model.weights())) / self.total
        self._scores = {name: model.parameters[name].detach().abs() / spread for name in model.weights()}
        self._products: dict[str, torch.Tensor] = {}
        self.kept = self._largest()

    def masked(self) -> dict[str, torch.Tensor]:
        """Weights under the mask; remembers them for the gradient."""
        self._products = {name: self._model.parameters[name] * kept for name, kept in self.kept.items()}
        for value in self._products.values():
            if value.requires_grad:
                value.retain_grad()
        return self._products

    def update(self) -> None:
        """Move the masks along the implicit gradient and take the largest entries anew."""
        import torch

        with torch.no_grad():
            for name, value in self._products.items():
                if value.grad is None:
                    continue
                slope = (self._model.parameters[name] - value.grad / GAMMA) * value.grad
                self._scores[name] -= RATE * slope / (slope.square().mean().sqrt() + 1e-12)
            self.kept = self._largest()

    def _largest(self) -> dict[str, torch.Tensor]:
        import torch

        flat = torch.cat([scores.flatten() for scores in self._scores.values()])
        places = flat.topk(self.total - round(self._fraction * self.total)).indices
        chosen = torch.zeros(self.total, dtype=torch.bool, device=flat.device)
        chosen[places] = True
        parts = torch.split(chosen, [scores.numel() for scores in self._scores.values()])
        return {n: part.reshape(s.shape) for (n, s), part in zip(self._scores.items(), parts, strict=True)}
