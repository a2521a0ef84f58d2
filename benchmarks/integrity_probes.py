"""Competitors' integrity probes, our re-implementation: their papers' code is not public.

Sensitive samples (He, Zhang and Lee, CVPR 2019) and boundary samples of highest entropy over the top classes.
"""

from __future__ import annotations

import torch

from fingerprint.probes.gradient import DifferentiableOwner

COMPETITOR_STEPS = 15


def sensitive_samples(owner: DifferentiableOwner, seeds: torch.Tensor) -> torch.Tensor:
    """(N, C, H, W): gradient ascent on the squared norm of d logits / d weights, over random signs of the logits."""
    weights = [t for t in (*owner.module.parameters(), *owner.module.buffers()) if t.is_floating_point() and t.ndim > 1]
    generator = torch.Generator().manual_seed(0)
    for weight in weights:
        weight.requires_grad_(True)
    images = seeds.clone()
    for _ in range(COMPETITOR_STEPS):
        for rows in torch.split(torch.arange(len(images)), 20):
            part = images[rows].clone().requires_grad_(True)
            logits = owner.logits(part)
            signs = torch.randint(0, 2, logits.shape, generator=generator) * 2.0 - 1.0
            found = torch.autograd.grad((logits * signs).sum(), weights, create_graph=True)
            (gradient,) = torch.autograd.grad(sum(g.square().sum() for g in found), part)  # type: ignore[arg-type]
            images[rows] = (part + 2.0 * gradient.sign()).clamp(0.0, 255.0).detach()
    for weight in weights:
        weight.requires_grad_(False)
    return images


def boundary_entropy(owner: DifferentiableOwner, seeds: torch.Tensor, top: int = 3) -> torch.Tensor:
    """(N, C, H, W): Adam on the entropy of the softmax over the `top` classes."""
    images = seeds.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([images], 1.0)
    for _ in range(4 * COMPETITOR_STEPS):
        best = owner.logits(images).topk(top, dim=1).values.log_softmax(1)
        (gradient,) = torch.autograd.grad((best.exp() * best).sum(), images)
        images.grad = gradient
        optimizer.step()
        images.data.clamp_(0.0, 255.0)
    return images.detach()
