"""Gaussian noise on the weights, as a thief adds it before fine-tuning."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from fingerprint.errors import TransformError
from fingerprint.frozen import dataclass
from fingerprint.transforms.interface import Axes, RandomWeightTransform, Weights
from fingerprint.transforms.options import positive

GRAMMAR = "noise:S (Gaussian noise of S times the standard deviation of each weight tensor)"


@dataclass(frozen=True)
class Noise(RandomWeightTransform):
    """Add noise of `scale` times each tensor's standard deviation to its weights."""

    scale: float

    name: ClassVar[str] = "noise"
    help: ClassVar[str] = GRAMMAR

    @classmethod
    def parse(cls, arguments: tuple[str, ...]) -> Noise:
        """From (S,)."""
        if len(arguments) != 1:
            raise TransformError(f"noise can't be told {':'.join(arguments)!r}", remedy=f"Write {GRAMMAR}.")
        return cls(positive(arguments[0], GRAMMAR))

    def spell(self) -> str:
        """For example `noise:0.1`."""
        return f"noise:{self.scale!r}"

    def draw(self, weights: Weights, axes: Axes, rng: np.random.Generator) -> Weights:
        """Noise for every weight, zeros included."""
        del axes
        return {
            name: value + np.float32(self.scale * value.std()) * rng.standard_normal(value.shape, np.float32)
            for name, value in weights.items()
        }
