"""How a suspect is fed for each fingerprint: by a spec, or as its answers to clean images settle it."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import numpy as np

from fingerprint.api.asking import Asker
from fingerprint.api.together import fed
from fingerprint.data import CleanImages, load_images
from fingerprint.engine.clean_answers import CleanAnswers, Hearing
from fingerprint.engine.settle import Setting, Settled, candidates, settle
from fingerprint.frozen import dataclass
from fingerprint.model import InputSpec
from fingerprint.record import Fingerprint
from fingerprint.spec import FoundSpec

CLEAN_USED = 1000  # clean images used to settle a suspect's input
CLEAN_FEWEST = 8  # clean images below which a budget leaves no room to settle an input
UNSETTLED = "unsettled"
Key: TypeAlias = tuple[tuple[InputSpec, ...], str, bytes, int]  # candidates, digest of images, labels, classes


@dataclass(frozen=True)
class Fed:
    """How a suspect is fed for one fingerprint.

    settings: equally good ones, best first; none: `reason` says why. found: the spec that says it. settled, hearing:
    what clean images said, and which answers that rests on.
    """

    settings: tuple[Setting, ...] = ()
    reason: str = ""
    found: FoundSpec | None = None
    settled: Settled | None = None
    hearing: Hearing | None = None

    @classmethod
    def by(cls, found: FoundSpec) -> Fed:
        """As a spec says."""
        return cls((Setting(found.spec),), found=found)

    @property
    def sent(self) -> int:
        """Inputs that settling took, those that other fingerprints rest on as well included."""
        return self.hearing.queries if self.hearing else 0

    def adaptation(self, setting: Setting) -> dict[str, object]:
        """`Result.adaptation` for the setting that the verdict is of."""
        spec, settled = setting.spec, self.settled
        if settled is None:
            return {"origin": self.found.origin if self.found else UNSETTLED, "spec": spec.to_dict()}
        return {
            "origin": "settled on clean images",
            "spec": spec.to_dict(),
            "labels": setting.labels.kind if setting.labels else ("offset" if spec.class_offset else "same"),
            "equally_good": len(self.settings),
            "settling_error": settled.error,
            "clean_accuracy": settled.accuracy,
            "clean_images": settled.images,
            **self.shared,
        }

    @property
    def shared(self) -> dict[str, object]:
        """How many of the inputs counted were sent once for several fingerprints; nothing where none were."""
        shared = self.hearing.shared if self.hearing else 0
        return {"shared_queries": shared} if shared else {}


def spent(budget: int | None) -> str:
    """Why a verdict is missing."""
    return f"The budget of {budget} inputs is too small to settle its input and ask probes too."


def clean_images(fingerprint: Fingerprint, data: Path | None) -> CleanImages | None:
    """Clean images, labelled or not: `--data`, else those kept in the record. Raises DataError: see `load_images`."""
    return _given(fingerprint, data) if data is not None else _kept(fingerprint)


def _given(fingerprint: Fingerprint, data: Path) -> CleanImages:
    return load_images(data, fingerprint.manifest.probes.shape, fingerprint.manifest.outputs, CLEAN_USED)


def _kept(fingerprint: Fingerprint) -> CleanImages | None:
    """With true labels, or the owner's answers where none are known."""
    payload = fingerprint.payload
    if not len(payload.clean_images):
        return None
    known = payload.clean_labels.min() >= 0
    labels = payload.clean_labels if known else payload.clean_responses.argmax(axis=1).astype(np.int64)
    return CleanImages(payload.clean_images, labels)


class Settling:
    """Settles how one open suspect is fed, for one fingerprint after another.

    No clean image is sent twice under the same spec, whoever wants to know; and what was settled holds for all
    fingerprints whose candidates, clean images and classes are the same. Each is told what it would be told alone.

    Args:
        asker: of the suspect.
        data: `--data`.
        budget: `--budget`, as messages name it.
    """

    def __init__(self, asker: Asker, data: Path | None, budget: int | None) -> None:
        self._asker, self._data, self._budget = asker, data, budget
        self._answers = CleanAnswers(asker.predict, lambda: asker.meter.sent)
        self._settled: dict[Key, Fed] = {}
        self._candidates: dict[InputSpec, tuple[InputSpec, ...]] = {}
        self._loaded: dict[tuple[tuple[int, int, int], int], CleanImages] = {}

    def feed(self, fingerprint: Fingerprint, share: int | None) -> Fed:
        """Settle it.

        Args:
            fingerprint: whose probes will be asked.
            share: different inputs that it may have sent, half of them for this; None = no bound.

        Raises:
            SpecError: the file takes no image batch.
            DataError: `--data` can't be used.
            WorkerError, HostError, BudgetSpent: the suspect was asked, and failed.
        """
        clean = self._clean(fingerprint)
        if clean is None:
            unlabelled = " (those of --data have no labels)" if self._data is not None else ""
            return Fed(
                reason=f"There is neither an input spec nor a clean image{unlabelled} to settle how it wants its input."
            )
        classes, options = fingerprint.manifest.outputs, self._options(fingerprint)
        if share is not None:
            clean = clean.take(self._asker.fit(share // 2 // len(options)))
            if len(clean) < CLEAN_FEWEST:
                return Fed(reason=spent(self._budget))
        key = options, clean.images_sha256, b"" if clean.labels is None else clean.labels.tobytes(), classes
        known = self._settled.get(key)
        if known is not None and known.hearing is not None:
            known.hearing.again()
            return known
        self._settled[key] = found = self._settle(options, clean, classes)
        return found

    def _settle(self, options: tuple[InputSpec, ...], clean: CleanImages, classes: int) -> Fed:
        hearing = Hearing(self._answers)
        settled = settle(hearing, list(options), clean, classes)
        reason = ""
        if not settled.settings:
            best = f"{settled.accuracy:.0%}"
            reason = f"No input setting makes it answer clean images better than chance (best {best})."
        return Fed(settled.settings, reason, settled=settled, hearing=hearing)

    def _options(self, fingerprint: Fingerprint) -> tuple[InputSpec, ...]:
        like = fed(fingerprint.manifest.input_spec.to_input_spec())
        if like not in self._candidates:
            self._candidates[like] = tuple(candidates(self._asker.signature, like))
        return self._candidates[like]

    def _clean(self, fingerprint: Fingerprint) -> CleanImages | None:
        """Labelled ones: `--data`, read once for all that want it alike, else those of the record."""
        key = fingerprint.manifest.probes.shape, fingerprint.manifest.outputs
        if self._data is not None and key not in self._loaded:
            self._loaded[key] = _given(fingerprint, self._data)
        given = self._loaded.get(key)
        return given if given is not None and given.labels is not None else _kept(fingerprint)
