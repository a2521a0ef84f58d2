"""What a probe family is: a method that makes candidate probes for an owner model.

Every candidate is an 8-bit image from the moment it is optimised. Families over-generate; `selection` keeps the best.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from fingerprint.data import CleanImages
from fingerprint.model import Floats, Images, InputSpec, Labels
from fingerprint.progress import Progress

if TYPE_CHECKING:
    import torch

Survival = Callable[[Images, Labels], Floats]  # (N, H, W, C), (N,) -> (copies, N): margin of the target label
Predict = Callable[[Images], Floats]  # (N, H, W, C) uint8 -> (N, K) outputs aligned to common classes


@dataclass(frozen=True)
class ProbeContext:
    """What a family may use.

    predict: the owner's outputs on 8-bit images, (N, K) cut to the common classes. module: the owner as a
    differentiable torch module in eval mode that takes *model input*, or None. survival: margins of the target label
    on compressed copies of the owner; below zero the label is lost.
    data: clean images, if any. seed: bytes that decide all randomness of this family.
    batches: smallest and largest batch that the module takes (None: no limit).
    """

    predict: Predict
    module: torch.nn.Module | None
    survival: Survival
    spec: InputSpec
    classes: int
    data: CleanImages | None
    seed: bytes
    progress: Progress
    batches: tuple[int, int | None] = (1, None)


@dataclass(frozen=True)
class Candidates:
    """Candidate probes. images (N, H, W, C) uint8; targets (N,) the label that the owner gives them; kind (N,) names;
    passes: example-passes spent (one forward or one backward of one probe = 1); slack: margin that a compressed copy
    must leave for a probe to count as robust."""

    images: Images
    targets: Labels
    kinds: tuple[str, ...]
    passes: int
    parameters: Mapping[str, JsonValue]
    slack: float = 0.0

    def __len__(self) -> int:
        return len(self.images)

    def take(self, index: NDArray[np.int64]) -> Candidates:
        """The candidates at `index`."""
        kinds = tuple(self.kinds[i] for i in index)
        return replace(self, images=self.images[index], targets=self.targets[index], kinds=kinds)


class ProbeFamily(ABC):
    """One method of making probes, configured in `__init__` and called on a context."""

    name: ClassVar[str]
    needs_gradients: ClassVar[bool]
    needs_labels: ClassVar[bool]

    @abstractmethod
    def generate(self, context: ProbeContext, count: int) -> Candidates:
        """Make at most `count` candidates to which the owner gives their target label.

        Raises:
            CreateError: none came out, with the reason.
        """
