"""8-bit images as torch tensors in a model's input space, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fingerprint.data import resize
from fingerprint.model import Images, InputSpec

if TYPE_CHECKING:
    import torch


class Pixels:
    """Maps 8-bit images to a model's input as its spec says."""

    def __init__(self, spec: InputSpec, device: str = "cpu") -> None:
        import torch

        self.spec, self.device = spec, device
        low, high = spec.range
        shape = (1, -1, 1, 1) if spec.layout == "NCHW" else (1, 1, 1, -1)
        depth = torch.zeros(spec.depth)
        mean = (torch.tensor(spec.mean) + depth).view(shape).to(device)
        std = (torch.tensor(spec.std) + depth).view(shape).to(device)
        self.scale = (high - low) / 255 / std  # input units of one 8-bit step, per channel
        self.offset = (low - mean) / std
        self.lowest, self.highest = self.offset, self.offset + 255 * self.scale

    def load(self, images: Images) -> torch.Tensor:
        """Images (N, H, W, C) as a uint8 tensor of the model's size and layout, on the device."""
        import torch

        fitted = resize(images, self.spec.image_shape)
        fitted = fitted[..., ::-1] if self.spec.channels == "BGR" else fitted
        ordered = fitted.transpose(0, 3, 1, 2) if self.spec.layout == "NCHW" else fitted
        return torch.from_numpy(np.ascontiguousarray(ordered)).to(self.device)

    def feed(self, values: torch.Tensor) -> torch.Tensor:
        """8-bit values (B, ...) as input, float32."""
        return values.float() * self.scale + self.offset

    def read(self, inputs: torch.Tensor) -> torch.Tensor:
        """Input as real values 0 to 255 (not rounded)."""
        return (inputs - self.offset) / self.scale

    def moved(self, values: torch.Tensor, flip: bool, shift: int) -> torch.Tensor:
        """Each image (B, ...) mirrored at random, all shifted by one random amount; edges are repeated."""
        import torch

        rows, columns = (2, 3) if self.spec.layout == "NCHW" else (1, 2)
        if flip:
            mirrored = torch.rand(len(values), device=values.device) < 0.5
            values = torch.where(mirrored[:, None, None, None], values.flip(columns), values)
        if shift:
            down, right = torch.randint(-shift, shift + 1, (2,)).tolist()
            values = _shifted(_shifted(values, down, rows), right, columns)
        return values


def _shifted(values: torch.Tensor, by: int, axis: int) -> torch.Tensor:
    import torch

    places = (torch.arange(values.shape[axis], device=values.device) - by).clamp(0, values.shape[axis] - 1)
    return values.index_select(axis, places)
