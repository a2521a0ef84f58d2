"""Clean images as a model wants them, for calibration."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fingerprint.data import resize
from fingerprint.errors import TransformError
from fingerprint.model import Images, InputSpec
from fingerprint.transforms.interface import DeriveContext

CALIBRATION_IMAGES = 512  # used at most


def check_calibration(context: DeriveContext, what: str) -> tuple[Images, InputSpec]:
    """The images and the spec that calibration needs.

    Raises:
        TransformError: there are no images, or no spec that says how to feed them.
    """
    if context.images is None or not len(context.images):
        raise TransformError(
            f"{what} needs clean images to calibrate activations", remedy="Give a folder, zip or .npz with --data."
        )
    if context.spec is None:
        raise TransformError(
            f"{what} needs to know how to feed images", remedy="Give --spec FILE, or put a sidecar beside the model."
        )
    return context.images, context.spec


def calibration_inputs(context: DeriveContext, what: str) -> NDArray[np.float32]:
    """Up to CALIBRATION_IMAGES images, evenly drawn, as real-valued input (N, ...).

    Raises:
        TransformError: see `check_calibration`.
    """
    images, spec = check_calibration(context, what)
    count = min(CALIBRATION_IMAGES, len(images))
    rows = np.linspace(0, len(images) - 1, count).round().astype(np.int64)
    return real_valued(images[rows], spec)


def real_valued(images: Images, spec: InputSpec) -> NDArray[np.float32]:
    """8-bit images (N, H, W, C) in the spec's range, normalization, channel order and layout."""
    low, high = spec.range
    values: NDArray[np.float32] = resize(images, spec.image_shape).astype(np.float32) * ((high - low) / 255.0) + low
    values = values[..., ::-1] if spec.channels == "BGR" else values
    mean: NDArray[np.float32] = np.array(spec.mean, np.float32)
    std: NDArray[np.float32] = np.array(spec.std, np.float32)
    values = (values - mean) / std
    ordered = values.transpose(0, 3, 1, 2) if spec.layout == "NCHW" else values
    return np.ascontiguousarray(ordered, np.float32)
