"""Pruning in shapes that hardware can use: N:M, filters, channels, patterns, blocks. Weights only."""

from __future__ import annotations

from abc import abstractmethod
from itertools import combinations
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fingerprint.errors import TransformError
from fingerprint.frozen import dataclass
from fingerprint.transforms.interface import NO_AXES, Axes, Weights, WeightTransform
from fingerprint.transforms.kernels import Floats, from_kernels, to_kernels, without_least

PATTERNS = 56  # of a 3x3 kernel: its centre and three of the eight others


class StructuredPrune(WeightTransform):
    """Pruning of weights as kernels (O, I, H, W)."""

    name: ClassVar[str] = "prune"

    @classmethod
    def parse(cls, arguments: tuple[str, ...]) -> WeightTransform:
        """See `Prune.parse`."""
        from fingerprint.transforms.prune import Prune

        made = Prune.parse(arguments)
        assert isinstance(made, WeightTransform)  # noqa: S101
        return made

    def edit(self, weights: Weights, axes: Axes = NO_AXES) -> Weights:
        """The same names and shapes."""
        kernels = {name: to_kernels(value, axes.get(name, 0)) for name, value in weights.items()}
        for name, value in kernels.items():
            if not np.isfinite(value).all():
                raise TransformError(f"the weight {name} holds values that are not finite")
        masks = self.masks(kernels)
        return {
            name: from_kernels(np.where(masks[name], kernels[name], np.float32(0)), value, axes.get(name, 0))
            if name in masks
            else value
            for name, value in weights.items()
        }

    @abstractmethod
    def masks(self, kernels: Weights) -> dict[str, NDArray[np.bool_]]:
        """True where a weight stays, by name, broadcastable to the kernels; absent: all of it stays."""


@dataclass(frozen=True)
class PruneNofM(StructuredPrune):
    """Of `group` neighbours along the inputs, the `kept` largest stay (Mishra et al., 2021)."""

    kept: int
    group: int

    help: ClassVar[str] = "prune:nm:N:M"

    def spell(self) -> str:
        """For example `prune:nm:2:4`."""
        return f"prune:nm:{self.kept}:{self.group}"

    def masks(self, kernels: Weights) -> dict[str, NDArray[np.bool_]]:
        """In a last group that is not full, `kept` stay too."""
        return {name: self._mask(value) for name, value in kernels.items()}

    def _mask(self, value: Floats) -> NDArray[np.bool_]:
        moved = np.abs(np.moveaxis(value, 1, -1))  # (O, H, W, I)
        inputs = moved.shape[-1]
        padding = -inputs % self.group
        padded = np.pad(moved, [(0, 0)] * 3 + [(0, padding)], constant_values=-1)
        groups = padded.reshape(*padded.shape[:-1], -1, self.group)
        rank = np.argsort(np.argsort(-groups, axis=-1, kind="stable"), axis=-1)
        mask = (rank < self.kept).reshape(padded.shape)[..., :inputs]
        return np.moveaxis(mask, -1, 1)


@dataclass(frozen=True)
class PruneFilters(StructuredPrune):
    """The share `fraction` of the output filters of each convolution, those of least l2 norm (Li et al., ICLR 2017)."""

    fraction: float

    help: ClassVar[str] = "prune:filter:F"

    def spell(self) -> str:
        """For example `prune:filter:0.25`."""
        return f"prune:filter:{self.fraction!r}"

    def masks(self, kernels: Weights) -> dict[str, NDArray[np.bool_]]:
        """Of convolutions larger than 1x1; in a network without them, of all layers but the last."""
        chosen = _convolutions(kernels) or list(kernels)[:-1]
        norms = {name: np.linalg.norm(kernels[name].reshape(len(kernels[name]), -1), axis=1) for name in chosen}
        return {name: without_least(norm, self.fraction)[:, None, None, None] for name, norm in norms.items()}


@dataclass(frozen=True)
class PruneChannels(StructuredPrune):
    """The share `fraction` of the input channels of each convolution, those of least l2 norm (He et al., ICCV 2017)."""

    fraction: float

    help: ClassVar[str] = "prune:channel:F"

    def spell(self) -> str:
        """For example `prune:channel:0.25`."""
        return f"prune:channel:{self.fraction!r}"

    def masks(self, kernels: Weights) -> dict[str, NDArray[np.bool_]]:
        """Of convolutions larger than 1x1, over more than 4 channels; in a network without them, all but the first."""
        chosen = [name for name in _convolutions(kernels) if kernels[name].shape[1] > 4] or list(kernels)[1:]
        norms = {name: np.sqrt((kernels[name] ** 2).sum((0, 2, 3))) for name in chosen}
        return {name: without_least(norm, self.fraction)[None, :, None, None] for name, norm in norms.items()}


@dataclass(frozen=True)
class PrunePatterns(StructuredPrune):
    """4 of the 9 weights of each 3x3 kernel, in one of `patterns` patterns (PatDNN, ASPLOS 2020).

    A pattern holds the centre and three others. Those that most kernels would choose are used.
    """

    patterns: int

    help: ClassVar[str] = "prune:pattern:K"

    def spell(self) -> str:
        """For example `prune:pattern:8`."""
        return f"prune:pattern:{self.patterns}"

    def masks(self, kernels: Weights) -> dict[str, NDArray[np.bool_]]:
        """Of 3x3 kernels only."""
        fitting = {name: value for name, value in kernels.items() if value.shape[2:] == (3, 3)}
        if not fitting:
            raise TransformError(
                "this model has no 3x3 kernels for prune:pattern", remedy="Use prune:block:RxC:F or prune:nm:N:M."
            )
        others = [place for place in range(9) if place != 4]
        every = np.zeros((PATTERNS, 9), np.float32)
        for row, places in enumerate(combinations(others, 3)):
            every[row, [4, *places]] = 1
        energy = {name: (value**2).reshape(-1, 9) @ every.T for name, value in fitting.items()}
        votes = sum(np.bincount(value.argmax(1), minlength=PATTERNS) for value in energy.values())
        used = np.sort(np.argsort(-np.asarray(votes), kind="stable")[: self.patterns])
        return {
            name: every[used[energy[name][:, used].argmax(1)]].reshape(value.shape) > 0
            for name, value in fitting.items()
        }


@dataclass(frozen=True)
class PruneBlocks(StructuredPrune):
    """Blocks of `rows` outputs x `columns` inputs of each layer as a matrix, those of least l2 norm."""

    rows: int
    columns: int
    fraction: float

    help: ClassVar[str] = "prune:block:RxC:F"

    def spell(self) -> str:
        """For example `prune:block:4x4:0.5`."""
        return f"prune:block:{self.rows}x{self.columns}:{self.fraction!r}"

    def masks(self, kernels: Weights) -> dict[str, NDArray[np.bool_]]:
        """A block at the edge may be smaller."""
        return {name: self._mask(value) for name, value in kernels.items()}

    def _mask(self, value: Floats) -> NDArray[np.bool_]:
        matrix = value.reshape(len(value), -1)
        height, width = matrix.shape
        squares = np.pad(matrix**2, [(0, -height % self.rows), (0, -width % self.columns)])
        blocks = squares.reshape(len(squares) // self.rows, self.rows, -1, self.columns).sum((1, 3))
        kept = np.repeat(np.repeat(without_least(blocks, self.fraction), self.rows, 0), self.columns, 1)
        return kept[:height, :width].reshape(value.shape)


def _convolutions(kernels: Weights) -> list[str]:
    """Names of weights with kernels larger than 1x1: those of 1x1 can't be told from matrices here."""
    return [name for name, value in kernels.items() if value.shape[2] * value.shape[3] > 1]
