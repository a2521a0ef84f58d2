"""Architectures that the benchmark trains from scratch: small, common, and written from their papers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from fingerprint.errors import UsageError


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut without parameters (He et al., CVPR 2016, option A)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride, self.pad = stride, (outputs - inputs) // 2
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """(B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        inner = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(value)))))
        if self.stride > 1:
            value = nn.functional.pad(value[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.pad, self.pad))
        return torch.relu(inner + value)


def resnet(depth: int, classes: int, channels: int = 3) -> nn.Module:
    """A CIFAR ResNet of `depth` = 6n + 2 layers, (B, C, H, W) to (B, classes)."""
    layers: list[nn.Module] = [nn.Conv2d(channels, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    width = 16
    for outputs in (16, 32, 64):
        for number in range((depth - 2) // 6):
            layers.append(BasicBlock(width, outputs, 2 if number == 0 and outputs > 16 else 1))
            width = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))


def plain(widths: tuple[int, ...], classes: int, channels: int = 3, side: int = 2, hidden: int = 0) -> nn.Module:
    """A plain CNN: 3x3 convolutions, batch normalization, pooling after each; pooled to `side` x `side` at the end."""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        layers.append(nn.MaxPool2d(2))
        channels = width
    layers += [nn.AdaptiveAvgPool2d(side) if side > 1 else nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    features = channels * side * side
    if hidden:
        layers += [nn.Linear(features, hidden), nn.ReLU()]
        features = hidden
    return nn.Sequential(*layers, nn.Linear(features, classes))


def vgg(classes: int, channels: int = 3) -> nn.Module:
    """Two convolutions per stage, three stages (Simonyan and Zisserman, ICLR 2015, cut to small images)."""
    layers: list[nn.Module] = []
    for width in (24, 48, 96):
        for _ in range(2):
            layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


def small(width: int, depth: int, classes: int, channels: int = 1) -> nn.Module:
    """A CNN for images from 8x8, (B, C, H, W) to (B, classes)."""
    layers: list[nn.Module] = []
    for number in range(depth):
        layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
        if number == depth // 2:
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(width * 16, classes))


Builder = Callable[[int, int], nn.Module]  # classes, channels -> module

ARCHITECTURES: Mapping[str, Builder] = {
    "resnet20": lambda classes, channels: resnet(20, classes, channels),
    "resnet8": lambda classes, channels: resnet(8, classes, channels),
    "plain": lambda classes, channels: plain((32, 64, 128), classes, channels, side=4),
    "plain-hidden": lambda classes, channels: plain((32, 64, 96), classes, channels, side=4, hidden=128),
    "vgg": vgg,
    "small": lambda classes, channels: small(16, 3, classes, channels),
    "small-wide": lambda classes, channels: small(24, 2, classes, channels),
}
SMALLEST_SIDE = 16  # pixels that the first five need


def build(architecture: str, classes: int, channels: int, seed: int) -> nn.Module:
    """A fresh module in training mode, its weights drawn from `seed`.

    Raises:
        UsageError: no such architecture.
    """
    if architecture not in ARCHITECTURES:
        raise UsageError(f"there is no architecture {architecture!r}", remedy="One of " + ", ".join(ARCHITECTURES))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ARCHITECTURES[architecture](classes, channels)
