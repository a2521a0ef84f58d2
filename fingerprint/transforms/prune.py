"""Pruning: the family, and the kind by magnitude: the smallest weights become zero."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fingerprint.errors import TransformError
from fingerprint.frozen import dataclass
from fingerprint.transforms.interface import NO_AXES, Axes, Transform, Weights, WeightTransform
from fingerprint.transforms.options import count

GRAMMAR = (
    "prune:magnitude:F (over all layers) or prune:layer:F (in each layer), with 0 < F < 1 the share set to zero; "
    "prune:nm:N:M (N of M neighbours stay), prune:filter:F, prune:channel:F, prune:pattern:K (4 of 9), "
    "prune:block:RxC:F; prune:bilevel:F (learned; needs labelled images), prune:shrink:F (filters taken out)"
)


@dataclass(frozen=True)
class Prune(WeightTransform):
    """Set the share `fraction` of the weights to zero: those of least magnitude."""

    scope: str  # "magnitude": ranked over all tensors together; "layer": in each tensor by itself
    fraction: float

    name: ClassVar[str] = "prune"
    help: ClassVar[str] = GRAMMAR

    @classmethod
    def parse(cls, arguments: tuple[str, ...]) -> Transform:
        """From (`magnitude` or `layer`, F), or what the other kinds of pruning take."""
        match arguments:
            case ("magnitude" | "layer" as scope, share):
                return cls(scope, _fraction(share))
            case ("bilevel", *rest):
                from fingerprint.transforms.prune_bilevel import PruneBilevel

                return PruneBilevel.read(rest, GRAMMAR)
            case ("shrink", share):
                from fingerprint.transforms.prune_shrink import PruneShrink

                return PruneShrink(_fraction(share))
            case ("nm" | "filter" | "channel" | "pattern" | "block", *_):
                return _structured(arguments)
        raise TransformError(f"prune can't be told {':'.join(arguments)!r}", remedy=f"Write {GRAMMAR}.")

    def spell(self) -> str:
        """For example `prune:magnitude:0.5`."""
        return f"prune:{self.scope}:{self.fraction!r}"

    def edit(self, weights: Weights, axes: Axes = NO_AXES) -> Weights:
        """Of n entries (all, or of each tensor) round(F * n) become zero; more are zero where more were so before."""
        if self.scope == "layer":
            return {
                name: _without_smallest(value.ravel(), self.fraction).reshape(value.shape)
                for name, value in weights.items()
            }
        flat = np.concatenate([value.ravel() for value in weights.values()] or [np.empty(0, np.float32)])
        pruned = _without_smallest(flat, self.fraction)
        ends = np.cumsum([value.size for value in weights.values()])[:-1]
        parts = np.split(pruned, ends)
        return {name: part.reshape(value.shape) for (name, value), part in zip(weights.items(), parts, strict=False)}


def _structured(arguments: tuple[str, ...]) -> Transform:
    from fingerprint.transforms import prune_structured as kinds

    match arguments:
        case ("nm", kept, group):
            size = count(group, GRAMMAR, 2, 1024)
            return kinds.PruneNofM(count(kept, GRAMMAR, 1, size - 1), size)
        case ("filter", share):
            return kinds.PruneFilters(_fraction(share))
        case ("channel", share):
            return kinds.PruneChannels(_fraction(share))
        case ("pattern",):
            return kinds.PrunePatterns(8)
        case ("pattern", number):
            return kinds.PrunePatterns(count(number, GRAMMAR, 1, kinds.PATTERNS))
        case ("block", size_text, share) if size_text.count("x") == 1:
            rows, columns = (count(side, GRAMMAR, 1, 4096) for side in size_text.split("x"))
            return kinds.PruneBlocks(rows, columns, _fraction(share))
    raise TransformError(f"prune can't be told {':'.join(arguments)!r}", remedy=f"Write {GRAMMAR}.")


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise TransformError(f"{text!r} is no share between 0 and 1", remedy=f"Write {GRAMMAR}.")
    return value


def _without_smallest(values: NDArray[np.float32], fraction: float) -> NDArray[np.float32]:
    """A copy (n,) whose round(fraction * n) entries of least magnitude are zero; of equal ones, the first."""
    count = round(fraction * values.size)
    out = values.copy()
    if count == 0:
        return out
    size = np.abs(values)
    if not np.isfinite(size).all():
        raise TransformError("the weights hold values that are not finite")
    limit = np.partition(size, count - 1)[count - 1]
    out[size < limit] = 0.0
    ties = np.flatnonzero(size == limit)
    out[ties[: count - int((size < limit).sum())]] = 0.0
    return out
