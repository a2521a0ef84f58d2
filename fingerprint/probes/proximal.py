"""Distortions and their proximal operators: l0, l1, l2, l-infinity, and groups of neighbouring values.

prox(v, t) is the minimiser of t D(z) + ||z - v||^2 / 2, for a batch v (B, C, H, W) with t (B,) of its own per probe.
Formulas: Parikh and Boyd, "Proximal Algorithms" (2014); the group norm as in StrAttack (Xu et al., ICLR 2019).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from fingerprint.frozen import dataclass

BLOCK = 4  # side of a block of the group norm, over all channels


@dataclass(frozen=True)
class Distortion:
    """measure: (B, C, H, W) -> (B,); prox: (B, C, H, W), (B,) -> (B, C, H, W)."""

    measure: Callable[[torch.Tensor], torch.Tensor]
    prox: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def count_nonzero(value: torch.Tensor) -> torch.Tensor:
    """l0: how many values differ from zero."""
    return (value != 0).flatten(1).sum(1).float()


def hard_threshold(value: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """prox of l0: what is at least sqrt(2 t) stays as it is."""
    return torch.where(value.square() >= 2.0 * _wide(t), value, 0.0)


def soft_threshold(value: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """prox of l1: everything moves t towards zero."""
    return value.sign() * torch.relu(value.abs() - _wide(t))


def shrink(value: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """prox of l2 (not squared): the whole vector moves t towards zero."""
    size = value.flatten(1).norm(dim=1).clamp_min(1e-20)
    return value * _wide(torch.relu(1.0 - t / size))


def cap(value: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """prox of l-infinity, by Moreau: the value minus its projection onto the l1 ball of radius t."""
    magnitude = value.flatten(1).abs()
    ordered = magnitude.sort(dim=1, descending=True).values
    sums = ordered.cumsum(1) - t[:, None]
    places = torch.arange(1, ordered.shape[1] + 1, device=value.device)
    last = (ordered * places > sums).sum(1).clamp_min(1)
    level = torch.relu(sums.gather(1, last[:, None] - 1)[:, 0] / last)
    level = torch.where(magnitude.sum(1) <= t, 0.0, level)
    return value.sign() * torch.minimum(value.abs(), _wide(level))


def block_norms(value: torch.Tensor) -> torch.Tensor:
    """(B, h, w) l2 norms of blocks of `BLOCK` x `BLOCK` values over all channels; blocks at the rim are smaller."""
    squares = value.square().sum(1, keepdim=True)
    pooled = torch.nn.functional.avg_pool2d(squares, BLOCK, ceil_mode=True, count_include_pad=False, divisor_override=1)
    return pooled[:, 0].clamp_min(0.0).sqrt()


def group_size(value: torch.Tensor) -> torch.Tensor:
    """Sum of the block norms."""
    return block_norms(value).flatten(1).sum(1)


def group_threshold(value: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """prox of the group norm: each block moves t towards zero."""
    norms = block_norms(value)
    factor = torch.relu(1.0 - t[:, None, None] / norms.clamp_min(1e-20))
    wide = factor.repeat_interleave(BLOCK, 1).repeat_interleave(BLOCK, 2)
    return value * wide[:, None, : value.shape[2], : value.shape[3]]


def _wide(t: torch.Tensor) -> torch.Tensor:
    return t[:, None, None, None]


DISTORTIONS: Mapping[str, Distortion] = {
    "l0": Distortion(count_nonzero, hard_threshold),
    "l1": Distortion(lambda v: v.flatten(1).abs().sum(1), soft_threshold),
    "l2": Distortion(lambda v: v.flatten(1).norm(dim=1), shrink),
    "linf": Distortion(lambda v: v.flatten(1).abs().amax(1), cap),
    "group": Distortion(group_size, group_threshold),
}
