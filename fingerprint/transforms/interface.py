"""What a transformation is: a way to derive a model file from another.

Grammar of `--how`: steps joined by `+`, each `name[:argument[:argument]]`, for example `prune:magnitude:0.5`,
`quantize:int8`, `quantize:static:int8`, `compile:onnx`, `prune:magnitude:0.5+compile:litert`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fingerprint.model import Images, InputSpec

Weights = dict[str, NDArray[np.float32]]  # weight tensors (two or more dimensions) by name
Axes = Mapping[str, int]  # the axis of a weight that counts output channels, by name; absent = 0, may be negative
NO_AXES: Axes = MappingProxyType({})


@dataclass(frozen=True)
class DeriveContext:
    """What a transformation may use: the model's input spec, and clean images for calibration if there are any.

    `factory` is `module:callable`: it builds the torch module whose state dict a `.pth` or `.safetensors` holds.
    """

    spec: InputSpec | None
    images: Images | None = None
    factory: str | None = None


class Transform(ABC):
    """One configured step. Built by `parse`, applied to a file."""

    name: ClassVar[str]
    help: ClassVar[str]  # one line for --help, with the grammar

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

    def apply(self, source: Path, out: Path, context: DeriveContext) -> None:
        """Write `source` with edited weights to `out`, in the format of `source`."""
        from fingerprint.transforms.tools import tool
        from fingerprint.transforms.weights import open_weights

        with tool(f"{self.spell()} of {source.name}"):
            file = open_weights(source)
            file.save(out, self.edit(file.weights, file.axes))
