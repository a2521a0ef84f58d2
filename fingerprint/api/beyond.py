"""What a record asks beyond its own probes: control sets of other owners, and what public ancestors already explain.

Looked at after the lineage test, on the same suspect. Both can only take `derived` away, except that control sets alone
calibrate a record without references.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fingerprint.api.answers import Draw
from fingerprint.api.asking import Asker
from fingerprint.api.reduced import answered
from fingerprint.api.workings import Asked, Workings, control_workings
from fingerprint.decision.controls import unasked, with_controls
from fingerprint.decision.kinship import KinshipData, kinship, kinship_counts, with_kinship
from fingerprint.decision.verdict import Verdict
from fingerprint.engine.labels import LabelMap
from fingerprint.engine.settle import Setting
from fingerprint.model import Floats, Labels, labels_of
from fingerprint.record import Fingerprint, Manifest, lineage_part

if TYPE_CHECKING:
    from fingerprint.decision.verdict import CalibrationKind

MarkControl = Callable[[str, NDArray[np.int64]], None]  # digest of a control set, its probes that are about to be sent


def look_beyond(
    asked: Asked,
    verdict: Verdict,
    setting: Setting,
    asker: Asker,
    alpha: float,
    mark: MarkControl | None,
    told: Workings,
) -> Verdict:
    """The verdict with control sets and ancestors taken into account.

    Args:
        asked: the record, the probes that were asked and the answers to them.
        verdict: of the lineage test.
        setting: how the suspect is fed.
        asker: asks the suspect more.
        alpha: bound on the error of `derived`.
        mark: told before control probes are sent; None where no more can be asked (recorded answers).
        told: gets what the verdict now rests on, too.
    """
    fingerprint, drawn, outputs, labels = asked.fingerprint, asked.drawn, asked.outputs, asked.labels
    manifest = fingerprint.manifest
    if not (manifest.controls or manifest.ancestors) or not len(outputs):
        return verdict
    if manifest.ancestors and fingerprint.payload.ancestor_labels is not None:
        data = _kinship_data(fingerprint, drawn, outputs, labels, setting.spec.class_offset, verdict)
        verdict, told["kinship"] = with_kinship(verdict, kinship(data, alpha), data.names, alpha), kinship_counts(data)
    if manifest.controls and (verdict.lineage == "derived" or verdict.calibration is None):
        verdict = _controlled(asked, verdict, setting, asker, alpha, mark, told)
    return verdict


def _lineage_rows(fingerprint: Fingerprint, index: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each of the probes belongs to a family that serves lineage, (n,)."""
    names = {f.name for f in lineage_part(fingerprint.manifest).families}
    serving = np.array([f.name in names for f in fingerprint.manifest.families])
    return np.asarray(serving[fingerprint.payload.family[index]])


def _expected(labels: LabelMap | None, common: Labels) -> Labels:
    """Common labels as the suspect calls them; -1 where it has no such class, or they are -1 themselves."""
    if labels is None:
        return common
    return np.where(common >= 0, labels.of_targets(np.maximum(common, 0)), -1)


def _kinship_data(
    fingerprint: Fingerprint, drawn: Draw, outputs: Floats, labels: LabelMap | None, offset: int, verdict: Verdict
) -> KinshipData:
    manifest, payload = fingerprint.manifest, fingerprint.payload
    targets = _expected(labels, payload.targets[drawn.index])
    rows = _lineage_rows(fingerprint, drawn.index) & (targets >= 0)
    index = drawn.index[rows]
    given = labels_of(outputs, offset) if labels is None else labels_of(outputs)
    references = None
    if payload.reference_orders is not None:
        orders = payload.reference_orders[:, index]
        first = [o[:, 0].astype(np.int64) if labels is None else answered(o, labels) for o in orders]
        references = np.stack(first) if first else None
    kind: CalibrationKind | None = verdict.calibration.kind if verdict.calibration else None
    return KinshipData(
        targets=targets[rows],
        answers=given[rows],
        names=tuple(a.name for a in manifest.ancestors),
        ancestors=_shown(payload.ancestor_labels, index, labels),
        kin=_shown(payload.kin_labels, index, labels),
        references=references,
        authors=tuple(r.author for r in manifest.references),
        declared=manifest.declared_bound if kind == "declared" else None,
    )


def _shown(values: NDArray[np.int64] | None, index: NDArray[np.int64], labels: LabelMap | None) -> NDArray[np.int64]:
    """Rows of common labels at some probes, as the suspect calls them."""
    if values is None or not len(values):
        return np.zeros((0, len(index)), np.int64)
    return np.stack([_expected(labels, row[index]) for row in values])


def _controlled(
    asked: Asked,
    verdict: Verdict,
    setting: Setting,
    asker: Asker,
    alpha: float,
    mark: MarkControl | None,
    told: Workings,
) -> Verdict:
    fingerprint, drawn, labels = asked.fingerprint, asked.drawn, asked.labels
    payload, manifest = fingerprint.payload, fingerprint.manifest
    probes, targets = payload.control_probes, payload.control_targets
    assert probes is not None and targets is not None  # noqa: S101  (Fingerprint.check)
    wanted = _lineage_rows(fingerprint, drawn.index)
    needed = int(wanted.sum()) * len(probes)
    if mark is None:
        return unasked(verdict, "Its answers were recorded, so the control sets of the record can't be asked.")
    if asker.left is not None and asker.left < needed:
        return unasked(verdict, f"The budget does not reach for the control sets, which take {needed} inputs.")
    draws = [_same_share(fingerprint, drawn.index[wanted]) for _ in probes]
    for control, chosen in zip(manifest.controls, draws, strict=True):
        mark(control.probes_sha256, chosen)
    images = np.concatenate([probes[d][chosen] for d, chosen in enumerate(draws)])
    answers = np.split(asker.predict(images, setting.spec), len(draws))
    offset = setting.spec.class_offset
    true = _counts(fingerprint, drawn.index[wanted], payload.targets, asked.outputs[wanted], labels, offset)
    rates, kept = list[float](), list[Workings]()
    for d, (chosen, part) in enumerate(zip(draws, answers, strict=True)):
        matched = _counts(fingerprint, chosen, targets[d], part, labels, offset)
        rates.append(_rate(manifest, matched))
        kept.append(control_workings(chosen, labels_of(part, offset).tolist(), matched))
    told["controls"] = kept
    return with_controls(verdict, _rate(manifest, true), rates, alpha)


def _same_share(fingerprint: Fingerprint, index: NDArray[np.int64]) -> NDArray[np.int64]:
    """As many probes of each family as in `index`, drawn at random: a control set is asked as the true one was."""
    family = fingerprint.payload.family
    rng = np.random.default_rng(secrets.randbits(128))
    counts = np.bincount(family[index], minlength=len(fingerprint.manifest.families))
    parts = [rng.permutation(np.nonzero(family == i)[0])[:count] for i, count in enumerate(counts)]
    return np.concatenate(parts)


def _counts(
    fingerprint: Fingerprint,
    index: NDArray[np.int64],
    targets: Labels,
    outputs: Floats,
    labels: LabelMap | None,
    offset: int,
) -> dict[str, tuple[int, int]]:
    """By family, how many probes match and how many count: those of classes that the suspect has."""
    given = labels_of(outputs, offset) if labels is None else labels_of(outputs)
    expected, family = _expected(labels, targets[index]), fingerprint.payload.family[index]
    counts = {}
    for i, each in enumerate(fingerprint.manifest.families):
        rows = (family == i) & (expected >= 0)
        if rows.any():
            counts[each.name] = int((given[rows] == expected[rows]).sum()), int(rows.sum())
    return counts


def _rate(manifest: Manifest, counts: Mapping[str, tuple[int, int]]) -> float:
    """Match rate over families, each by its weight."""
    weights = {f.name: f.weight for f in manifest.families if f.name in counts}
    total = sum(weight * counts[name][0] / counts[name][1] for name, weight in weights.items())
    weight = sum(weights.values())
    return total / weight if weight else 0.0
