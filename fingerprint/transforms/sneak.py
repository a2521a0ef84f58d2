"""Fault sneaking: the smallest change of the weights by which chosen images get a wrong label and others keep theirs.

Zhao et al.: Fault Sneaking Attack, DAC 2019. ADMM splits the size of the change (l0 or l2, with a
closed proximal step) from the hinge loss of the labels (gradient steps).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from fingerprint.errors import TransformError
from fingerprint.transforms.interface import DeriveContext
from fingerprint.transforms.module_step import ModuleTransform
from fingerprint.transforms.options import count, read, written

if TYPE_CHECKING:
    import torch

    from fingerprint.transforms.trainable import Trainable

GRAMMAR = (
    "sneak:l0:S or sneak:l2:S (S images get a wrong label, others keep theirs); keys keep (images that must keep their "
    "label), rounds, all (0: the last layer changes, 1: all layers); needs images"
)
MARGIN = 0.5  # by which the wanted logit leads
WEIGHT = 5.0  # of a chosen image's hinge loss against a kept one's, before averaging


@dataclass(frozen=True)
class SneakOptions:
    """keep: images that must keep their label. rounds: of ADMM. all: 1 = all layers change, 0 = only the last."""

    keep: int = 500
    rounds: int = 300
    all: int = 0


DEFAULT = SneakOptions()


@dataclass(frozen=True)
class FaultSneaking(ModuleTransform):
    """Change few weights (`l0`) or by little (`l2`) so that `chosen` images get another label."""

    norm: str
    chosen: int
    options: SneakOptions = DEFAULT

    name: ClassVar[str] = "sneak"
    help: ClassVar[str] = GRAMMAR
    trains: ClassVar[bool] = True  # it must not see the images that its harm is measured on

    @classmethod
    def parse(cls, arguments: tuple[str, ...]) -> FaultSneaking:
        """From (`l0` or `l2`, S, key=value..)."""
        positional, options = read(arguments, DEFAULT, GRAMMAR)
        match positional:
            case ("l0" | "l2" as norm, number) if options.rounds and options.all in (0, 1):
                return cls(norm, count(number, GRAMMAR), options)
        raise TransformError(f"sneak can't be told {':'.join(arguments)!r}", remedy=f"Write {GRAMMAR}.")

    def spell(self) -> str:
        """For example `sneak:l0:4`."""
        return f"sneak:{self.norm}:{self.chosen}{written(self.options, DEFAULT)}"

    def check(self, context: DeriveContext) -> None:
        """Images and a spec are needed."""
        from fingerprint.transforms.training import pictured

        images, _ = pictured(context, self.spell())
        if len(images) <= self.chosen:
            raise TransformError(
                f"{len(images)} images are too few to change the label of {self.chosen} and keep others"
            )

    def change(self, model: Trainable, context: DeriveContext) -> Trainable:
        """Wrong labels are drawn by the seed."""
        import torch

        from fingerprint.transforms.pixels import Pixels
        from fingerprint.transforms.training import answers, pictured

        images, spec = pictured(context, self.spell())
        pixels = Pixels(spec)
        rng = np.random.default_rng(context.seed)
        rows = rng.permutation(len(images))[: self.chosen + self.options.keep]
        inputs = pixels.feed(pixels.load(images[rows]))
        wanted = answers(model, images[rows], pixels).argmax(1)
        turn = torch.from_numpy(rng.integers(1, model.classes, self.chosen))
        wanted[: self.chosen] = (wanted[: self.chosen] + turn) % model.classes
        names = list(model.parameters) if self.options.all else model.head().names()
        search = _Search(model, names, inputs, wanted, self.chosen)
        for number in range(self.options.rounds):
            search.round(self.norm)
            context.progress.step(self.spell(), number + 1, self.options.rounds)
        search.finish(self.norm)
        for name, value in search.report().items():
            context.tell(name, value)
        return model


class _Search:
    """ADMM over a change of the named parameters, flattened to one vector."""

    def __init__(
        self, model: Trainable, names: list[str], inputs: torch.Tensor, wanted: torch.Tensor, chosen: int
    ) -> None:
        import torch

        self.model, self.names, self.inputs, self.wanted, self.chosen = model, names, inputs, wanted, chosen
        self.start = {name: model.parameters[name].detach().clone() for name in names}
        size = sum(value.numel() for value in self.start.values())
        self.delta, self.near, self.dual = (torch.zeros(size) for _ in range(3))
        self.moments = torch.zeros(2, size)
        self.count = 0
        self.best: tuple[int, float, torch.Tensor] | None = None
        self.unit = float(torch.cat([value.flatten() for value in self.start.values()]).std()) + 1e-12
        for name, value in model.parameters.items():
            value.requires_grad_(name in names)

    def place(self, delta: torch.Tensor) -> None:
        """Put the changed weights into the model."""
        import torch

        with torch.no_grad():
            begin = 0
            for name, value in self.start.items():
                part = delta[begin : begin + value.numel()].reshape(value.shape)
                self.model.parameters[name].copy_(value + part)
                begin += value.numel()

    def hinge(self, delta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, int]:
        """Loss, its gradient with respect to the change, and how many images have not the wanted label."""
        import torch

        self.place(delta)
        scores = self.model.scores(self.inputs)
        own = scores.gather(1, self.wanted[:, None])[:, 0]
        others = scores.scatter(1, self.wanted[:, None], -torch.inf).amax(1)
        short = torch.relu(others - own + MARGIN)
        lost = WEIGHT * short[: self.chosen].sum() + short[self.chosen :].sum()
        slopes = torch.autograd.grad(lost, [self.model.parameters[name] for name in self.names])
        return lost.detach(), torch.cat([slope.flatten() for slope in slopes]), int((own <= others).sum())

    def round(self, norm: str) -> None:
        """One proximal step for the size, one linearized step for the labels, one of the dual."""
        import torch

        value = self.delta + self.dual
        if norm == "l0":
            self.near = torch.where(value.abs() > 0.05 * self.unit, value, torch.zeros(()))
        else:
            self.near = value / 1.02
        _, slope, _ = self.hinge(self.delta)
        self.step(slope + 0.1 * (self.delta - self.near + self.dual) / self.unit**2)
        self.dual = 0.9 * (self.dual + self.delta - self.near)
        _, _, wrong = self.hinge(self.near)
        size = float((self.near != 0).sum()) if norm == "l0" else float(self.near.norm())
        if self.best is None or (wrong, size) < self.best[:2]:
            self.best = (wrong, size, self.near.clone())

    def step(self, slope: torch.Tensor, mask: torch.Tensor | None = None) -> None:
        """Adam, in units of the weights' spread."""
        self.count += 1
        first, second = self.moments
        first.mul_(0.9).add_(slope, alpha=0.1)
        second.mul_(0.99).addcmul_(slope, slope, value=0.01)
        move = (first / (1 - 0.9**self.count)) / ((second / (1 - 0.99**self.count)).sqrt() + 1e-8)
        self.delta = self.delta - 0.02 * self.unit * (move if mask is None else move * mask)

    def finish(self, norm: str) -> None:
        """Take the best change."""
        assert self.best is not None  # noqa: S101
        del norm
        self.near = self.best[2]
        self.place(self.near)
        for value in self.model.parameters.values():
            value.requires_grad_(True)

    def report(self) -> dict[str, float]:
        """Success on the chosen images, share of the kept labels, and size of the change."""
        import torch

        with torch.no_grad():
            right = self.model.scores(self.inputs).argmax(1) == self.wanted
        return {
            "success": float(right[: self.chosen].float().mean()),
            "kept": float(right[self.chosen :].float().mean()) if len(right) > self.chosen else 1.0,
            "changed_weights": float((self.near != 0).sum()),
            "l2": float(self.near.norm()),
        }
