"""Every gradient-made family with the owner on another device: the same probes, and no tensor left behind."""

from __future__ import annotations

import dataclasses
import sys
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest
import torch
from probe_contexts import CLASSES, SPEC, Owner, answers, clean_images, context

from fingerprint.probes.certificate import certify
from fingerprint.probes.gradient import DifferentiableOwner
from fingerprint.probes.interface import Candidates, ProbeContext
from fingerprint.probes.registry import family

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))

from elsewhere import DEVICE, Elsewhere, There, moved

GRADIENT = [n for n in sorted(entry_points(group="fingerprint.probes").names) if family(n).needs_gradients]
COUNT = 4


def around(module: torch.nn.Module) -> ProbeContext:
    """A context whose module computes wherever its weights are; everything else is asked on the CPU."""
    own = Owner()
    made = context(module, predict=lambda images: answers(own, images), data=clean_images(120))
    return dataclasses.replace(made, others=(partial(answers, Owner(1)), partial(answers, Owner(2))))


def generate(name: str, module: torch.nn.Module) -> Candidates:
    return family(name).generate(around(module), COUNT)


@pytest.mark.parametrize("name", GRADIENT)
def test_the_same_probes_elsewhere(name: str) -> None:
    here = generate(name, Owner())
    module = moved(Owner())
    with Elsewhere():
        assert DifferentiableOwner(module, SPEC, CLASSES).device == DEVICE
        there = generate(name, module)
    np.testing.assert_array_equal(here.images, there.images)
    np.testing.assert_array_equal(here.targets, there.targets)


def test_certificates_elsewhere() -> None:
    images, found = clean_images(6).images, []
    for module in (Owner(), moved(Owner())):
        with Elsewhere():
            owner = DifferentiableOwner(module, SPEC, CLASSES)
            targets = answers(Owner(), images).argmax(axis=1)
            generator = torch.Generator().manual_seed(0)
            found.append(certify(owner, images, targets, generator, probability=0.5, confidence=0.9, radii=(0.1, 0.5)))
    np.testing.assert_array_equal(found[0].radius, found[1].radius)
    assert found[0].radius.max() > 0


def test_the_second_device_is_strict() -> None:
    """Else the test above would show nothing."""
    with Elsewhere():
        tensor = torch.ones(3).to(DEVICE)
        assert isinstance(tensor, There) and isinstance(tensor + 1.0, There)
        with pytest.raises(RuntimeError, match="two devices"):
            tensor + torch.ones(3)
        with pytest.raises(RuntimeError, match="numpy"):
            tensor.numpy()
        assert tensor.cpu().numpy().tolist() == [1.0, 1.0, 1.0]
