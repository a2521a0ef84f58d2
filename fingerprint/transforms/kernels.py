"""Weight tensors of any layout as kernels (outputs, inputs, height, width)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def to_kernels(value: Floats, axis: int) -> Floats:
    """A copy as (O, I, H, W): a matrix with H = W = 1, a convolution of another rank with H = 1.

    `axis` counts outputs. Inputs are the next axis, as in torch and ONNX, or the last, as in TFLite: told apart by
    which two axes have one size. Where all three have, inputs are taken to be the next one.
    """
    moved = _outputs_first(value, axis)
    if _inputs_last(moved):
        moved = np.moveaxis(moved, -1, 1)
    outputs, inputs, *sizes = moved.shape
    shape = (outputs, inputs, math.prod(sizes[:-1]), sizes[-1]) if sizes else (outputs, inputs, 1, 1)
    return np.array(moved.reshape(shape), np.float32)


def from_kernels(kernels: Floats, like: Floats, axis: int) -> Floats:
    """The reverse of `to_kernels` for a tensor with the shape of `like`."""
    moved = _outputs_first(like, axis)
    last = _inputs_last(moved)
    shape = np.moveaxis(moved, -1, 1).shape if last else moved.shape
    value = kernels.reshape(shape)
    value = np.moveaxis(value, 1, -1) if last else value
    return np.ascontiguousarray(np.moveaxis(value, 0, axis % like.ndim), np.float32)


def _outputs_first(value: Floats, axis: int) -> Floats:
    return np.moveaxis(value, axis, 0)


def _inputs_last(moved: Floats) -> bool:
    return moved.ndim == 4 and moved.shape[1] == moved.shape[2] != moved.shape[3]


def without_least(scores: NDArray[np.floating], share: float) -> NDArray[np.bool_]:
    """True where a score (any shape) stays: all but the round(share * n) least; of equal ones, the first go."""
    flat = scores.reshape(-1)
    kept = np.ones(flat.size, bool)
    kept[np.argsort(flat, kind="stable")[: round(share * flat.size)]] = False
    return kept.reshape(scores.shape)
