"""Architectures of students: small, common, and written from their papers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from fingerprint.errors import TransformError
from fingerprint.model import InputSpec
from fingerprint.transforms.programs import TensorInput

if TYPE_CHECKING:
    import torch

    from fingerprint.transforms.trainable import Trainable


def student(architecture: str, teacher: Trainable, spec: InputSpec) -> Trainable:
    """A fresh model that takes the teacher's input and knows its classes; drawn from torch's global generator.

    `same`: the teacher's graph with every weight drawn anew. Where its normalization was folded into convolutions, it
    gets a normalization behind each of them again.

    Raises:
        TransformError: an unknown architecture, or images under 8 pixels.
    """
    from fingerprint.transforms.restart import fresh_copy
    from fingerprint.transforms.trainable import Trainable, exported

    if architecture == "same":
        return fresh_copy(teacher)
    if min(spec.height, spec.width) < 8:
        raise TransformError(f"images of {spec.height}x{spec.width} are too small for {architecture}")
    layers = _builders()[architecture](spec.depth, teacher.classes, min(spec.height, spec.width))
    module = _order(spec.layout == "NHWC", layers)
    given = TensorInput(tuple(spec.shape))
    return Trainable(exported(module.eval(), given), f"a {architecture} student")


def _order(last: bool, layers: list[torch.nn.Module]) -> torch.nn.Module:
    import torch

    class ChannelsFirst(torch.nn.Module):
        def forward(self, value: torch.Tensor) -> torch.Tensor:
            return value.permute(0, 3, 1, 2)

    return torch.nn.Sequential(*([ChannelsFirst()] if last else []), *layers)


def _builders() -> Mapping[str, Callable[[int, int, int], list[torch.nn.Module]]]:
    return {"cnn": _cnn, "vgg": _vgg, "resnet": _resnet, "mobile": _mobile}


def _unit(inputs: int, outputs: int, size: int = 3, stride: int = 1, groups: int = 1) -> list[torch.nn.Module]:
    """Convolution, batch normalization, ReLU."""
    import torch

    convolution = torch.nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
    return [convolution, torch.nn.BatchNorm2d(outputs), torch.nn.ReLU()]


def _stem(depth: int, width: int, side: int) -> list[torch.nn.Module]:
    """One unit; images over 64 pixels are first brought to a quarter of the side."""
    import torch

    if side <= 64:
        return _unit(depth, width)
    return [*_unit(depth, width, 7, 2), torch.nn.MaxPool2d(2)]


def _cnn(depth: int, classes: int, side: int) -> list[torch.nn.Module]:
    """Three 5x5 convolutions with pooling, two dense layers (LeCun et al., 1998, with today's layers)."""
    import torch

    layers = [*_stem(depth, 32, side), torch.nn.MaxPool2d(2), *_unit(32, 64, 5), torch.nn.MaxPool2d(2)]
    layers += [*_unit(64, 128, 5), torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten()]
    return [*layers, torch.nn.Linear(512, 128), torch.nn.ReLU(), torch.nn.Linear(128, classes)]


def _vgg(depth: int, classes: int, side: int) -> list[torch.nn.Module]:
    """Pairs of 3x3 convolutions (Simonyan and Zisserman, ICLR 2015)."""
    import torch

    layers = _stem(depth, 32, side)
    width = 32
    for outputs in (32, 64, 128):
        layers += [*_unit(width, outputs), *_unit(outputs, outputs), torch.nn.MaxPool2d(2)]
        width = outputs
    return [*layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(width, classes)]


def _resnet(depth: int, classes: int, side: int) -> list[torch.nn.Module]:
    """Six residual blocks (He et al., CVPR 2016)."""
    import torch

    class Block(torch.nn.Module):
        def __init__(self, inputs: int, outputs: int, stride: int) -> None:
            super().__init__()
            tail = [torch.nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), torch.nn.BatchNorm2d(outputs)]
            self.body = torch.nn.Sequential(*_unit(inputs, outputs, 3, stride), *tail)
            cross = [torch.nn.Conv2d(inputs, outputs, 1, stride, bias=False), torch.nn.BatchNorm2d(outputs)]
            self.cross = torch.nn.Sequential(*(cross if (inputs, stride) != (outputs, 1) else []))

        def forward(self, value: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.body(value) + self.cross(value))

    layers = _stem(depth, 24, side)
    width = 24
    for outputs, stride in ((24, 1), (24, 1), (48, 2), (48, 1), (96, 2), (96, 1)):
        layers.append(Block(width, outputs, stride))
        width = outputs
    return [*layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(width, classes)]


def _mobile(depth: int, classes: int, side: int) -> list[torch.nn.Module]:
    """Depthwise and pointwise convolutions in turn (Howard et al., 2017)."""
    import torch

    layers = _stem(depth, 32, side)
    width = 32
    for outputs, stride in ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1)):
        layers += [*_unit(width, width, 3, stride, width), *_unit(width, outputs, 1)]
        width = outputs
    return [*layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(width, classes)]
