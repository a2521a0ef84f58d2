"""Certificates on a linear owner, where the worst and the random change are known."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from probe_contexts import CLASSES, SPEC, Owner, answers
from torch import nn

from fingerprint.errors import UsageError
from fingerprint.probes.certificate import certify, draws_needed
from fingerprint.probes.gradient import DifferentiableOwner

RADII = (0.01, 0.05, 0.1, 0.3, 1.0, 3.0, 10.0)


class Plane(nn.Module):
    """Logits of two classes: +-w.x, and nothing else changes them but w."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(1, 192, generator=generator), requires_grad=False)

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        side = value.flatten(1) @ self.weight.T
        return torch.cat([side, -side], dim=1)


def owner(module: nn.Module, classes: int) -> DifferentiableOwner:
    return DifferentiableOwner(module, SPEC, classes)


def probes(count: int, seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (count, *SPEC.image_shape), dtype=np.uint8)


def side(module: Plane, images: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    """w.x (N,) and the model input (N, 192)."""
    value = (torch.from_numpy(images).permute(0, 3, 1, 2).double() / 255.0 - 0.5) / 0.25
    flat = value.flatten(1)
    return (flat @ module.weight[0].double()).numpy(), flat.numpy()


@given(st.integers(0, 9999))
@settings(max_examples=15)
def test_between_the_worst_and_the_random_change(seed: int) -> None:
    """What no change of radius r can turn is certified at r; what a typical one turns is not."""
    module = Plane()
    images = probes(12, seed)
    distance, inputs = side(module, images)
    targets = (distance < 0).astype(np.int64)
    found = certify(owner(module, 2), images, targets, torch.Generator().manual_seed(seed), radii=RADII)
    rms = float(module.weight.square().mean().sqrt())
    safe = np.abs(distance) / (rms * np.abs(inputs).sum(axis=1))  # no change up to here turns the label
    deviation = np.linalg.norm(inputs, axis=1) * rms / np.sqrt(3.0)  # of w.x per unit of radius
    for radius, worst, typical in zip(found.radius, safe, np.abs(distance) / deviation, strict=True):
        floor = max((r for r in RADII if r <= worst), default=0.0)
        assert radius >= floor
        # at three deviations below the plane a draw turns the label with 0.5 - eps: 44 draws without one are a wonder
        assert radius < 3.0 * typical or radius == 0.0 or typical * 3.0 > RADII[-1]


def test_the_probability_holds_on_fresh_draws() -> None:
    module = Owner()
    images = probes(60, 5)
    targets = answers(module, images).argmax(axis=1)
    found = certify(owner(module, CLASSES), images, targets, torch.Generator().manual_seed(1))
    assert (found.radius > 0).sum() > 0
    from fingerprint.probes.gradient import WeightNoise

    rng = torch.Generator().manual_seed(2)
    kept = []
    for radius in sorted(set(found.radius[found.radius > 0].tolist())):
        rows = found.radius == radius
        noise = WeightNoise(module, radius, rng)
        with noise.held():
            hits = np.zeros(int(rows.sum()))
            for _ in range(100):
                noise.draw()
                hits += answers(module, images[rows]).argmax(axis=1) == targets[rows]
        kept += (hits / 100).tolist()
    assert np.mean(np.array(kept) >= 0.9 - 0.06) >= 0.95  # 0.06: two deviations of 100 draws


def test_deterministic_counted_and_put_back() -> None:
    module = Owner()
    before = {n: v.clone() for n, v in module.state_dict().items()}
    images = probes(9, 1)
    targets = answers(module, images).argmax(axis=1)
    seen = module.examples
    made = [certify(owner(module, CLASSES), images, targets, torch.Generator().manual_seed(7)) for _ in range(2)]
    assert (made[0].radius == made[1].radius).all()
    assert made[0].passes + made[1].passes == module.examples - seen
    assert all(torch.equal(v, before[n]) for n, v in module.state_dict().items())
    summary = json.loads(json.dumps(made[0].summary()))
    assert summary["lowest"] == made[0].radius.min() and summary["median"] == np.median(made[0].radius)
    assert replace(made[0], radius=np.array([0.2, 0.05, 0.1])).summary()["lowest"] == 0.05
    assert summary["draws"] == 44


def test_a_wrong_label_is_never_certified() -> None:
    module = Owner()
    images = probes(5, 1)
    wrong = (answers(module, images).argmax(axis=1) + 1) % CLASSES
    found = certify(owner(module, CLASSES), images, wrong, torch.Generator().manual_seed(7), radii=(0.01, 0.02))
    assert (found.radius == 0).all()
    assert certify(owner(module, CLASSES), images[:0], wrong[:0], torch.Generator()).summary()["median"] == 0.0


@given(st.floats(0.01, 0.99), st.floats(0.01, 0.999))
def test_draws_needed(probability: float, confidence: float) -> None:
    count = draws_needed(probability, confidence)
    assert probability**count <= (1.0 - confidence) * (1 + 1e-9)
    assert count == 1 or probability ** (count - 1) > 1.0 - confidence


def test_what_makes_no_sense_is_refused() -> None:
    for probability, confidence in ((0.0, 0.9), (1.0, 0.9), (0.9, 1.0), (0.9, 0.0)):
        with pytest.raises(UsageError):
            draws_needed(probability, confidence)
    for radii in ((0.2, 0.1), (0.0, 0.1), (0.1, 0.1)):
        with pytest.raises(UsageError, match="ascend"):
            certify(owner(Owner(), CLASSES), probes(1, 0), np.zeros(1, np.int64), torch.Generator(), radii=radii)
