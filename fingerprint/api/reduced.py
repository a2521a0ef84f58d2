"""Label spaces that lack some of the owner's classes, or merge them: the test among what is left.

A suspect that knows fewer classes matches by chance more often. So the references are read in the same way: from the
order in which each preferred the classes, they answer in the suspect's label space too, and calibrate there. What the
owner's compressed copies would match is not known there, so `unrelated` is never said.
"""

from __future__ import annotations

import numpy as np

from fingerprint.engine.labels import LabelMap
from fingerprint.model import Floats, InputSpec, Labels
from fingerprint.record import Family, FamilyMatch, Fingerprint, Manifest, Reference
from fingerprint.remote.interface import Manner

NO_ORDERS = (
    "Its label space lacks classes of the owner's, and the record can't calibrate for that: it was made without "
    "references, or by a release that did not keep how they answered."
)
MOST_ORDER_BYTES = 32 * 1024**2  # of the references' orders that a record keeps


def missing_classes(fingerprint: Fingerprint, outputs: Floats, spec: InputSpec, manner: Manner) -> LabelMap | None:
    """The map of a suspect whose outputs are fewer than the owner's classes, else None."""
    classes, width = fingerprint.manifest.outputs, outputs.shape[1]
    if manner.open_classes or width - spec.class_offset >= classes:
        return None
    return LabelMap.shifted(classes, width, spec.class_offset)


def order_of(outputs: Floats, classes: int) -> np.ndarray[tuple[int, int], np.dtype[np.uint16]]:
    """Common classes from most to least likely, (N, classes), of aligned outputs (N, <= classes); absent ones last."""
    padded = np.full((len(outputs), classes), -np.inf, np.float32)
    padded[:, : outputs.shape[1]] = outputs
    return np.argsort(-padded, axis=1, kind="stable").astype(np.uint16)


def answered(order: np.ndarray[tuple[int, int], np.dtype[np.uint16]], labels: LabelMap) -> Labels:
    """The suspect's index (N,) that a model of this `order` (N, K) would answer, choosing among its classes."""
    index = np.asarray(labels.to_suspect, np.int64)[order.astype(np.int64)]  # (N, K)
    first = (index >= 0).argmax(axis=1)
    return np.asarray(index[np.arange(len(index)), first], np.int64)


def reduced(fingerprint: Fingerprint, labels: LabelMap) -> Manifest | None:
    """The manifest as it is for suspects of this label space, or None where the record can't calibrate there.

    None too if no probe's target is left.
    """
    manifest, payload = fingerprint.manifest, fingerprint.payload
    orders = payload.reference_orders
    left = labels.of_targets(payload.targets) >= 0
    if orders is None or not left.any():
        return None
    rows = {f.name: left & (payload.family == i) for i, f in enumerate(manifest.families)}
    families = tuple(
        f.model_copy(update={"count": int(rows[f.name].sum())}) for f in manifest.families if rows[f.name].any()
    )
    weight = sum(f.weight for f in families)
    families = tuple(f.model_copy(update={"weight": f.weight / weight}) for f in families)
    references = tuple(
        _reference(reference, families, rows, answered(order, labels), labels.of_targets(payload.targets))
        for reference, order in zip(manifest.references, orders, strict=True)
    )
    # a declared bound speaks of the whole label space
    update = {"families": families, "references": references, "copies": (), "screens": (), "declared_bound": None}
    return manifest.model_copy(update=update)


def _reference(
    reference: Reference,
    families: tuple[Family, ...],
    rows: dict[str, np.ndarray[tuple[int], np.dtype[np.bool_]]],
    answers: Labels,
    targets: Labels,
) -> Reference:
    found = {
        f.name: FamilyMatch(matches=int((answers == targets)[rows[f.name]].sum()), queries=f.count) for f in families
    }
    return reference.model_copy(update={"families": found})
