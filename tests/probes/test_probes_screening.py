"""Screening nets: trained from labelled images, reproducible, and no part of the caller's randomness."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from probe_contexts import Steps

from fingerprint.data import CleanImages
from fingerprint.model import Images
from fingerprint.probes import screening
from fingerprint.probes.screening import IMAGES_PER_CLASS, can_screen, train


def shades(count: int, side: int = 8, depth: int = 3) -> CleanImages:
    """Three classes that differ in brightness."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, count)
    images = np.clip(rng.normal(60 + 60 * labels[:, None, None, None], 20, (count, side, side, depth)), 0, 255)
    return CleanImages(images.astype(np.uint8), labels)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screening, "STEPS", 25)


def test_when_there_is_enough_to_learn_from() -> None:
    enough = shades(IMAGES_PER_CLASS * 3)
    assert can_screen(enough, 3)
    assert not can_screen(enough, 4)
    assert not can_screen(None, 3)
    assert not can_screen(CleanImages(enough.images, None), 3)


def test_nets_learn_and_are_reproducible() -> None:
    data, progress = shades(150), Steps()
    state = torch.random.get_rng_state()
    nets = train(data, 3, 2, 5, progress)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert [n.name for n in nets] == ["screening-net-0", "screening-net-1"]
    assert all(n.accuracy > 0.6 for n in nets)
    answers = [n.labels(data.images) for n in nets]
    assert all(((a >= 0) & (a < 3)).all() and a.dtype == np.int64 for a in answers)
    assert str(nets[0].module) != str(nets[1].module)  # of alternating depth
    again, other = train(data, 3, 2, 5, Steps()), train(data, 3, 1, 6, Steps())

    def weights(net: screening.ScreeningNet) -> bytes:
        return b"".join(v.numpy().tobytes() for v in net.module.state_dict().values())

    assert [weights(n) for n in again] == [weights(n) for n in nets]
    assert weights(other[0]) != weights(nets[0])
    assert not nets[0].module.training


def test_no_nets_and_no_images() -> None:
    assert train(shades(40), 3, 0, 1, Steps()) == []
    (net,) = train(shades(40), 3, 1, 1, Steps())
    assert net.labels(np.zeros((0, 8, 8, 3), np.uint8)).shape == (0,)
    assert net.labels(shades(300).images).shape == (300,)  # more than one batch


@pytest.mark.parametrize(("side", "depth"), [(5, 1), (28, 1), (130, 3)])
def test_sizes(side: int, depth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screening, "STEPS", 2)
    data = shades(12, side, depth)
    seen: list[torch.Size] = []
    original = screening._to_tensor

    def spy(images: Images) -> torch.Tensor:
        value = original(images)
        seen.append(value.shape)
        return value

    monkeypatch.setattr(screening, "_to_tensor", spy)
    (net,) = train(data, 3, 1, 0, Steps())
    assert net.labels(data.images).shape == (12,)
    assert max(max(s[2:]) for s in seen) <= screening.LARGEST_SIDE
