"""The integrity axis of a verdict, and how a derived suspect was probably made: from the same answers as lineage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fingerprint.api.answers import Draw
from fingerprint.decision.attribution_soft import attributor
from fingerprint.decision.integrity import IntegrityTest, Trials, log_margins
from fingerprint.decision.statistics import align, is_soft
from fingerprint.decision.verdict import Verdict
from fingerprint.engine.labels import LabelMap
from fingerprint.model import Floats, labels_of
from fingerprint.record import Fingerprint

FINE = 0.5  # distinct margins per probe below which outputs are too coarse to be used as soft


def judged(
    verdict: Verdict,
    fingerprint: Fingerprint,
    drawn: Draw,
    outputs: Floats,
    class_offset: int,
    labels: LabelMap | None,
    *,
    allowed: Sequence[str],
    alpha: float,
    label_only: bool,
) -> Verdict:
    """A verdict `derived` with its integrity and attribution, from the outputs (n, K') to the drawn probes.

    The verdict stays as it is where the suspect is not derived, the record has no trials, classes are missing, or no
    integrity probe was asked.
    """
    if verdict.lineage != "derived" or not fingerprint.manifest.trials or not (labels is None or labels.complete):
        return verdict
    classes, families = fingerprint.manifest.outputs, fingerprint.manifest.families
    aligned = align(outputs, class_offset, classes) if labels is None else labels.aligned(outputs)
    given = labels_of(outputs, class_offset) if labels is None else labels_of(aligned)
    serving = np.array([family.role == "integrity" for family in families], np.bool_)
    mine = serving[fingerprint.payload.family[drawn.index]]
    if not mine.any():  # step by step, lineage may be clear before an integrity probe's turn comes
        return verdict
    trials = Trials.of(fingerprint, drawn.index)
    margins = None
    if not label_only and aligned.shape[1] == classes and is_soft(aligned):
        margins = log_margins(aligned, trials.targets)
        margins = margins if len(np.unique(margins)) >= FINE * len(margins) else None
    test = IntegrityTest(Trials.of(fingerprint, drawn.index[mine]), allowed, alpha)
    concluded, evidence = test.decide(given[mine], None if margins is None else margins[mine])
    made = None
    if mine.any() and not mine.all():
        made = attributor(trials, mine, soft=margins is not None).name(given, margins)
    return replace(verdict, integrity=concluded, integrity_evidence=evidence, attribution=made, explanation="")
