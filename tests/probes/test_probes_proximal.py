"""Proximal operators by their definition: no other point is better."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fingerprint.probes.proximal import BLOCK, DISTORTIONS, block_norms

VALUES = st.tuples(st.sampled_from(sorted(DISTORTIONS)), st.integers(0, 9999), st.floats(0.01, 20.0))


def draw(seed: int) -> tuple[torch.Tensor, torch.Generator]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 3, 5, 6, generator=generator, dtype=torch.float64) * 4.0, generator


def objective(name: str, z: torch.Tensor, v: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return t * DISTORTIONS[name].measure(z) + 0.5 * (z - v).flatten(1).square().sum(1)


@given(VALUES)
def test_prox_is_the_minimiser(given_: tuple[str, int, float]) -> None:
    name, seed, weight = given_
    value, generator = draw(seed)
    t = torch.tensor([weight, weight / 2.0], dtype=torch.float64)
    best = DISTORTIONS[name].prox(value, t)
    reached = objective(name, best, value, t)
    others = [value, torch.zeros_like(value), 0.5 * best, best + 0.1 * (value - best), 1.01 * best]
    others += [best + s * torch.randn(value.shape, generator=generator, dtype=value.dtype) for s in (1e-3, 0.1, 1.0)]
    for other in others:
        assert (reached <= objective(name, other, value, t) + 1e-6).all()


@pytest.mark.parametrize("name", sorted(DISTORTIONS))
def test_no_weight_changes_nothing_and_much_weight_leaves_nothing(name: str) -> None:
    value, _ = draw(0)
    none, much = torch.zeros(2, dtype=value.dtype), torch.full((2,), 1e9, dtype=value.dtype)
    assert torch.allclose(DISTORTIONS[name].prox(value, none), value)
    assert (DISTORTIONS[name].prox(value, much) == 0).all()


def test_measures_by_hand() -> None:
    value = torch.zeros(1, 1, 2 * BLOCK, BLOCK + 1)  # blocks: 2 x 2, the right ones one column wide
    value[0, 0, 0, :2] = torch.tensor([3.0, -4.0])
    value[0, 0, -1, -1] = 2.0
    found = {name: float(d.measure(value)) for name, d in DISTORTIONS.items()}
    assert found == pytest.approx({"l0": 3, "l1": 9, "l2": 29**0.5, "linf": 4, "group": 7})
    assert block_norms(value)[0].tolist() == [[5.0, 0.0], [0.0, 2.0]]
