"""Targeted signature probes, after FIT-Print (2025): the owner's labels spell a code that was declared beforehand.

Position i of the code demands a class that follows from the code alone (SHA-256, counter mode), so a claimant can't
pick targets that every model gives anyway: transferable adversarial examples (False Claims, USENIX Security 2024) spell
nothing. The probe of a position is descended on noisy weights until the owner says its class with a margin. A suspect
is judged by how many positions it spells right; an unrelated model, whatever its taste, gets about 1 in K right. The
original spells bits through an output mask; label-only spelling in base K is our form of it.
"""

from __future__ import annotations

import hashlib
from typing import ClassVar

import numpy as np
import torch

from fingerprint.errors import UsageError
from fingerprint.frozen import dataclass
from fingerprint.model import Labels
from fingerprint.probes.descent import Descent, descend, hinge
from fingerprint.probes.interface import Candidates, ProbeContext, ProbeFamily, settings
from fingerprint.probes.making import Maker, check_start

SLACK = 0.5  # margin that a probe must keep on a compressed copy, in logit spreads
LONGEST = 1000  # characters of a code


@dataclass(frozen=True)
class SignatureFamily(ProbeFamily):
    """Makes one probe per position of a code.

    code: what to spell, any text, declared before the fingerprint is made (a published statement, a judge's nonce);
    empty = from the fingerprint's own secret, which the record declares; start: images to start from; kappa: margin in
    logit spreads; delta: weight noise relative to each tensor's RMS; draws: noise draws per step; steps, rate: of the
    descent, in 8-bit levels.
    """

    code: str = ""
    start: str = "uniform"
    kappa: float = 3.0
    delta: float = 0.1
    draws: int = 1
    steps: int = 60
    rate: float = 4.0

    name: ClassVar[str] = "signature"
    needs_gradients: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = False
    oversample: ClassVar[int] = 1  # each position has its one probe: picking among them would change the code

    def __post_init__(self) -> None:
        check_start(self.start)
        if len(self.code) > LONGEST or self.kappa <= 0 or self.draws < 1:
            raise UsageError(
                f"signature probes: a code of at most {LONGEST} characters, kappa above 0, draws at least 1"
            )

    def generate(self, context: ProbeContext, count: int) -> Candidates:
        """See `ProbeFamily.generate`. `groups` holds the position that each probe spells."""
        maker = Maker(context, self.name)
        code = self.code or hashlib.sha256(b"signature" + context.seed).hexdigest()
        targets = torch.from_numpy(symbols(code, count, context.classes))
        descent = Descent(steps=self.steps, rate=self.rate, delta=self.delta, draws=self.draws)
        seeds = maker.starts(count, self.start, "signature")
        margin = self.kappa * maker.spread
        images, _ = descend(maker.owner, seeds, hinge(targets, margin), descent, maker.generator("signature"))
        maker.step(count, count)
        return maker.candidates(
            images,
            targets,
            ["signature"] * count,
            {**settings(self), "code": code, "pre_declared": bool(self.code)},
            slack=SLACK * maker.spread,
            groups=torch.arange(count),
        )


def symbols(code: str, count: int, classes: int) -> Labels:
    """(count,) the class that each position of the code demands, uniform over `classes` and a function of `code`."""
    top = (1 << 64) // classes * classes  # above it, a remainder would favour the first classes
    found: list[int] = []
    number = 0
    while len(found) < count:
        block = hashlib.sha256(code.encode() + b"\x00" + number.to_bytes(8, "big")).digest()
        words = (int.from_bytes(block[i : i + 8], "big") for i in range(0, len(block), 8))
        found += [word % classes for word in words if word < top]
        number += 1
    return np.array(found[:count], np.int64)


def spelled(labels: Labels, positions: Labels, code: str, classes: int) -> float:
    """Share of `positions` (N,) at which `labels` (N,) say what the code demands.

    Raises:
        ValueError: no position, or one below zero.
    """
    if not len(positions) or positions.min() < 0:
        raise ValueError("there is no position to read")
    wanted = symbols(code, int(positions.max()) + 1, classes)[positions]
    return float((labels == wanted).mean())
