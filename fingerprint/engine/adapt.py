"""From canonical 8-bit images to what a model file wants as its input.

An 8-bit value has 256 possible results per channel, so everything up to quantization is one table per channel,
computed in float64 and rounded once. Numpy only; Pillow is imported when an image must be resized.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fingerprint.errors import DataError, SpecError
from fingerprint.model import Images, InputSpec, Signature

_INTEGERS = ("uint8", "int8", "int16", "int32", "int64")
_BLOCK = 1 << 18  # bytes of pixels looked up at a time, so that they stay in the processor's cache
_FLOATS = ("float32", "float16", "float64")
DTYPES = (*_INTEGERS, *_FLOATS)  # of inputs that images can be adapted to


class Adapter:
    """Adapts batches of images for one input spec and one model file.

    Args:
        spec: how the model wants its input.
        signature: what the file says; an empty shape says nothing, and the spec decides alone.

    Raises:
        SpecError: the spec contradicts the file or itself.
    """

    def __init__(self, spec: InputSpec, signature: Signature) -> None:
        _check_spec(spec)
        _check_agreement(spec, signature)
        self.spec = spec
        self.dtype = np.dtype(_dtype(spec, signature))
        self.tables = _tables(spec, signature, self.dtype)  # (depth, 256)
        self._uniform = bool((self.tables == self.tables[0]).all())
        self._flip = _flip(self.tables[0]) if self._uniform else None

    @property
    def input_bytes(self) -> int:
        """Size of one adapted input."""
        return int(np.prod(self.spec.shape)) * self.dtype.itemsize

    def __call__(self, images: Images, out: NDArray[np.generic] | None = None) -> NDArray[np.generic]:
        """Adapt a batch.

        Args:
            images: (B, H, W, C), RGB or one grey channel.
            out: where to write, of the shape and dtype of the result; fresh memory if absent. Touching fresh memory
                costs more than the look-up itself.

        Returns:
            (B, C', H', W') or (B, H', W', C') in the file's dtype.

        Raises:
            DataError: not a batch of 8-bit images with 1 or 3 channels.
        """
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
            raise DataError(f"images must be uint8 (N, H, W, 1 or 3), not {images.dtype} {images.shape}")
        spec = self.spec
        sized = resize(images, spec.height, spec.width) if images.shape[1:3] != (spec.height, spec.width) else images
        pixels = _with_depth(sized, spec.depth)
        if out is None:
            out = np.empty((len(pixels), *spec.shape), self.dtype)
        self._look_up(pixels[..., ::-1] if spec.channels == "BGR" and spec.depth == 3 else pixels, out)
        return out

    def _look_up(self, pixels: Images, out: NDArray[np.generic]) -> None:
        planes = pixels if self.spec.layout == "NHWC" else pixels.transpose(0, 3, 1, 2)
        if self._flip is not None:
            np.bitwise_xor(planes, self._flip, out=out.view(np.uint8))
            return
        block = max(1, _BLOCK // max(1, pixels[:1].nbytes))
        for start in range(0, len(pixels), block):
            self._look_up_block(planes[start : start + block], out[start : start + block])

    def _look_up_block(self, planes: Images, out: NDArray[np.generic]) -> None:
        if self._uniform:
            np.take(self.tables[0], planes, out=out, mode="clip")  # "raise" would work on a copy
            return
        for c, table in enumerate(self.tables):
            place = (slice(None), c) if self.spec.layout == "NCHW" else (..., c)
            np.take(table, planes[place], out=out[place], mode="clip")


def resize(images: Images, height: int, width: int) -> Images:
    """Resize 8-bit images (N, H, W, C) with Pillow's bilinear filter: the one rule used everywhere."""
    from PIL import Image

    out = np.empty((len(images), height, width, images.shape[3]), np.uint8)
    for i, image in enumerate(images):
        picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
        scaled = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))
        out[i] = scaled.reshape(height, width, -1)
    return out


def _with_depth(images: Images, depth: int) -> Images:
    """(N, H, W, depth): grey repeated, or colour reduced to luma by Pillow's rule (ITU-R 601-2)."""
    if images.shape[3] == depth:
        return images
    if depth == 3:
        return np.broadcast_to(images, (*images.shape[:3], 3))
    weights = np.array([19595, 38470, 7471], np.uint32)
    luma = (images.astype(np.uint32) @ weights + 0x8000) >> 16
    return luma[..., None].astype(np.uint8)


def _check_spec(spec: InputSpec) -> None:
    if len(spec.shape) != 3 or min(spec.shape) < 1 or spec.depth not in (1, 3):
        raise SpecError(f"the spec's shape {spec.shape} is not one of {spec.layout} with 1 or 3 channels")
    if spec.channels == "L" and spec.depth != 1:
        raise SpecError(f"the spec says one grey channel (L) and a shape {spec.shape} with {spec.depth}")
    for name, values in (("mean", spec.mean), ("std", spec.std)):
        if len(values) not in (1, spec.depth):
            raise SpecError(f"the spec's {name} has {len(values)} entries for {spec.depth} channels")
    if not all(np.isfinite((*spec.range, *spec.mean, *spec.std))) or 0.0 in spec.std:
        raise SpecError("the spec's range, mean and std must be finite, and std not 0")


def _check_agreement(spec: InputSpec, signature: Signature) -> None:
    wanted = signature.shape[1:]
    if not signature.shape:
        return
    if len(wanted) != 3 or any(w is not None and w != s for w, s in zip(wanted, spec.shape, strict=False)):
        shown = ", ".join("?" if size is None else str(size) for size in signature.shape)
        raise SpecError(
            f"the spec says {spec.layout} {spec.shape}, but the file wants an input of shape ({shown})",
            remedy="Correct layout and shape in the spec (shape is without the batch).",
        )


def _dtype(spec: InputSpec, signature: Signature) -> str:
    """The file's dtype; the spec's where the file says nothing."""
    dtype = signature.dtype if signature.shape else spec.dtype
    if dtype not in DTYPES:
        raise SpecError(f"inputs of dtype {dtype!r} are not supported")
    return dtype


def _tables(spec: InputSpec, signature: Signature, dtype: np.dtype[np.generic]) -> NDArray[np.generic]:
    """What each 8-bit value becomes, per channel: (depth, 256) in the input's dtype."""
    low, high = spec.range
    plain = low + np.arange(256, dtype=np.float64) * (high - low) / 255.0
    mean, std = (np.broadcast_to(np.asarray(v, np.float64), spec.depth)[:, None] for v in (spec.mean, spec.std))
    real = (plain - mean) / std  # (depth, 256)
    if dtype.name in _FLOATS:
        with np.errstate(over="ignore"):  # too large for float16: infinite, and reported as such by the answers
            return real.astype(dtype)
    bounds = np.iinfo(dtype.name)
    scale = 1.0 if signature.scale is None else signature.scale
    steps = np.round(real / scale) + (signature.zero_point or 0)  # half to even
    return np.clip(steps, bounds.min, bounds.max).astype(dtype)


def _flip(table: NDArray[np.generic]) -> int | None:
    """What an 8-bit value is XORed with, where that is all the table does: the usual case of quantized inputs."""
    if table.dtype.itemsize != 1:
        return None
    values = np.arange(256, dtype=np.uint8)
    return next((mask for mask in (0, 128) if (table.view(np.uint8) == values ^ mask).all()), None)
