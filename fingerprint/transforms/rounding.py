"""Rounding of weights: symmetric integers, float16, bfloat16."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
FLOAT16_MAX = 65504.0


def to_integers(weights: Floats, bits: int, axis: int | None) -> Floats:
    """Round to `bits`-bit symmetric integers times one scale, max|w| / (2^(bits-1) - 1).

    One scale per slice along `axis` (output channels), or one for the whole tensor where `axis` is None. The error is
    at most half a scale, and rounding twice changes nothing.
    """
    levels = 2 ** (bits - 1) - 1
    values = weights.astype(np.float64)
    others = None if axis is None else tuple(i for i in range(weights.ndim) if i != axis % weights.ndim)
    scale = np.abs(values).max(axis=others, keepdims=True, initial=0.0) / levels
    steps = np.rint(np.divide(values, scale, out=np.zeros_like(values), where=scale > 0))
    rounded: Floats = (steps * scale).astype(np.float32)
    return rounded


def to_float16(weights: Floats) -> Floats:
    """Round to float16; what is too large becomes the largest float16."""
    return weights.clip(-FLOAT16_MAX, FLOAT16_MAX).astype(np.float16).astype(np.float32)


def to_bfloat16(weights: Floats) -> NDArray[np.uint16]:
    """The bits of the nearest bfloat16 (ties to even). Values must be finite; infinity stays infinity."""
    bits = np.ascontiguousarray(weights, np.float32).view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    return ((bits + np.uint32(0x7FFF) + odd) >> np.uint32(16)).astype(np.uint16)


def from_bfloat16(bits: NDArray[np.generic]) -> Floats:
    """Values of bfloat16 bits."""
    values: Floats = (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return values
