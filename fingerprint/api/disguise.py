"""Probes hidden among clean inputs, and the signs of a host that tells them apart.

A host that recognises probes may answer them falsely and everything else truthfully. Cover queries (clean images) are
mixed with the probes, all are shifted by a small random jitter, and the order is random. Afterwards some probes and
some clean images are asked again with another jitter. Two signs are tested, each at half of the level: probes get an
unstable answer where clean images get a stable one, or nearly all probes get one and the same label, more than any
reference suggests. A stranger shows neither; a host that answers probes like an ordinary other model can't be told
from one, and is not accused.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable

import numpy as np

from fingerprint.api.reduced import answered as answered_among
from fingerprint.data import CleanImages
from fingerprint.decision.distributions import binomial_tail
from fingerprint.decision.null import MINIMUM_FITTED, MatchNull
from fingerprint.engine.labels import LabelMap
from fingerprint.errors import EvasiveHost
from fingerprint.model import Floats, Images, InputSpec, labels_of
from fingerprint.record import Fingerprint

AGAIN = 24  # probes, and clean images, that are asked a second time
UNSTABLE = 0.3  # share of answers that change under the jitter which an honest model is declared not to exceed
Predict = Callable[[Images, InputSpec], Floats]


class Disguise:
    """Mixes cover queries with probes.

    Args:
        clean: images to hide among; used in turn.
        cover: clean inputs sent for every probe; 1.0 = as many.
        jitter: grey levels, 0 to 8, by which every value of every input is moved at most.
    """

    def __init__(self, clean: CleanImages, cover: float, jitter: int) -> None:
        self._rng = np.random.default_rng(secrets.randbits(128))
        self._clean = clean.images[self._rng.permutation(len(clean.images))]
        self._cover, self._jitter, self._used = cover, jitter, 0
        self._asked: list[tuple[Images, int]] = []  # (image, label) of probes
        self._covered: list[tuple[Images, int]] = []  # of clean images

    @property
    def extra(self) -> float:
        """Inputs sent for one probe, the probe included."""
        return 1.0 + self._cover

    @property
    def enough(self) -> bool:
        """Whether enough was asked to see that a host tells probes apart."""
        return len(self._asked) >= AGAIN

    def through(self, predict: Predict) -> Predict:
        """`predict`, with cover queries mixed in."""
        return lambda images, spec: self.ask(predict, spec, images)

    def ask(self, predict: Predict, spec: InputSpec, probes: Images) -> Floats:
        """Answers (n, K) to the probes (n, H, W, C), asked among clean images in random order."""
        count = min(len(self._clean), round(self._cover * len(probes)))
        cover = self._clean[(self._used + np.arange(count)) % max(1, len(self._clean))]
        self._used += count
        answered, covered = self._mixed(predict, spec, probes, cover)
        self._asked += list(zip(probes, labels_of(answered).tolist(), strict=True))
        self._covered += list(zip(cover, labels_of(covered).tolist(), strict=True))
        return answered

    def reveal(
        self,
        predict: Predict,
        spec: InputSpec,
        fingerprint: Fingerprint,
        alpha: float,
        left: int | None,
        labels: LabelMap | None = None,
    ) -> None:
        """Look for signs that probes are answered differently from clean inputs.

        Args:
            predict: asks the suspect.
            spec: how it wants its input.
            fingerprint: whose probes were asked.
            alpha: level of both signs together.
            left: inputs it may still send; None = no bound.
            labels: its label space, where that is not the owner's: who has fewer classes gives each more often.

        Raises:
            EvasiveHost: there is one, at level alpha.
        """
        found = self._instability(predict, spec, alpha / 2, left) or self._one_answer(fingerprint, alpha / 2, labels)
        if found is not None:
            raise EvasiveHost(
                f"it answers probes differently from clean inputs (at error <= {alpha:g}): {found}",
                remedy="Its answers to probes are no evidence of lineage; ask from another account or place.",
            )

    def _mixed(self, predict: Predict, spec: InputSpec, first: Images, second: Images) -> tuple[Floats, Floats]:
        together = np.concatenate([first, second]) if len(second) else first
        order = self._rng.permutation(len(together))
        outputs = predict(self._moved(together[order]), spec)
        back = np.empty_like(outputs)
        back[order] = outputs
        return back[: len(first)], back[len(first) :]

    def _moved(self, images: Images) -> Images:
        if not self._jitter:
            return images
        shift = self._rng.integers(-self._jitter, self._jitter + 1, images.shape)
        moved: Images = np.clip(images.astype(np.int16) + shift, 0, 255).astype(np.uint8)
        return moved

    def _instability(self, predict: Predict, spec: InputSpec, alpha: float, left: int | None) -> str | None:
        count = min(AGAIN, len(self._asked), len(self._covered))
        if not self._jitter or count < AGAIN // 2 or (left is not None and left < 2 * count):
            return None
        chosen, covers = self._asked[:count], self._covered[:count]
        again, clean_again = self._mixed(
            predict, spec, np.stack([image for image, _ in chosen]), np.stack([image for image, _ in covers])
        )
        changed = int((labels_of(again) != np.array([label for _, label in chosen])).sum())
        clean_changed = int((labels_of(clean_again) != np.array([label for _, label in covers])).sum())
        stable = 1.0 - binomial_tail(clean_changed + 1, count, UNSTABLE) <= alpha
        if stable and binomial_tail(changed, count, UNSTABLE) <= alpha:
            return (
                f"{changed} of {count} probes got another label when they were asked again with {self._jitter} grey "
                f"level(s) of noise, and {clean_changed} of {count} clean images did"
            )
        return None

    def _one_answer(self, fingerprint: Fingerprint, alpha: float, labels: LabelMap | None) -> str | None:
        orders, references = fingerprint.payload.reference_orders, fingerprint.manifest.references
        asked, probes = len(self._asked), fingerprint.manifest.probes.count
        if orders is None or len(references) < MINIMUM_FITTED or not asked:
            return None
        given = orders[:, :, 0] if labels is None else [answered_among(order, labels) for order in orders]
        usual = [Counter(row.tolist()).most_common(1)[0][1] for row in given]
        (label, most) = Counter(label for _, label in self._asked).most_common(1)[0]
        lowest, level = most, alpha
        if asked < probes:  # the share among those asked stands for all probes only where it can hardly be chance
            level = alpha / 2
            lowest = next((s for s in range(probes + 1) if binomial_tail(most, asked, s / probes) > level), probes)
        p = MatchNull(usual, probes, [r.author for r in references]).tail(lowest)
        varied = len({label for _, label in self._covered}) > 1
        if varied and p <= level:
            return f"{most} of {asked} probes got the one label {label}, clean images did not"
        return None
