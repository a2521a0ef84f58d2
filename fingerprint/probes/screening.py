"""Screening nets: small unrelated CNNs that `create --screen N` trains from the owner's labelled images.

They stand in for strangers when candidates are screened for transfer. They never calibrate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from fingerprint.data import CleanImages
from fingerprint.model import Floats, Images, Labels, labels_of
from fingerprint.progress import Progress

BATCH = 128
STEPS = 200
LARGEST_SIDE = 64  # larger images are average-pooled down before the first layer
IMAGES_PER_CLASS = 10  # fewer, and a net learns nothing that screens


@dataclass
class ScreeningNet:
    """A trained net. `labels` answers 8-bit images."""

    name: str
    accuracy: float
    module: nn.Module

    @torch.no_grad()
    def outputs(self, images: Images) -> Floats:
        """Logits (N, K)."""
        parts = [self.module(_to_tensor(images[i : i + 256])) for i in range(0, len(images), 256)]
        return np.asarray(torch.cat(parts).numpy()) if parts else np.zeros((0, 0), np.float32)

    def labels(self, images: Images) -> Labels:
        """Common labels (N,)."""
        return labels_of(self.outputs(images)) if len(images) else np.zeros(0, np.int64)


def can_screen(data: CleanImages | None, classes: int) -> bool:
    """Whether there are enough labelled images to learn from."""
    return data is not None and data.labels is not None and len(data) >= IMAGES_PER_CLASS * classes


def train(data: CleanImages, classes: int, count: int, seed: int, progress: Progress) -> list[ScreeningNet]:
    """Train `count` nets of alternating depth on 90 % of the images; accuracy is on the rest."""
    assert data.labels is not None  # noqa: S101  (can_screen checked it)
    nets = []
    labels = torch.from_numpy(data.labels)
    with torch.random.fork_rng(devices=[]):
        for number in range(count):
            torch.manual_seed((seed + number) & (2**63 - 1))
            order = torch.randperm(len(data))
            cut = max(1, len(data) // 10)
            module = _build(data.images.shape[1:], classes, deep=number % 2 == 1)
            _fit(module, data.images, labels, order[cut:], progress, number, count)
            held = order[:cut].numpy()
            net = ScreeningNet(f"screening-net-{number}", 0.0, module.eval())
            net.accuracy = float((net.labels(data.images[held]) == data.labels[held]).mean())
            nets.append(net)
    return nets


def _to_tensor(images: Images) -> torch.Tensor:
    value = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)
    largest = max(value.shape[2:])
    factor = -(-largest // LARGEST_SIDE)
    return nn.functional.avg_pool2d(value, factor) if factor > 1 else value


def _build(shape: tuple[int, ...], classes: int, *, deep: bool) -> nn.Module:
    """A VGG-like net of 3 or 4 convolutions; (B, C, H, W) in [-1, 1] to (B, classes)."""
    widths = (16, 32, 48, 64) if deep else (32, 64, 64)
    layers: list[nn.Module] = []
    depth, side = shape[2], min(shape[0], shape[1], LARGEST_SIDE)
    for i, width in enumerate(widths):
        layers += [nn.Conv2d(depth, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        if side >= 8 and not (deep and i == 1):
            layers.append(nn.MaxPool2d(2))
            side //= 2
        depth = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(depth * 4, classes))


def _fit(
    module: nn.Module,
    images: Images,
    labels: torch.Tensor,
    index: torch.Tensor,
    progress: Progress,
    number: int,
    count: int,
) -> None:
    optimiser = torch.optim.AdamW(module.parameters(), lr=3e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=3e-3, total_steps=STEPS)
    module.train()
    for step in range(STEPS):
        batch = index[torch.randint(len(index), (min(BATCH, len(index)),))]
        value = _to_tensor(images[batch.numpy()])
        if step % 2:
            value = value.roll((int(torch.randint(-1, 2, ())), int(torch.randint(-1, 2, ()))), (2, 3))
        loss = nn.functional.cross_entropy(module(value), labels[batch], label_smoothing=0.1)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        if step % 50 == 49:
            progress.step("screening nets", number * STEPS + step + 1, count * STEPS)
