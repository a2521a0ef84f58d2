"""Block-circulant weights: each block is replaced by the nearest circulant matrix (Ding et al., CirCNN, MICRO 2017)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from fingerprint.errors import TransformError
from fingerprint.frozen import dataclass
from fingerprint.transforms.interface import NO_AXES, Axes, Weights, WeightTransform
from fingerprint.transforms.kernels import Floats, from_kernels, to_kernels
from fingerprint.transforms.options import count

GRAMMAR = "circulant:B (nearest block-circulant weights, blocks of B outputs x B inputs)"


@dataclass(frozen=True)
class Circulant(WeightTransform):
    """Project every full block of `size` outputs x `size` inputs, at each place of the kernel by itself."""

    size: int

    name: ClassVar[str] = "circulant"
    help: ClassVar[str] = GRAMMAR

    @classmethod
    def parse(cls, arguments: tuple[str, ...]) -> Circulant:
        """From (B,)."""
        if len(arguments) != 1:
            raise TransformError(f"circulant can't be told {':'.join(arguments)!r}", remedy=f"Write {GRAMMAR}.")
        return cls(count(arguments[0], GRAMMAR, 2, 4096))

    def spell(self) -> str:
        """For example `circulant:4`."""
        return f"circulant:{self.size}"

    def edit(self, weights: Weights, axes: Axes = NO_AXES) -> Weights:
        """What does not fill a block stays as it is.

        Raises:
            TransformError: a weight is not finite, or no layer is as large as a block.
        """
        out: Weights = {}
        for name, value in weights.items():
            if not np.isfinite(value).all():
                raise TransformError(f"the weight {name} holds values that are not finite")
            kernels = to_kernels(value, axes.get(name, 0))
            out[name] = from_kernels(self._projected(kernels), value, axes.get(name, 0))
        if all(min(to_kernels(value, axes.get(name, 0)).shape[:2]) < self.size for name, value in weights.items()):
            raise TransformError(f"no layer has {self.size} outputs and inputs", remedy="Use smaller blocks.")
        return out

    def _projected(self, kernels: Floats) -> Floats:
        size = self.size
        rows, columns = (length // size for length in kernels.shape[:2])
        if not rows or not columns:
            return kernels
        out = kernels.copy()
        area = kernels[: rows * size, : columns * size]
        blocks = area.reshape(rows, size, columns, size, *kernels.shape[2:])
        line = np.arange(size)
        turn = (line[None, :] + line[:, None]) % size  # row i of a circulant matrix is its first row moved by i
        first = blocks[:, line[:, None], :, turn].mean(0)  # (turn, rows, columns, H, W)
        made = first[(line[None, :] - line[:, None]) % size]  # (i, j, rows, columns, H, W)
        out[: rows * size, : columns * size] = made.transpose(2, 0, 3, 1, 4, 5).reshape(area.shape)
        return out
