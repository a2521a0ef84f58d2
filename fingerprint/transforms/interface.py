"""What a transformation is: a way to derive a model file from another.

Grammar of `--how`: steps joined by `+`, each `name[:argument[:argument]]`, for example `prune:magnitude:0.5`,
`quantize:int8`, `quantize:static:int8`, `compile:onnx`, `prune:magnitude:0.5+compile:litert`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import field
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fingerprint.data import CleanImages
from fingerprint.frozen import dataclass
from fingerprint.model import Images, InputSpec, Labels
from fingerprint.progress import Progress, Silent

Weights = dict[str, NDArray[np.float32]]  # weight tensors (two or more dimensions) by name
Axes = Mapping[str, int]  # the axis of a weight that counts output channels, by name; absent = 0, may be negative
NO_AXES: Axes = MappingProxyType({})


def _unheard(name: str, value: float) -> None:
    """Nobody wants to know."""


@dataclass(frozen=True)
class DeriveContext:
    """What a transformation may use: the model's input spec, and clean images for calibration if there are any.

    `factory` is `module:callable`: it builds the torch module whose state dict a `.pth` or `.safetensors` holds.

    Attributes:
        labels: (N,) common labels of `images`; needed by most steps that train.
        held_out: what accuracy and agreement are measured on. Absent: a part of `images` that no step sees, or all of
            them where no step trains.
        seed: decides everything that is random.
        progress: is told where long work is.
        device: `cpu` or `cuda` for steps that train; None = a GPU where there is one.
        measure: whether accuracy and agreement of what was made are measured.
        tell: receives what a step measures of itself, by name, such as `sparsity`.
    """

    spec: InputSpec | None
    images: Images | None = None
    factory: str | None = None
    labels: Labels | None = None
    held_out: CleanImages | None = None
    seed: int = 0
    progress: Progress = field(default_factory=Silent)
    device: str | None = None
    measure: bool = True
    tell: Callable[[str, float], None] = _unheard


class Transform(ABC):
    """One configured step. Built by `parse`, applied to a file."""

    name: ClassVar[str]
    help: ClassVar[str]  # one line for --help, with the grammar
    trains: ClassVar[bool] = False  # whether it learns from the images
    same_task: ClassVar[bool] = True  # whether labels mean the same before and after

    @classmethod
    @abstractmethod
    def parse(cls, arguments: tuple[str, ...]) -> Transform:
        """Configure from the grammar's arguments. May answer a subclass.

        Raises:
            TransformError: unknown argument, with the grammar in the remedy.
        """

    @abstractmethod
    def spell(self) -> str:
        """The canonical text of this step (`parse` reads it back)."""

    def check(self, context: DeriveContext) -> None:
        """Look whether the context holds what this step needs, before any step of a chain runs.

        Raises:
            TransformError: it does not, with the remedy.
        """
        return None

    def spec_after(self, context: DeriveContext) -> InputSpec | None:
        """The input spec of what this step makes; the source's, unless it changes the classes."""
        return context.spec

    @abstractmethod
    def apply(self, source: Path, out: Path, context: DeriveContext) -> None:
        """Read `source`, write the derived model to `out` (whose format its suffix names)."""


class WeightTransform(Transform):
    """A transformation of weight values only: needs no data and keeps the file format.

    `create` uses these on in-memory copies of the owner to measure robustness (`weights.edit_module`); `derive` on
    files of any format whose weights can be edited in place (torch, ONNX, TFLite, safetensors).
    """

    @abstractmethod
    def edit(self, weights: Weights, axes: Axes = NO_AXES) -> Weights:
        """New values for weight tensors of two or more dimensions: same names, shapes and dtype float32.

        Raises:
            TransformError: a weight is not finite.
        """

    def edit_for(self, weights: Weights, axes: Axes, context: DeriveContext) -> Weights:
        """As `edit`; for steps that draw at random, by the context's seed."""
        return self.edit(weights, axes)

    def apply(self, source: Path, out: Path, context: DeriveContext) -> None:
        """Write `source` with edited weights to `out`, in the format of `source`."""
        from fingerprint.transforms.tools import tool
        from fingerprint.transforms.weights import open_weights

        with tool(f"{self.spell()} of {source.name}"):
            file = open_weights(source)
            edited = self.edit_for(file.weights, file.axes, context)
            file.save(out, edited)
        zeros = sum(int((value == 0).sum()) for value in edited.values())
        context.tell("sparsity", zeros / sum(value.size for value in edited.values()))


class RandomWeightTransform(WeightTransform):
    """A transformation of weight values that draws at random."""

    @abstractmethod
    def draw(self, weights: Weights, axes: Axes, rng: np.random.Generator) -> Weights:
        """New values, as `edit` gives them, drawn from `rng`."""

    def edit(self, weights: Weights, axes: Axes = NO_AXES) -> Weights:
        """Drawn with seed 0."""
        return self.draw(weights, axes, np.random.default_rng(0))

    def edit_for(self, weights: Weights, axes: Axes, context: DeriveContext) -> Weights:
        """Drawn with the context's seed."""
        return self.draw(weights, axes, np.random.default_rng(context.seed))
