"""What a probe family is: a method that makes candidate probes for an owner model.

Every candidate is an 8-bit image from the moment it is optimised. Families over-generate; `selection` keeps the best.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from fingerprint.data import CleanImages
from fingerprint.frozen import dataclass
from fingerprint.model import Floats, Images, InputSpec, Labels
from fingerprint.progress import Progress

if TYPE_CHECKING:
    import torch
    from _typeshed import DataclassInstance

    from fingerprint.probes.gradient import DifferentiableOwner

Survival = Callable[[Images, Labels], Floats]  # (N, H, W, C), (N,) -> (copies, N): margin of the target label
Predict = Callable[[Images], Floats]  # (N, H, W, C) uint8 -> (N, K) outputs aligned to common classes


@dataclass(frozen=True)
class ProbeContext:
    """What a family may use.

    predict: the owner's outputs on 8-bit images, (N, K) cut to the common classes. module: the owner as a
    differentiable torch module in eval mode that takes *model input*, or None. survival: margins of the target label
    on compressed copies of the owner; below zero the label is lost.
    data: clean images, if any. seed: bytes that decide all randomness of this family.
    batches: smallest and largest batch that the module takes (None: no limit). others: outputs of unrelated nets that
    `create` trained for screening, and of screen models, for families that say `needs_others`. twins: screen models
    (`api.screen_models`) that give gradients.
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
    others: Sequence[Predict] = ()
    twins: Sequence[DifferentiableOwner] = ()


@dataclass(frozen=True)
class Candidates:
    """Candidate probes. images (N, H, W, C) uint8; targets (N,) the label that the owner gives them; kind (N,) names;
    passes: example-passes spent (one forward or one backward of one probe = 1); slack: margin that a compressed copy
    must leave for a probe to count as robust; groups: (N,) number of the group that a probe belongs to (a composite, a
    trajectory, a position), None where probes stand alone; merit: (N,) what the family itself adds to a probe's
    Uniqueness Score when `create` selects."""

    images: Images
    targets: Labels
    kinds: tuple[str, ...]
    passes: int
    parameters: Mapping[str, JsonValue]
    slack: float = 0.0
    groups: Labels | None = None
    merit: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def take(self, index: NDArray[np.int64]) -> Candidates:
        """The candidates at `index`."""
        kinds = tuple(self.kinds[i] for i in index)
        groups = None if self.groups is None else self.groups[index]
        merit = None if self.merit is None else self.merit[index]
        return replace(
            self, images=self.images[index], targets=self.targets[index], kinds=kinds, groups=groups, merit=merit
        )


class ProbeFamily(ABC):
    """One method of making probes, configured in `__init__` and called on a context.

    needs_labels: works only with labelled clean images; needs_data: only with clean images; needs_others: only with
    unrelated nets, so it is part of a default only beside screen models. holds_off: makes probes against screen models
    itself. purpose: which axis of a verdict the probes serve. oversample: candidates to ask for per probe kept.
    """

    name: ClassVar[str]
    needs_gradients: ClassVar[bool]
    needs_labels: ClassVar[bool]
    needs_data: ClassVar[bool] = False
    needs_others: ClassVar[bool] = False
    holds_off: ClassVar[bool] = False
    purpose: ClassVar[Literal["lineage", "integrity"]] = "lineage"
    oversample: ClassVar[int] = 2

    @abstractmethod
    def generate(self, context: ProbeContext, count: int) -> Candidates:
        """Make at most `count` candidates to which the owner gives their target label.

        Raises:
            CreateError: none came out, with the reason.
        """


def settings(configured: DataclassInstance) -> dict[str, JsonValue]:
    """The fields of a configured family, or of a part of it, as JSON values for `Family.parameters`."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(configured).items()}
