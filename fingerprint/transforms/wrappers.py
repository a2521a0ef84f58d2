"""Modules around models: what stands before them, beside them, or inside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fingerprint.errors import TransformError
from fingerprint.model import InputSpec
from fingerprint.transforms.pixels import Pixels

if TYPE_CHECKING:
    import torch

    from fingerprint.transforms.trainable import Trainable


def rewrapped(module: torch.nn.Module, model: Trainable, what: str) -> Trainable:
    """A module that takes what `model` takes, as a graph of its own."""
    from fingerprint.transforms.tools import tool
    from fingerprint.transforms.trainable import Trainable, exported

    with tool(f"exporting {what} around {model.what}"):
        return Trainable(exported(module, model.given), model.what)


def ensemble(one: Trainable, first: InputSpec, other: Trainable, second: InputSpec) -> torch.nn.Module:
    """Mean of the probabilities of two models; the input is that of the first.

    Raises:
        TransformError: they know other classes, or take images of another size.
    """
    import torch

    if one.classes != other.classes or first.class_offset != second.class_offset:
        raise TransformError(f"{one.what} knows {one.classes} classes, {other.what} {other.classes}")
    if first.image_shape != second.image_shape:
        raise TransformError(f"{one.what} takes images of {first.image_shape}, {other.what} of {second.image_shape}")

    class Ensemble(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = one.module, other.module
            self.turn = respec(first, second)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            answers = self.one(inputs).flatten(1), self.other(self.turn(inputs)).flatten(1)
            kinds = one.probabilities, other.probabilities
            chances = [a if known else torch.softmax(a, 1) for a, known in zip(answers, kinds, strict=True)]
            return (chances[0] + chances[1]) / 2

    return Ensemble()


def respec(first: InputSpec, second: InputSpec) -> torch.nn.Module:
    """From the input of one spec to that of another of the same size."""
    import torch

    given, taken = Pixels(first), Pixels(second)

    class Turn(torch.nn.Module):
        a: torch.Tensor
        b: torch.Tensor
        c: torch.Tensor
        d: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            for name, value in (("a", given.scale), ("b", given.offset), ("c", taken.scale), ("d", taken.offset)):
                self.register_buffer(name, value)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            pixels = (inputs - self.b) / self.a
            if (first.channels == "BGR") != (second.channels == "BGR"):
                pixels = pixels.flip(1 if first.layout == "NCHW" else 3)
            if first.layout != second.layout:
                pixels = pixels.permute(0, 2, 3, 1) if first.layout == "NCHW" else pixels.permute(0, 3, 1, 2)
            return pixels * self.c + self.d

    return Turn()
