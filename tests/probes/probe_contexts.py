"""A small convolutional owner and contexts for probe families."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fingerprint.data import CleanImages
from fingerprint.model import Floats, Images, InputSpec, Labels
from fingerprint.probes.interface import ProbeContext

SPEC = InputSpec("NCHW", (3, 8, 8), mean=(0.5,) * 3, std=(0.25,) * 3)
CLASSES = 4


class Owner(nn.Module):
    """Two convolutions and a head; counts the examples it sees."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.body = nn.Sequential(
                nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2), nn.ReLU(), nn.Flatten(),
                nn.Linear(72, CLASSES),
            )  # fmt: skip
        self.examples = 0
        self.eval().requires_grad_(False)

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        self.examples += len(value)
        return self.body(value)  # type: ignore[no-any-return]


@torch.no_grad()
def answers(module: nn.Module, images: Images) -> Floats:
    """Outputs (N, K) on 8-bit images."""
    value = torch.from_numpy(images.astype(np.float32)).permute(0, 3, 1, 2) / 255.0
    return module((value - 0.5) / 0.25).numpy()  # type: ignore[no-any-return]


def survive_all(images: Images, targets: Labels) -> Floats:
    """A copy that keeps every label by far."""
    return np.full((2, len(images)), 1e9, np.float32)


@dataclass
class Steps:
    """Remembers progress."""

    seen: list[tuple[str, int, int]] = field(default_factory=list)

    def step(self, task: str, done: int, total: int) -> None:
        self.seen.append((task, done, total))

    def note(self, text: str) -> None:
        """Nothing."""


def context(
    module: nn.Module | None = None,
    *,
    predict: Callable[[Images], Floats] | None = None,
    survival: Callable[[Images, Labels], Floats] = survive_all,
    data: CleanImages | None = None,
    seed: bytes = b"seed",
    batches: tuple[int, int | None] = (1, None),
) -> ProbeContext:
    """What a family may use."""

    def of_module(images: Images) -> Floats:
        assert module is not None
        return answers(module, images)

    return ProbeContext(
        predict=predict or of_module,
        module=module,
        survival=survival,
        spec=SPEC,
        classes=CLASSES,
        data=data,
        seed=seed,
        progress=Steps(),
        batches=batches,
    )


def clean_images(count: int, seed: int = 0, labels: NDArray[np.int64] | None = None) -> CleanImages:
    """Random images."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return CleanImages(images, rng.integers(0, CLASSES, count) if labels is None else labels)
