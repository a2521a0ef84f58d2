"""Zeroth-order probes: creation for an owner who has only answers (ZO-NGD: Zhao, Chen, Wang, Lin: AAAI 2020).

No gradients: the loss relu(kappa - margin) is differenced along random sign patterns of whole 8-bit levels, and the
step is the natural gradient inside the span of those patterns, (F + damping I)^-1 g, with the Fisher matrix F of the
owner's answers, which the same queries give. Uses the owner's outputs, not only its labels: a host that answers labels
alone tells a difference nothing.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from fingerprint.decision.statistics import centred_log_outputs, is_soft
from fingerprint.errors import CreateError, UsageError
from fingerprint.frozen import dataclass
from fingerprint.model import Images, Labels
from fingerprint.probes.interface import Candidates, ProbeContext, ProbeFamily, settings
from fingerprint.probes.making import check_start, numpy_generator, start_images

Values = NDArray[np.float64]


@dataclass(frozen=True)
class ZerothFamily(ProbeFamily):
    """Makes probes with the owner's outputs alone.

    start: images to start from; kappa: margin in spreads of the log outputs; directions: queries per step and probe;
    cell: side of the squares in which a direction has one sign (tiling: Ilyas et al., ICLR 2019), in pixels; probing:
    size of a difference, in 8-bit levels; damping: of the Fisher matrix, relative to its mean diagonal; steps, rate: of
    the descent, in levels.
    """

    start: str = "auto"
    kappa: float = 0.5
    directions: int = 8
    cell: int = 4
    probing: int = 8
    damping: float = 0.5
    steps: int = 40
    rate: float = 24.0

    name: ClassVar[str] = "zeroth"
    needs_gradients: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_start(self.start)
        if self.kappa <= 0 or self.cell < 1 or self.directions < 2 or not 1 <= self.probing <= 64 or self.damping <= 0:
            raise UsageError("zeroth probes: kappa and damping above 0, 2 directions or more, probing from 1 to 64")

    def generate(self, context: ProbeContext, count: int) -> Candidates:
        """See `ProbeFamily.generate`. `passes` counts queries."""
        search = _Search(self, context, count)
        for step in range(self.steps):
            if not search.step(step):
                break
            context.progress.step("zeroth probes", int((search.lowest <= 0).sum()), count)
        return search.candidates()


class _Search:
    """All probes on their way."""

    def __init__(self, family: ZerothFamily, context: ProbeContext, count: int) -> None:
        self.family, self.context, self.passes = family, context, 0
        self.rng = numpy_generator(context, "directions")
        starts = start_images(context, count, family.start, "zeroth")
        self.images = np.asarray(starts.permute(0, 2, 3, 1).numpy(), np.float64)
        noise = start_images(context, 64, "uniform", "spread").to(torch.uint8).permute(0, 2, 3, 1).numpy()
        answers = context.predict(np.ascontiguousarray(noise))
        self.passes += len(noise)
        if not is_soft(answers):
            raise CreateError(
                "the owner answers labels alone, which differences can't descend",
                remedy="Create from a model that gives outputs, or choose --families natural with labelled --data.",
            )
        spread = float(centred_log_outputs(answers).std())
        if spread <= 1e-9:
            raise CreateError("the model's answers do not depend on its input", remedy="Check the file and its spec.")
        self.wanted = family.kappa * spread
        first = self._logs(self._rounded(self.images))
        self.targets: Labels = np.argsort(first, axis=1)[:, -2].astype(np.int64)
        self.best, self.lowest = self._rounded(self.images), np.full(count, np.inf)

    def step(self, number: int) -> bool:
        """One natural-gradient step of the probes that lack the margin; False where none does."""
        family = self.family
        rows = np.nonzero(self.lowest > 0)[0]
        here = self._logs(self._rounded(self.images[rows]))
        loss = self._loss(here, self.targets[rows])
        better = loss < self.lowest[rows]
        self.best[rows[better]] = self._rounded(self.images[rows[better]])
        self.lowest[rows] = np.minimum(loss, self.lowest[rows])
        left = loss > 0
        rows, here = rows[left], here[left]
        if not len(rows):
            return False
        shape = (len(rows), family.directions, *self.images.shape[1:])
        patterns = self._patterns(shape)
        base = np.rint(self.images[rows])[:, None]
        there: Values = np.clip(base + float(family.probing) * patterns, 0.0, 255.0)
        logs = self._logs(self._rounded(there.reshape(-1, *shape[2:]))).reshape(len(rows), family.directions, -1)
        moves = self._natural(here, logs, self.targets[rows])
        direction = np.einsum("nq,nq...->n...", moves, patterns)
        direction /= np.maximum(np.abs(direction).max(axis=(1, 2, 3), keepdims=True), 1e-20)
        rate = family.rate * (1.0 - 0.9 * number / family.steps)
        self.images[rows] = np.clip(self.images[rows] - rate * direction, 0.0, 255.0)
        return True

    def _patterns(self, shape: tuple[int, ...]) -> NDArray[np.int8]:
        """Random signs (N, Q, H, W, C), the same within each cell: fewer dimensions, so a query tells more."""
        cell, (height, width) = self.family.cell, shape[2:4]
        coarse = (*shape[:2], -(-height // cell), -(-width // cell), shape[4])
        signs = self.rng.integers(0, 2, coarse, dtype=np.int8) * 2 - 1
        return np.asarray(signs.repeat(cell, axis=2).repeat(cell, axis=3)[:, :, :height, :width], np.int8)

    def _natural(self, here: Values, logs: Values, targets: Labels) -> Values:
        """(N, Q) natural gradient in the span of the patterns."""
        jacobian = (logs - here[:, None]) / self.family.probing  # (N, Q, K)
        slope = (
            self._margins(logs.reshape(-1, logs.shape[2]), np.repeat(targets, logs.shape[1])).reshape(logs.shape[:2])
            - self._margins(here, targets)[:, None]
        ) / self.family.probing
        shares = np.exp(here - here.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        centred = jacobian - np.einsum("nqk,nk->nq", jacobian, shares)[:, :, None]
        fisher = np.einsum("nqk,nk,nrk->nqr", centred, shares, centred)
        scale = np.maximum(np.trace(fisher, axis1=1, axis2=2) / fisher.shape[1], 1e-20)
        damped = fisher + (self.family.damping * scale)[:, None, None] * np.eye(fisher.shape[1])
        return np.asarray(np.linalg.solve(damped, -slope[:, :, None])[:, :, 0])

    def candidates(self) -> Candidates:
        """Those that the owner gives their target with the margin, at the values that are stored."""
        kept = np.nonzero(self.lowest <= 0)[0]
        if not len(kept):
            raise CreateError(
                "the model gave no zeroth probe its target label", remedy="More steps or directions; or other families."
            )
        family = self.family
        return Candidates(
            images=self.best[kept],
            targets=self.targets[kept],
            kinds=("zeroth",) * len(kept),
            passes=self.passes,
            parameters=settings(family),
        )

    def _logs(self, images: Images) -> Values:
        self.passes += len(images)
        return centred_log_outputs(self.context.predict(images))

    def _loss(self, logs: Values, targets: Labels) -> Values:
        return np.maximum(self.wanted - self._margins(logs, targets), 0.0)

    @staticmethod
    def _margins(logs: Values, targets: Labels) -> Values:
        rows = np.arange(len(targets))
        others = logs.copy()
        others[rows, targets] = -np.inf
        return np.asarray(logs[rows, targets] - others.max(axis=1))

    @staticmethod
    def _rounded(images: Values) -> Images:
        return np.ascontiguousarray(np.rint(images).astype(np.uint8))
