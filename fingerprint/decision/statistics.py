"""What is measured on one suspect and one probe family: label matches, and agreement of soft outputs."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fingerprint.model import Floats, Labels, labels_of
from fingerprint.record import FamilyMatch


def align(outputs: Floats, class_offset: int, classes: int) -> Floats:
    """Outputs (N, K') of a model cut to the common classes (N, <= classes): drop the offset, keep `classes`."""
    return outputs[:, class_offset : class_offset + classes]


def is_soft(outputs: Floats) -> bool:
    """Whether the rows say more than a label: at least three distinct values in most rows, or two with K = 2."""
    if outputs.shape[1] < 2:
        return False
    needed = min(3, outputs.shape[1])
    distinct = [len(set(row.tolist())) >= needed for row in outputs[:64]]
    return bool(sum(distinct) * 2 > len(distinct))


def centred_log_outputs(outputs: Floats) -> NDArray[np.float64]:
    """(N, K) log outputs minus their row mean, so that logits and their softmax give the same values.

    Rows that sum to one and lie in [0, 1] are probabilities and are logged (floor 1e-4: a quantized zero is no
    certainty); anything else is taken as logits. Rows of logits are floored in the same way after a log-softmax.
    """
    values = outputs.astype(np.float64)
    probabilities = bool(values.min() >= -1e-6 and np.all(np.abs(values.sum(axis=1) - 1.0) < 0.05))
    if not probabilities:
        shifted = values - values.max(axis=1, keepdims=True)
        values = np.exp(shifted)
        values /= values.sum(axis=1, keepdims=True)
    logs = np.log(np.maximum(values, 1e-4))
    return np.asarray(logs - logs.mean(axis=1, keepdims=True))


def target_margins(outputs: Floats, targets: Labels) -> Floats:
    """Target output minus the largest other one (N,), of outputs (N, K): positive where the label is the target."""
    rows = np.arange(len(outputs))
    others = outputs.copy()
    others[rows, targets] = -np.inf
    return np.asarray(outputs[rows, targets] - others.max(axis=1))


def correlation(owner: Floats, suspect: Floats) -> float | None:
    """Pearson correlation of centred log outputs over all probes and classes, or None where undefined."""
    if owner.shape != suspect.shape:
        return None
    a, b = centred_log_outputs(owner).ravel(), centred_log_outputs(suspect).ravel()
    norm = math.sqrt(float(a @ a) * float(b @ b))
    return float(np.clip(a @ b / norm, -1.0, 1.0)) if norm > 0 else None


def fisher_z(r: float) -> float:
    """Variance-stabilised correlation, capped so that a perfect one stays finite."""
    return math.atanh(max(-0.999999, min(0.999999, r)))


def measure(
    targets: Labels, responses: Floats, outputs: Floats, class_offset: int, *, label_only: bool = False
) -> FamilyMatch:
    """Compare a suspect's outputs on one family's probes with the owner's.

    Args:
        targets: (N,) common labels that the owner gave.
        responses: (N, K) the owner's outputs, aligned to common classes.
        outputs: (N, K') the suspect's raw outputs.
        class_offset: the suspect's; its label minus this is the common label.
        label_only: ignore all but the top label.
    """
    matches = int((labels_of(outputs, class_offset) == targets).sum())
    soft = None
    if not label_only and is_soft(outputs):
        soft = correlation(responses, align(outputs, class_offset, responses.shape[1]))
    return FamilyMatch(matches=matches, queries=len(targets), correlation=soft)
