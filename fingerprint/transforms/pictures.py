"""Filters of 8-bit images as torch modules that can be exported."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from fingerprint.model import InputSpec
from fingerprint.transforms.pixels import Pixels

if TYPE_CHECKING:
    import torch

# ITU-T T.81, annex K: quantization tables at quality 50, row by row
_LUMA = (
    "16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 62 "
    "18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99"
)
_CHROMA = (
    "17 18 24 47 99 99 99 99 18 21 26 66 99 99 99 99 24 26 56 99 99 99 99 99 47 66 99 99 99 99 99 99 "
    "99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99"
)
_TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


def filtered(kind: str, value: float, spec: InputSpec, module: torch.nn.Module) -> torch.nn.Module:
    """A module that takes the same input, filters it as an 8-bit image, and asks `module`."""
    import torch

    given = Pixels(spec)
    made = {"jpeg": _jpeg, "bits": _bits, "resize": _resize, "blur": _blur}[kind](value, spec)

    class Filtered(torch.nn.Module):
        scale: torch.Tensor
        offset: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.inner, self.filter = module, made
            self.register_buffer("scale", given.scale)
            self.register_buffer("offset", given.offset)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            pixels = ((inputs - self.offset) / self.scale).round().clamp(0, 255)
            last = spec.layout == "NHWC"
            pixels = pixels.permute(0, 3, 1, 2) if last else pixels
            pixels = pixels.flip(1) if spec.channels == "BGR" else pixels
            pixels = self.filter(pixels).round().clamp(0, 255)
            pixels = pixels.flip(1) if spec.channels == "BGR" else pixels
            pixels = pixels.permute(0, 2, 3, 1) if last else pixels
            answer: torch.Tensor = self.inner(pixels * self.scale + self.offset)
            return answer

    return Filtered()


def _bits(value: float, spec: InputSpec) -> torch.nn.Module:
    """So many levels, evenly from 0 to 255 (Xu et al., NDSS 2018)."""
    import torch

    del spec
    levels = 2 ** int(value) - 1

    class Bits(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            kept: torch.Tensor = (pixels / 255 * levels).round() * (255 / levels)
            return kept

    return Bits()


def _resize(value: float, spec: InputSpec) -> torch.nn.Module:
    """Down to a share of the side and back, bilinear with antialiasing, as matrices."""
    import torch

    sides = [(side, max(1, round(value * side))) for side in (spec.height, spec.width)]

    class Resize(torch.nn.Module):
        down: torch.Tensor
        right: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            for name, (side, small) in zip(("down", "right"), sides, strict=True):
                self.register_buffer(name, torch.from_numpy(_bilinear(small, side) @ _bilinear(side, small)))

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return self.down @ pixels @ self.right.T

    return Resize()


def _bilinear(given: int, made: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Matrix (made, given) of triangles, widened where it makes fewer."""
    width = max(1.0, given / made)
    centres = (np.arange(made) + 0.5) * given / made - 0.5
    weights = np.maximum(0, 1 - np.abs(np.arange(given)[None] - centres[:, None]) / width)
    return np.asarray(weights / weights.sum(1, keepdims=True), np.float32)


def _blur(value: float, spec: InputSpec) -> torch.nn.Module:
    """Gaussian of standard deviation `value` pixels; edges are repeated."""
    import torch

    reach = min(max(1, math.ceil(3 * value)), spec.height, spec.width)
    line = np.exp(-0.5 * (np.arange(-reach, reach + 1) / value) ** 2)

    class Blur(torch.nn.Module):
        down: torch.Tensor
        right: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            for name, side in (("down", spec.height), ("right", spec.width)):
                matrix = np.zeros((side, side), np.float32)
                for row in range(side):
                    for place, weight in zip(range(row - reach, row + reach + 1), line / line.sum(), strict=True):
                        matrix[row, min(max(place, 0), side - 1)] += weight
                self.register_buffer(name, torch.from_numpy(matrix))

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return self.down @ pixels @ self.right.T

    return Blur()


def _jpeg(value: float, spec: InputSpec) -> torch.nn.Module:
    """JPEG without chroma subsampling: what its lossy part does, by matrices; the lossless part needs no doing."""
    import torch

    quality = value
    factor = 5000 / quality if quality < 50 else 200 - 2 * quality
    tables = [
        np.clip(np.floor((np.array(text.split(), np.float64) * factor + 50) / 100), 1, 255).reshape(8, 8)
        for text in (_LUMA, _CHROMA, _CHROMA)
    ][: spec.depth]
    cosines = np.cos((2 * np.arange(8)[None] + 1) * np.arange(8)[:, None] * math.pi / 16) / 2
    cosines[0] /= math.sqrt(2)
    high, wide = (math.ceil(side / 8) for side in (spec.height, spec.width))

    class Jpeg(torch.nn.Module):
        table: torch.Tensor
        cosines: torch.Tensor
        colours: torch.Tensor
        back: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            colours = np.array(_TO_YCC) if spec.depth == 3 else np.ones((1, 1))
            for name, array in (
                ("table", np.stack(tables)[None, :, None, None]),  # (1, C, 1, 1, 8, 8)
                ("cosines", cosines),
                ("colours", colours),
                ("back", np.linalg.inv(colours)),
            ):
                self.register_buffer(name, torch.from_numpy(np.asarray(array, np.float32)))

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            value = torch.einsum("dc,bchw->bdhw", self.colours, pixels).round()
            bottom, right = high * 8 - spec.height, wide * 8 - spec.width
            value = torch.nn.functional.pad(value, (0, right, 0, bottom), mode="replicate") - 128 * self.level()
            blocks = value.reshape(-1, spec.depth, high, 8, wide, 8).permute(0, 1, 2, 4, 3, 5)
            waves = self.cosines @ blocks @ self.cosines.T
            blocks = self.cosines.T @ ((waves / self.table).round() * self.table) @ self.cosines
            value = blocks.permute(0, 1, 2, 4, 3, 5).reshape(-1, spec.depth, high * 8, wide * 8)
            value = value[:, :, : spec.height, : spec.width].round() + 128 * self.level()
            return torch.einsum("dc,bchw->bdhw", self.back, value)

        def level(self) -> torch.Tensor:
            """Only the luma is moved: the chroma lies around zero here."""
            level: torch.Tensor = self.colours.sum(1).round().reshape(1, -1, 1, 1)
            return level

    return Jpeg()
