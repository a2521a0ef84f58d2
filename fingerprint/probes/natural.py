"""Natural probes: inputs that the owner misclassifies (AKH of QuRD, AAAI 2025), topped up by CutMix and flips.

Needs labelled images and no gradients. Confident mistakes come first: they survive quantization. What other models
also get wrong is weeded out by screening, not here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fingerprint.data import CleanImages
from fingerprint.decision.statistics import centred_log_outputs
from fingerprint.errors import CreateError, UsageError
from fingerprint.frozen import dataclass
from fingerprint.model import Floats, Images
from fingerprint.probes.interface import Candidates, ProbeContext, ProbeFamily, settings
from fingerprint.probes.seeds import numpy_seed

LOOK_AT = 5000  # clean images that are shown to the owner at most
MIX_ROUNDS = 8  # rounds of CutMix before giving up
MIX_BATCH = 512


def cutmix(first: Images, second: Images, rng: np.random.Generator) -> Images:
    """Paste a random box of `second` into `first`, both (N, H, W, C) (Yun et al., ICCV 2019; area ~ Beta(1, 1))."""
    mixed = first.copy()
    height, width = first.shape[1:3]
    for row in range(len(mixed)):
        share = np.sqrt(rng.uniform(0.2, 0.8))
        tall, wide = max(1, round(height * share)), max(1, round(width * share))
        top, left = rng.integers(0, height - tall + 1), rng.integers(0, width - wide + 1)
        mixed[row, top : top + tall, left : left + wide] = second[row, top : top + tall, left : left + wide]
    return mixed


@dataclass(frozen=True)
class NaturalFamily(ProbeFamily):
    """Misclassified inputs, then misclassified flips, then CutMix images given neither source's label.

    look_at: clean images that are shown to the owner at most; mix_rounds: rounds of CutMix before giving up.
    """

    look_at: int = LOOK_AT
    mix_rounds: int = MIX_ROUNDS

    name: ClassVar[str] = "natural"
    needs_gradients: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.look_at < 1 or self.mix_rounds < 0:
            raise UsageError("natural probes: look_at at least 1, mix_rounds at least 0")

    def generate(self, context: ProbeContext, count: int) -> Candidates:
        """See `ProbeFamily.generate`."""
        if context.data is None or context.data.labels is None:
            raise CreateError(
                "natural probes need labelled images", remedy="Give --data with class folders or an .npz with labels."
            )
        data = context.data.take(self.look_at, numpy_seed(context.seed, "look") % 2**32)
        images: list[Images] = []
        targets: list[NDArray[np.int64]] = []
        kinds: list[str] = []
        passes = 0
        for kind, batch, forbidden in self._sources(data, np.random.default_rng(numpy_seed(context.seed, "mix"))):
            outputs = context.predict(batch)
            passes += len(batch)
            wrong = _confident_mistakes(outputs, forbidden)[: count - len(kinds)]
            images.append(batch[wrong])
            targets.append(outputs[wrong].argmax(axis=1))
            kinds += [kind] * len(wrong)
            context.progress.step("natural probes", min(len(kinds), count), count)
            if len(kinds) >= count:
                break
        if not kinds:
            raise CreateError(
                "the owner misclassifies none of the given images", remedy="Give more images with --data."
            )
        return Candidates(np.concatenate(images), np.concatenate(targets), tuple(kinds), passes, settings(self))

    def _sources(
        self, data: CleanImages, rng: np.random.Generator
    ) -> Iterator[tuple[str, Images, list[NDArray[np.int64]]]]:
        """Batches to try, with the labels that would be no mistake."""
        labels = data.labels
        assert labels is not None  # noqa: S101  (generate checked it)
        yield "misclassified", data.images, [labels]
        yield "flip", np.ascontiguousarray(data.images[:, :, ::-1]), [labels]
        for _ in range(self.mix_rounds):
            a, b = rng.integers(0, len(data), (2, MIX_BATCH))
            yield "cutmix", cutmix(data.images[a], data.images[b], rng), [labels[a], labels[b]]


def _confident_mistakes(outputs: Floats, forbidden: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Indices of rows whose label is none of `forbidden`, largest margin first."""
    logs = centred_log_outputs(outputs)
    top = np.sort(logs, axis=1)[:, -2:]
    margin = top[:, 1] - top[:, 0]
    label = outputs.argmax(axis=1)
    wrong = np.all([label != f for f in forbidden], axis=0)
    index = np.nonzero(wrong)[0]
    return index[np.argsort(-margin[index], kind="stable")]
