"""The contrastive alarm on a derived suspect: two views of the record's clean images are asked as well."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from fingerprint.api.asking import Asker
from fingerprint.decision.allow import is_compression, within
from fingerprint.decision.contrast import FEWEST_IMAGES, alarmed, nt_xent, views
from fingerprint.decision.statistics import align, is_soft
from fingerprint.decision.verdict import Verdict
from fingerprint.model import Images
from fingerprint.probes.seeds import derive, numpy_seed
from fingerprint.record import Fingerprint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fingerprint.engine.settle import Setting


def views_of(fingerprint: Fingerprint) -> Images | None:
    """(2 M, H, W, C) views of the clean images that the record keeps, the same each time; None where there are few."""
    images = fingerprint.payload.clean_images
    if len(images) < FEWEST_IMAGES:
        return None
    seed = derive(fingerprint.payload.secret.tobytes(), "contrast", fingerprint.manifest.owner.sha256)
    return views(images, numpy_seed(seed, "views"))


def watched(
    verdict: Verdict, fingerprint: Fingerprint, asker: Asker, setting: Setting, allowed: Sequence[str]
) -> Verdict:
    """The verdict with what the alarm says, where integrity was judged on soft outputs and the record knows losses."""
    evidence, recorded = verdict.integrity_evidence, fingerprint.payload.trial_contrast
    if evidence is None or evidence.statistic != "soft margins" or recorded is None:
        return verdict
    images = views_of(fingerprint)
    if images is None or (asker.left is not None and asker.left < len(images)):
        return verdict
    outputs = asker.predict(images, setting.spec)
    classes = fingerprint.manifest.outputs
    aligned = setting.labels.aligned(outputs) if setting.labels else align(outputs, setting.spec.class_offset, classes)
    if asker.manner.label_only or aligned.shape[1] != classes or not is_soft(aligned):
        return verdict
    hows = ["", *(trial.transform for trial in fingerprint.manifest.trials)]
    declared = np.array([is_compression(how) and within(how, allowed) for how in hows], np.bool_)
    found = alarmed(nt_xent(aligned), recorded, declared, asker.repeat * len(images))
    return replace(verdict, contrast=found, explanation="")
