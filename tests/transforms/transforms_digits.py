"""Small trained nets on scikit-learn's digits (8x8 grey)."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from fingerprint.data import CleanImages
from fingerprint.model import InputSpec
from fingerprint.transforms.interface import DeriveContext

SPEC = InputSpec("NCHW", (1, 8, 8), mean=(0.3,), std=(0.35,), channels="L", classes=10)


def digits() -> tuple[CleanImages, CleanImages]:
    """1200 images to train on and 597 others."""
    data = load_digits()
    images = (data.images * 15.9).astype(np.uint8)[..., None]
    labels = data.target.astype(np.int64)
    order = np.random.default_rng(0).permutation(len(images))
    return tuple(CleanImages(images[rows], labels[rows]) for rows in (order[:1200], order[1200:]))  # type: ignore[return-value]


def context(**changes: object) -> DeriveContext:
    """Everything that a step may need."""
    training, held = digits()
    fields = {"images": training.images, "labels": training.labels, "held_out": held, "device": "cpu"} | changes
    return DeriveContext(SPEC, **fields)  # type: ignore[arg-type]


class Block(nn.Module):
    """A residual block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width),
        )  # fmt: skip

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        return torch.relu(value + self.body(value))


def network(seed: int, width: int = 16) -> nn.Sequential:
    """Convolution, residual block, dense layer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2),
            Block(width), nn.Flatten(), nn.Linear(width * 16, 10),
        )  # fmt: skip


def train(module: nn.Module, seed: int, epochs: int = 4) -> nn.Module:
    """Train in place."""
    data, _ = digits()
    inputs = (torch.from_numpy(data.images).permute(0, 3, 1, 2).float() / 255 - 0.3) / 0.35
    targets = torch.from_numpy(data.labels)
    rng = np.random.default_rng(seed)
    optimizer = torch.optim.Adam(module.parameters(), 3e-3)
    module.train()
    for _ in range(epochs):
        for rows in np.array_split(rng.permutation(len(inputs)), 18):
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(inputs[rows]), targets[rows]).backward()
            optimizer.step()
    return module.eval()


def save(module: nn.Module, path: Path) -> Path:
    """A `.pt2` or `.onnx` with an open batch, and its sidecar."""
    example, shapes = (torch.zeros(2, 1, 8, 8),), ({0: torch.export.Dim("n", min=1)},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if path.suffix == ".onnx":
            torch.onnx.export(module, example, path, dynamic_shapes=shapes, dynamo=True, verbose=False)
        else:
            torch.export.save(torch.export.export(module, example, dynamic_shapes=shapes), path)
    path.with_name(path.name + ".spec.json").write_text(json.dumps(SPEC.to_dict()))
    return path
