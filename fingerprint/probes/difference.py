"""Natural images that the owner gets wrong, surely, and in a way of its own.

Clean images are shown to the owner as they are and mirrored, and shifted by a few pixels where more views are wanted.
Where labels are known, only its mistakes are taken (AKH: QuRD, AAAI 2025): where it is right, whoever is more accurate
than the nets that it is compared with would match too. They are ranked by how sure the owner is of its label and how
sure unrelated nets are of another one, whichever is less: nets that `create` trained for screening, or the owner's
screen models. Who learns from the owner's answers learns its mistakes; a net that learned from the same images makes
its own. Uses unrelated nets to generate, so it is off by default without screen models.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fingerprint.data import CleanImages
from fingerprint.decision.statistics import centred_log_outputs, target_margins
from fingerprint.errors import CreateError, UsageError
from fingerprint.frozen import dataclass
from fingerprint.model import Floats, Images, Labels
from fingerprint.probes.interface import Candidates, ProbeContext, ProbeFamily, settings
from fingerprint.probes.natural import cutmix
from fingerprint.probes.seeds import numpy_seed


@dataclass(frozen=True)
class DifferenceFamily(ProbeFamily):
    """Ranks views of natural images by how surely the owner and unrelated nets differ on them.

    look_at: clean images shown to the owner at most; views: how often each, every other time mirrored; shift: of views
    after the second, in height and width, in shares of the side, at most (borders reflect); mixtures: CutMix and mean
    images shown besides, where the views give too few.
    """

    look_at: int = 5000
    views: int = 2
    shift: float = 0.125
    mixtures: int = 2000

    name: ClassVar[str] = "difference"
    needs_gradients: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = False
    needs_data: ClassVar[bool] = True
    needs_others: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.look_at < 1 or self.views < 1 or self.mixtures < 0 or not 0.0 <= self.shift < 0.5:
            raise UsageError(
                "difference probes: look_at and views at least 1, shift from 0 to below 0.5, mixtures at least 0"
            )

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
        passes = 0
        for kind, batch, right in self._sources(data, np.random.default_rng(numpy_seed(context.seed, "mix"))):
            if kind in ("cutmix", "mean") and len(kinds) >= count:
                break
            outputs = context.predict(batch)
            passes += len(batch)
            label = np.asarray(outputs.argmax(axis=1), np.int64)
            rows = np.nonzero(np.all([label != r for r in right], axis=0))[0] if right else np.arange(len(batch))
            images.append(batch[rows])
            labels.append(label[rows])
            others = [other(batch[rows]) for other in context.others]
            values.append(certainty(outputs[rows], others, label[rows]))
            kinds += [kind] * len(rows)
            context.progress.step("difference probes", passes, len(data) * self.views + self.mixtures)
        if not kinds:
            raise CreateError(
                "the owner misclassifies none of the given images", remedy="Give more images with --data."
            )
        value, target = np.concatenate(values), np.concatenate(labels)
        best = np.argsort(-value, kind="stable")[:count]
        return Candidates(
            images=np.concatenate(images)[best],
            targets=target[best],
            kinds=tuple(kinds[i] for i in best),
            passes=passes,
            parameters={**settings(self), "others": len(context.others)},
            merit=1.0 - np.arange(len(best)) / max(1, len(best)),
        )

    def _sources(self, data: CleanImages, rng: np.random.Generator) -> Iterator[tuple[str, Images, list[Labels]]]:
        """Batches to show, with the labels that would be no mistake (none where labels are not known)."""
        known = data.labels
        for view in range(self.views):
            batch = data.images if view < 2 else shifted(data.images, self.shift, rng)
            batch = batch[:, :, ::-1].copy() if view % 2 else batch
            yield ("clean", "mirrored")[view] if view < 2 else "shifted", batch, [] if known is None else [known]
        half = self.mixtures // 2
        for kind, share in (("cutmix", half), ("mean", self.mixtures - half)):
            if share:
                pairs = rng.integers(0, len(data), (2, share))
                first, second = (data.images[index] for index in pairs)
                right = [] if known is None else [known[index] for index in pairs]
                if kind == "cutmix":
                    yield kind, cutmix(first, second, rng), right
                else:
                    yield kind, ((first.astype(np.uint16) + second + 1) // 2).astype(np.uint8), right


def shifted(images: Images, share: float, rng: np.random.Generator) -> Images:
    """Each image (N, H, W, C) moved by up to `share` of its sides, at random; what enters is mirrored at the border."""
    most = [round(side * share) for side in images.shape[1:3]]
    padded = np.pad(images, ((0, 0), (most[0],) * 2, (most[1],) * 2, (0, 0)), mode="symmetric")
    top, left = (rng.integers(0, 2 * m + 1, len(images)) for m in most)
    rows = top[:, None] + np.arange(images.shape[1])
    columns = left[:, None] + np.arange(images.shape[2])
    return np.asarray(padded[np.arange(len(images))[:, None, None], rows[:, :, None], columns[:, None, :]])


def certainty(own: Floats, others: Sequence[Floats], labels: Labels) -> NDArray[np.float64]:
    """How sure the owner is of each label and others are of another one, in nats, whichever is less, (N,).

    Args:
        own: (N, K) outputs of the owner.
        others: per other model (N, K) outputs; their mean counts.
        labels: (N,) below K.
    """
    if not len(labels):
        return np.zeros(0)
    ahead = target_margins(_logs(own), labels)
    behind = np.mean([-target_margins(_logs(o), labels) for o in others], axis=0)
    return np.asarray(np.minimum(ahead, behind), np.float64)


def _logs(outputs: Floats) -> Floats:
    return np.asarray(centred_log_outputs(outputs), np.float32)
