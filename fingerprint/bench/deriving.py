"""How the zoo calls `derive`: what a thief has, and the version of the steps that names what they made."""

from __future__ import annotations

from fingerprint.bench.splits import Splits
from fingerprint.model import InputSpec
from fingerprint.progress import Progress
from fingerprint.transforms.derive import parse_how, spell
from fingerprint.transforms.interface import DeriveContext


def context_for(spec: InputSpec, splits: Splits, seed: int, progress: Progress) -> DeriveContext:
    """The thief's images are the training images: none of the owner's probes, none that evaluate."""
    return DeriveContext(
        spec,
        splits.training.images,
        labels=splits.training.labels,
        held_out=splits.evaluation,
        seed=seed,
        progress=progress,
        device="cpu",
        measure=False,
    )


def version_of(how: str) -> str:
    """Canonical chain, each step with the version of its code (`version` of its class, 1 where it says none)."""
    steps = parse_how(how)
    return spell(steps) + " " + " ".join(str(getattr(step, "version", 1)) for step in steps)
