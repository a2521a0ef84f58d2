"""What a verdict was computed from besides counts: `Result.workings`, kept with the stored run and signed with it.

Somebody who has a signed record and a signed result can so compute the verdict again without this tool: the order in
which probes were asked and which of them matched, the suspect's label space, the answers to control sets, and log
margins to integrity probes; and the suspect's timestamp (`Result.with_direction`). Only what a verdict needs is kept;
most need none of it. Of probes it holds numbers and whether they matched, never pixels; docs/evidence.md lists the
fields.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from fingerprint.api.answers import Draw, flags, given
from fingerprint.canonical import canonical
from fingerprint.decision.betting import HOPEFUL, NEARNESS
from fingerprint.decision.integrity import Trials, log_margins
from fingerprint.decision.statistics import align
from fingerprint.decision.verdict import Verdict
from fingerprint.engine.labels import LabelMap
from fingerprint.frozen import dataclass
from fingerprint.model import Floats
from fingerprint.record import Fingerprint, Manifest

if TYPE_CHECKING:
    from numpy.typing import NDArray

Workings: TypeAlias = dict[str, object]
DEVIATION = "local"  # how `decision.integrity` scores; it changes with that, and the checker has to know it


@dataclass(frozen=True)
class Asked:
    """What one fingerprint's probes were answered under one setting.

    drawn: the probes, in the order asked; outputs (n, K'); class_offset: of the setting; labels: where the suspect's
    labels mean something else. alpha: the level of the test, of which the run's was divided by `tests` and by the
    settings tried. base: the manifest that calibrated, which for a reduced label space is not the record's. planned,
    splits: of a test step by step, how many probes of each family could be asked, and the share of a level that each
    kept for the error between models. allowed: matches that each rung of a family's ladder allows.
    """

    fingerprint: Fingerprint
    drawn: Draw
    outputs: Floats
    class_offset: int
    labels: LabelMap | None
    alpha: float
    tests: int = 1
    base: Manifest | None = None
    planned: Mapping[str, int] | None = None
    splits: Mapping[str, float] = field(default_factory=dict)
    allowed: Mapping[str, Sequence[int]] = field(default_factory=dict)

    @property
    def answers(self) -> dict[str, list[int]]:
        """See `Result.answers`."""
        return given(self.drawn, self.outputs, self.class_offset)


def workings(asked: Asked, verdict: Verdict, beyond: Workings) -> Workings | None:
    """What `verdict` was computed from, or None where the row and the signed record say it all.

    Args:
        asked: what was asked and answered.
        verdict: what was concluded.
        beyond: what control sets (`control_workings` of each) and ancestors (`decision.kinship.kinship_counts`) add.
    """
    found: Workings = {}
    if asked.planned is not None:
        allowed = {name: list(most) for name, most in asked.allowed.items()}
        steps = {"planned": dict(asked.planned), "splits": dict(asked.splits), "allowed": allowed}
        found["steps"] = {**steps, "bettor": asdict(HOPEFUL), "nearness": NEARNESS}
    if asked.labels is not None:
        found["labels"] = _label_space(asked, asked.labels)
    if found and len(asked.outputs):
        found["probes"] = _probes(asked)
    found |= beyond
    if verdict.integrity_evidence is not None:
        found["integrity"] = _integrity(asked, soft=verdict.integrity_evidence.statistic == "soft margins")
    return {"alpha": asked.alpha, "tests": asked.tests, **found} if found else None


def control_workings(
    drawn: NDArray[np.int64], labels: Sequence[int], counts: Mapping[str, tuple[int, int]]
) -> Workings:
    """What was answered to one control set: its probes' numbers, the labels, and (matches, counted) by family."""
    families = {name: list(pair) for name, pair in counts.items()}
    return {"probes": drawn.tolist(), "labels": list(labels), "families": families}


def _probes(asked: Asked) -> Workings:
    """Of each probe in `answers`: its family's number, and 1, 0 or -1: a match, none, or a class it does not have."""
    fingerprint, index = asked.fingerprint, asked.drawn.index
    family, targets = fingerprint.payload.family[index], fingerprint.payload.targets[index]
    known = np.ones(len(index), np.bool_) if asked.labels is None else asked.labels.of_targets(targets) >= 0
    matches = np.full(len(index), -1, np.int64)
    matches[known] = [
        match for _, match in flags(fingerprint, asked.drawn, asked.outputs, asked.class_offset, asked.labels)
    ]
    return {"family": family.tolist(), "matches": matches.tolist()}


def _label_space(asked: Asked, labels: LabelMap) -> Workings:
    """The suspect's index of each common class; and, where some lack, the references' matches among what is left."""
    found: Workings = {"to_suspect": list(labels.to_suspect), "width": labels.width}
    if labels.complete or asked.base is None:
        return found
    return found | {
        "counts": {family.name: family.count for family in asked.base.families},
        "references": {
            family.name: [reference.families[family.name].matches for reference in asked.base.references]
            for family in asked.base.families
        },
    }


def _integrity(asked: Asked, *, soft: bool) -> Workings:
    """The digest of what copies answered (`decision.integrity.copies_document`), and the suspect's log margins."""
    payload, classes = asked.fingerprint.payload, asked.fingerprint.manifest.outputs
    rows = integrity_rows(asked.fingerprint, asked.drawn.index)
    probes = asked.drawn.index[rows]
    document = copies_document(Trials.of(asked.fingerprint, probes), probes)
    found: Workings = {"deviation": DEVIATION, "copies_sha256": hashlib.sha256(document).hexdigest()}
    if soft:
        outputs = asked.outputs[rows]
        aligned = align(outputs, asked.class_offset, classes) if asked.labels is None else asked.labels.aligned(outputs)
        found["margins"] = log_margins(aligned, payload.targets[probes]).tolist()
    return found


def integrity_rows(fingerprint: Fingerprint, index: NDArray[np.int64]) -> NDArray[np.int64]:
    """Which rows of `index` are integrity probes, in rising order of the probes' numbers."""
    serving = np.array([family.role == "integrity" for family in fingerprint.manifest.families], np.bool_)
    rows = np.nonzero(serving[fingerprint.payload.family[index]])[0]
    return np.asarray(rows[np.argsort(index[rows], kind="stable")], np.int64)


def copies_document(trials: Trials, probes: NDArray[np.int64]) -> bytes:
    """What the owner (the first row) and its copies answered to some probes (n,), for an evidence pack.

    Canonical JSON: probes [n]; labels, T rows of n; margins, T rows of n float32, little-endian, in base64.
    """
    margins = np.ascontiguousarray(trials.margins, "<f4")
    return canonical(
        {
            "probes": probes.tolist(),
            "labels": trials.labels.tolist(),
            "margins": base64.b64encode(margins.tobytes()).decode(),
        }
    )
