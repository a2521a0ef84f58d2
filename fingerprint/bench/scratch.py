"""Training from scratch: the benchmark's own owners and strangers, exported as `.pt2` with a sidecar."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from fingerprint.bench.nets import build
from fingerprint.data import CleanImages
from fingerprint.frozen import dataclass
from fingerprint.model import Images, InputSpec
from fingerprint.progress import Progress
from fingerprint.spec import sidecar_path

VERSION = 1  # of this recipe: part of the cache's key
BATCH = 128


@dataclass(frozen=True)
class Recipe:
    """How a net is trained from scratch.

    rate: highest learning rate of the one-cycle schedule (SGD, Nesterov momentum 0.9). shift: random shifts up to that
    many pixels. flip: random mirror images.
    """

    architecture: str
    epochs: int
    seed: int
    rate: float = 0.2
    decay: float = 5e-4
    shift: int = 3
    flip: bool = True


def train(recipe: Recipe, data: CleanImages, spec: InputSpec, classes: int, progress: Progress) -> nn.Module:
    """Train on all images of `data`; answers the module in eval mode. Forward passes run in bfloat16 (autocast)."""
    assert data.labels is not None  # noqa: S101  (the splits are labelled)
    module = _ordered(build(recipe.architecture, classes, spec.depth, recipe.seed), torch.channels_last)
    inputs, labels = to_input(data.images, spec), torch.from_numpy(data.labels)
    draws = torch.Generator().manual_seed(recipe.seed)
    steps = len(data) // BATCH
    optimiser = torch.optim.SGD(
        module.parameters(), recipe.rate, momentum=0.9, weight_decay=recipe.decay, nesterov=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.rate, total_steps=recipe.epochs * steps)
    module.train()
    for epoch in range(recipe.epochs):
        order = torch.randperm(len(data), generator=draws)
        for step in range(steps):
            rows = order[step * BATCH : (step + 1) * BATCH]
            batch = augmented(inputs[rows], recipe, draws).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16):
                loss = nn.functional.cross_entropy(module(batch), labels[rows], label_smoothing=0.05)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
        progress.step(f"training {recipe.architecture}", epoch + 1, recipe.epochs)
    return _ordered(module, torch.contiguous_format).eval()


def _ordered(module: nn.Module, order: torch.memory_format) -> nn.Module:
    """The module with its weights in this memory order (channels last is faster here)."""
    for parameter in module.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=order)
    return module


def augmented(batch: torch.Tensor, recipe: Recipe, draws: torch.Generator) -> torch.Tensor:
    """Mirror each image at random, shift all of a batch by the same random amount."""
    if recipe.flip:
        mirrored = torch.rand(len(batch), generator=draws) < 0.5
        batch = torch.where(mirrored[:, None, None, None], batch.flip(3), batch)
    if recipe.shift:
        down, right = torch.randint(-recipe.shift, recipe.shift + 1, (2,), generator=draws).tolist()
        batch = batch.roll((down, right), (2, 3))
    return batch


def to_input(images: Images, spec: InputSpec) -> torch.Tensor:
    """8-bit images (N, H, W, C) as model input (N, C, H, W) of an RGB or grey NCHW spec."""
    low, high = spec.range
    value = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255.0 * (high - low) + low
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (spec.mean, spec.std))
    return (value - mean) / std


def save(module: nn.Module, spec: InputSpec, author: str, out: Path) -> None:
    """Write a torch.export program with an open batch, and its sidecar that names the author."""
    example = torch.zeros(2, *spec.shape)
    batch = torch.export.Dim("batch", min=1, max=8192)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(module, (example,), dynamic_shapes=({0: batch},))
        torch.export.save(program, out)
    sidecar_path(out).write_text(json.dumps(replace(spec, author=author).to_dict(), indent=1) + "\n")
