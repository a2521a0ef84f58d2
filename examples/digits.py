"""A small real model for the examples: a CNN on scikit-learn's 8x8 digits, trained in seconds and exported."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

SPEC = {
    "layout": "NCHW",
    "shape": [1, 8, 8],
    "dtype": "float32",
    "range": [0.0, 1.0],
    "mean": [0.5],
    "std": [0.5],
    "channels": "L",
    "classes": 10,
}


def images() -> tuple[np.ndarray, np.ndarray]:
    """All digits as 8-bit images (1797, 8, 8, 1) and their labels (1797,)."""
    digits = load_digits()
    return np.rint(digits.images * 255 / 16).astype(np.uint8)[..., None], digits.target.astype(np.int64)


def save_images(path: Path) -> Path:
    """Write the digits as the .npz that `--data` takes."""
    pictures, labels = images()
    np.savez_compressed(path, images=pictures, labels=labels)
    return path


def build(width: int, depth: int) -> nn.Sequential:
    """A CNN of `depth` convolutions, (B, 1, 8, 8) to (B, 10)."""
    layers: list[nn.Module] = []
    channels = 1
    for i in range(depth):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
        if i == depth // 2:
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * 16, 10))


def train(seed: int, width: int = 24, depth: int = 3, steps: int = 250) -> nn.Sequential:
    """Train from scratch on a random 80 % of the digits."""
    torch.set_num_threads(1)  # so small a net gains nothing by more, and loses much where the machine is busy
    torch.manual_seed(seed)
    pictures, labels = images()
    order = torch.randperm(len(labels))[: len(labels) * 4 // 5]
    x = (torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
    y = torch.from_numpy(labels)
    model = build(width, depth)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)
    for _ in range(steps):
        batch = order[torch.randint(len(order), (128,))]
        loss = nn.functional.cross_entropy(model(x[batch] + 0.1 * torch.randn(128, 1, 8, 8)), y[batch])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return model.eval()


def save(model: nn.Module, path: Path, author: str | None = None) -> Path:
    """Export to .pt2 or .onnx (by suffix), dynamic batch, with its input spec beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    example = torch.zeros(2, 1, 8, 8)
    if path.suffix == ".pt2":
        batch = torch.export.Dim("batch", min=1, max=4096)
        torch.export.save(torch.export.export(model, (example,), dynamic_shapes=({0: batch},)), path)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                model,
                (example,),
                str(path),
                dynamo=False,
                input_names=["image"],
                output_names=["logits"],
                dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
            )
    spec = {**SPEC, **({"author": author} if author else {})}
    path.with_name(path.name + ".spec.json").write_text(json.dumps(spec, indent=1))
    return path
