"""Natural probes on which the owner's answer differs most from that of unrelated nets.

Clean images, and mixtures of two (CutMix, means), are ranked by how surprising the owner's label is to nets that
`create` trained for screening, or to the owner's screen models: the mean over them of log p_owner(label) -
log p_net(label), the evidence for the owner in one answer. Where AKH (QuRD, AAAI 2025) takes what the owner gets
*wrong*, this takes what only the owner says: labels of the images are not needed to make it. Uses unrelated nets to
generate, so it is off by default (see docs/families.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fingerprint.data import CleanImages
from fingerprint.decision.statistics import centred_log_outputs
from fingerprint.errors import CreateError, UsageError
from fingerprint.model import Floats, Images, Labels
from fingerprint.probes.interface import Candidates, ProbeContext, ProbeFamily, settings
from fingerprint.probes.natural import cutmix
from fingerprint.probes.seeds import numpy_seed


@dataclass(frozen=True)
class DifferenceFamily(ProbeFamily):
    """Ranks natural images by how much the owner's answer differs from unrelated nets'.

    look_at: clean images shown to the owner at most; mixtures: mixed images shown besides.
    """

    look_at: int = 5000
    mixtures: int = 2000

    name: ClassVar[str] = "difference"
    needs_gradients: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = False
    needs_data: ClassVar[bool] = True
    needs_others: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.look_at < 1 or self.mixtures < 0:
            raise UsageError("difference probes: look_at at least 1, mixtures at least 0")

    def generate(self, context: ProbeContext, count: int) -> Candidates:
        """See `ProbeFamily.generate`. `merit` is the rank of the difference, from 0 to 1."""
        if context.data is None or not len(context.data) or not context.others:
            raise CreateError(
                "difference probes need clean images and unrelated nets", remedy="Give labelled images with --data."
            )
        data = context.data.take(self.look_at, numpy_seed(context.seed, "look") % 2**32)
        images: list[Images] = []
        labels: list[Labels] = []
        values: list[NDArray[np.float64]] = []
        kinds: list[str] = []
        for kind, batch in self._sources(data, np.random.default_rng(numpy_seed(context.seed, "mix"))):
            outputs = context.predict(batch)
            labels.append(np.asarray(outputs.argmax(axis=1), np.int64))
            values.append(evidence(outputs, [other(batch) for other in context.others], labels[-1]))
            images.append(batch)
            kinds += [kind] * len(batch)
            context.progress.step("difference probes", len(kinds), len(data) + self.mixtures)
        value, target = np.concatenate(values), np.concatenate(labels)
        best = np.argsort(-value, kind="stable")[:count]
        return Candidates(
            images=np.concatenate(images)[best],
            targets=target[best],
            kinds=tuple(kinds[i] for i in best),
            passes=len(value),
            parameters={**settings(self), "others": len(context.others)},
            merit=1.0 - np.arange(len(best)) / max(1, len(best)),
        )

    def _sources(self, data: CleanImages, rng: np.random.Generator) -> Iterator[tuple[str, Images]]:
        yield "clean", data.images
        half = self.mixtures // 2
        for kind, share in (("cutmix", half), ("mean", self.mixtures - half)):
            if share:
                first, second = (data.images[index] for index in rng.integers(0, len(data), (2, share)))
                if kind == "cutmix":
                    yield kind, cutmix(first, second, rng)
                else:
                    yield kind, ((first.astype(np.uint16) + second + 1) // 2).astype(np.uint8)


def evidence(own: Floats, others: list[Floats], labels: Labels) -> NDArray[np.float64]:
    """Log probability of each label for the owner, less its mean over others, (N,).

    Args:
        own: (N, K) outputs of the owner.
        others: per other model (N, K) outputs.
        labels: (N,) below K.
    """
    rows = np.arange(len(labels))

    def log_probability(outputs: Floats) -> NDArray[np.float64]:
        logs = centred_log_outputs(outputs)
        return np.asarray(logs[rows, labels] - np.logaddexp.reduce(logs, axis=1))

    return np.asarray(log_probability(own) - np.mean([log_probability(o) for o in others], axis=0))
