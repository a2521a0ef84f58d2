"""What a file with editable weights is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fingerprint.errors import TransformError
from fingerprint.transforms.interface import Weights


class WeightFile(ABC):
    """An opened model file. `weights` holds its float weights as float32, `axes` their output-channel axes."""

    weights: Weights
    axes: dict[str, int]

    def save(self, out: Path, weights: Weights) -> None:
        """Write the file with new values for the named weights to `out`, all or nothing.

        Raises:
            TransformError: an unknown name or another shape.
        """
        from fingerprint.transforms.files import written

        check_same_tensors(self.weights, weights)
        with written(out) as temporary:
            self._write(temporary, weights)

    @abstractmethod
    def _write(self, out: Path, weights: Weights) -> None:
        """Write; names and shapes are right, some names may be absent."""


def is_weight(shape: Sequence[int]) -> bool:
    """Whether a float tensor of this shape is a weight: two or more dimensions.

    A vector in disguise is none: (1, C, 1, 1) is how a per-channel bias, mean or scale is stored.
    """
    return len(shape) == 2 or (len(shape) > 2 and sum(size > 1 for size in shape) > 1)


def check_same_tensors(old: Weights, new: Weights) -> None:
    """Raise TransformError unless every name in `new` is in `old`, with the same shape."""
    for name, value in new.items():
        if name not in old:
            raise TransformError(f"there is no weight tensor named {name!r}")
        if old[name].shape != value.shape:
            raise TransformError(f"{name}: shape {value.shape} can't replace {old[name].shape}")


def in_own_type(stored: NDArray[np.generic], new: NDArray[np.float32]) -> NDArray[np.generic]:
    """New values in the dtype in which the file stores them; values that did not change stay bit by bit."""
    kept = stored.astype(np.float32) == new
    with np.errstate(over="ignore"):
        return np.where(kept, stored, new.astype(stored.dtype))
