"""Fault injection into weights: bits that flip (Rakin et al., ICCV 2019), memory cells that are stuck."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fingerprint.errors import TransformError
from fingerprint.frozen import dataclass
from fingerprint.transforms.interface import Axes, RandomWeightTransform, Transform, Weights
from fingerprint.transforms.options import count, share

GRAMMAR = (
    "fault:flip:N (N random bits of the float32 weights), fault:flip8:N (of the weights as 8-bit integers), "
    "fault:stuck:F:zero or fault:stuck:F:max (the share F is stuck)"
)
_TRIES = 64  # draws for a bit whose flip leaves a finite value


class Fault(Transform):
    """The family of faults; `parse` answers the one that is meant."""

    name: ClassVar[str] = "fault"
    help: ClassVar[str] = GRAMMAR

    @classmethod
    def parse(cls, arguments: tuple[str, ...]) -> Transform:
        """From (`flip` or `flip8`, N) or (`stuck`, F, `zero` or `max`)."""
        match arguments:
            case ("flip" | "flip8" as kind, number):
                return BitFlips(count(number, GRAMMAR), integers=kind == "flip8")
            case ("stuck", part, "zero" | "max" as level):
                return Stuck(share(part, GRAMMAR), level)
        raise TransformError(f"fault can't be told {':'.join(arguments)!r}", remedy=f"Write {GRAMMAR}.")


@dataclass(frozen=True)
class BitFlips(RandomWeightTransform, Fault):
    """`number` random bits flip, of float32 values, or of the 8-bit integers that the weights would be stored as."""

    number: int
    integers: bool = False

    def spell(self) -> str:
        """For example `fault:flip:100`."""
        return f"fault:flip{'8' if self.integers else ''}:{self.number}"

    def draw(self, weights: Weights, axes: Axes, rng: np.random.Generator) -> Weights:
        """Every weight is as likely. A flip to what is not finite is drawn again."""
        del axes
        out = {name: value.copy() for name, value in weights.items()}
        flat = [value.reshape(-1) for value in out.values()]
        ends = np.cumsum([value.size for value in flat])
        scales = [float(np.abs(value).max(initial=0)) / 127 for value in flat]
        for place in rng.integers(0, ends[-1], self.number):
            which = int(np.searchsorted(ends, place, side="right"))
            values, offset = flat[which], int(place - (ends[which] - flat[which].size))
            values[offset] = (
                _flipped8(values[offset], scales[which], rng) if self.integers else _flipped(values[offset], rng)
            )
        return out


@dataclass(frozen=True)
class Stuck(RandomWeightTransform, Fault):
    """The share `part` of the weights is stuck at zero, or at plus or minus the largest value of its tensor."""

    part: float
    level: str

    def spell(self) -> str:
        """For example `fault:stuck:0.01:zero`."""
        return f"fault:stuck:{self.part!r}:{self.level}"

    def draw(self, weights: Weights, axes: Axes, rng: np.random.Generator) -> Weights:
        """round(part * n) weights of all n."""
        del axes
        total = sum(value.size for value in weights.values())
        places = rng.permutation(total)[: round(self.part * total)]
        signs = rng.choice(np.array([-1, 1], np.float32), total)
        hit = np.zeros(total, bool)
        hit[places] = True
        out, start = {}, 0
        for name, value in weights.items():
            end = start + value.size
            limit = np.abs(value).max(initial=0) if self.level == "max" else np.float32(0)
            stuck = (signs[start:end] * limit).reshape(value.shape)
            out[name] = np.where(hit[start:end].reshape(value.shape), stuck, value).astype(np.float32)
            start = end
        return out


def _flipped(value: np.float32, rng: np.random.Generator) -> np.float32:
    for _ in range(_TRIES):
        bits: NDArray[np.uint32] = np.array([value], np.float32).view(np.uint32) ^ np.uint32(1 << int(rng.integers(32)))
        (made,) = bits.view(np.float32)
        if np.isfinite(made):
            return np.float32(made)
    return value


def _flipped8(value: np.float32, scale: float, rng: np.random.Generator) -> np.float32:
    if not scale:
        return value
    stored = np.array([np.rint(value / scale)], np.float32).clip(-127, 127).astype(np.int8)
    (made,) = (stored.view(np.uint8) ^ np.uint8(1 << int(rng.integers(8)))).view(np.int8)
    return np.float32(made * scale)
