"""Quantization. Here: of weight values only. With activations, see `quantize_files`."""

from __future__ import annotations

import re
from typing import ClassVar

import numpy as np

from fingerprint.errors import TransformError
from fingerprint.frozen import dataclass
from fingerprint.transforms.interface import NO_AXES, Axes, Transform, Weights, WeightTransform
from fingerprint.transforms.rounding import from_bfloat16, to_bfloat16, to_float16, to_integers

GRAMMAR = (
    "quantize:intN (weights only, N from 2 to 8, one scale per output channel), quantize:intN:tensor (one scale per "
    "tensor), quantize:fp16, quantize:bf16, quantize:static:int8 (activations too; needs clean images), "
    "quantize:dynamic:int8, quantize:qat:intN (weights only, trained with the rounding; needs labelled images)"
)


class Quantize(Transform):
    """The family of quantizations; `parse` answers the one that is meant."""

    name: ClassVar[str] = "quantize"
    help: ClassVar[str] = GRAMMAR

    @classmethod
    def parse(cls, arguments: tuple[str, ...]) -> Transform:
        """From (`intN`,), (`intN`, `tensor`), (`fp16`,), (`bf16`,), (`static`, `int8`) or (`dynamic`, `int8`)."""
        from fingerprint.transforms.quantize_files import QuantizeDynamic, QuantizeStatic

        match arguments:
            case ("fp16" | "bf16" as kind,):
                return RoundFloats(kind)
            case ("static", "int8"):
                return QuantizeStatic()
            case ("dynamic", "int8"):
                return QuantizeDynamic()
            case ("qat", kind, *rest) if re.fullmatch("int[2-8]", kind):
                from fingerprint.transforms.qat import QuantizeTrained

                return QuantizeTrained.read(int(kind[3:]), tuple(rest), GRAMMAR)
            case (kind,) | (kind, "tensor") if re.fullmatch("int[2-8]", kind):
                return RoundIntegers(int(kind[3:]), per_channel=len(arguments) == 1)
        raise TransformError(f"quantize can't be told {':'.join(arguments)!r}", remedy=f"Write {GRAMMAR}.")


@dataclass(frozen=True)
class RoundIntegers(WeightTransform, Quantize):
    """Weights rounded to `bits`-bit symmetric integers times a scale; the file still stores them as floats."""

    bits: int
    per_channel: bool = True

    def spell(self) -> str:
        """For example `quantize:int8`."""
        return f"quantize:int{self.bits}" + ("" if self.per_channel else ":tensor")

    def edit(self, weights: Weights, axes: Axes = NO_AXES) -> Weights:
        """One scale per output channel, or per tensor."""
        _check_finite(weights)
        return {
            name: to_integers(value, self.bits, axes.get(name, 0) if self.per_channel else None)
            for name, value in weights.items()
        }


@dataclass(frozen=True)
class RoundFloats(WeightTransform, Quantize):
    """Weights rounded to `fp16` or `bf16`; the file still stores them in its own type."""

    kind: str

    def spell(self) -> str:
        """`quantize:fp16` or `quantize:bf16`."""
        return f"quantize:{self.kind}"

    def edit(self, weights: Weights, axes: Axes = NO_AXES) -> Weights:
        """Each value by itself."""
        _check_finite(weights)
        if self.kind == "fp16":
            return {name: to_float16(value) for name, value in weights.items()}
        return {name: from_bfloat16(to_bfloat16(value)) for name, value in weights.items()}


def _check_finite(weights: Weights) -> None:
    for name, value in weights.items():
        if not np.isfinite(value).all():
            raise TransformError(f"the weight {name} holds values that are not finite")
