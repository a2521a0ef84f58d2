"""What one opened model answers to probes: the shared core of calibration, verify and audit."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fingerprint.decision.statistics import correlation, is_soft, measure
from fingerprint.engine.labels import LabelMap
from fingerprint.errors import DegenerateModel
from fingerprint.frozen import dataclass
from fingerprint.model import Floats, labels_of
from fingerprint.record import Family, FamilyMatch, Fingerprint, Payload


@dataclass(frozen=True)
class Draw:
    """Which probes are asked, by index into the payload (the verifier draws them)."""

    index: NDArray[np.int64]


def draw(
    fingerprint: Fingerprint, budget: int | None, avoid: Collection[int] = (), burnt: Collection[int] = ()
) -> Draw:
    """All probes, or `budget` of them: families keep their proportions, order and choice are random (and secret).

    Probes in `burnt`, which were revealed to others, are never drawn.

    Probes in `avoid` come last in every family. The draw stays uniform where those were drawn without regard to this
    suspect's answers, as those that were sent to other suspects were.
    """
    count = fingerprint.manifest.probes.count
    usable = ~np.isin(np.arange(count), np.fromiter(burnt, np.int64))
    left = np.bincount(fingerprint.payload.family[usable], minlength=len(fingerprint.manifest.families)).tolist()
    if budget is None or budget >= sum(left):
        return Draw(np.nonzero(usable)[0])
    rng = np.random.default_rng(secrets.randbits(128))  # made only here: importing numpy.random takes its time
    shares = _shares(left, budget)
    late = np.isin(np.arange(count), np.fromiter(avoid, np.int64))
    parts = []
    for i, share in enumerate(shares):
        shuffled = rng.permutation(np.nonzero(usable & (fingerprint.payload.family == i))[0])
        parts.append(shuffled[np.argsort(late[shuffled], kind="stable")][:share])
    return Draw(rng.permutation(np.concatenate(parts)))


def _shares(counts: Sequence[int], budget: int) -> list[int]:
    """Largest-remainder split of `budget` in proportion to `counts`."""
    exact = [budget * c / sum(counts) for c in counts]
    shares = [int(e) for e in exact]
    for i in sorted(range(len(counts)), key=lambda i: shares[i] - exact[i])[: budget - sum(shares)]:
        shares[i] += 1
    return shares


def given(drawn: Draw, outputs: Floats, class_offset: int) -> dict[str, list[int]]:
    """`Result.answers`: probe numbers, and the common labels that the outputs (n, K') give to them."""
    return {"probes": drawn.index.tolist(), "labels": labels_of(outputs, class_offset).tolist()}


def compare(
    families: Sequence[Family],
    payload: Payload,
    drawn: Draw,
    outputs: Floats,
    class_offset: int,
    *,
    label_only: bool = False,
) -> dict[str, FamilyMatch]:
    """Per-family agreement of the outputs (n, K') on the drawn probes with the owner's."""
    if outputs.ndim != 2 or outputs.shape[1] < 1:
        raise DegenerateModel(f"the model answers shape {outputs.shape[1:]} per input; a vector of classes is needed")
    found: dict[str, FamilyMatch] = {}
    for i, family in enumerate(families):
        rows = np.nonzero(payload.family[drawn.index] == i)[0]
        if len(rows):
            probes = drawn.index[rows]
            found[family.name] = measure(
                payload.targets[probes], payload.responses[probes], outputs[rows], class_offset, label_only=label_only
            )
    return found


def compare_mapped(
    families: Sequence[Family],
    fingerprint: Fingerprint,
    drawn: Draw,
    outputs: Floats,
    labels: LabelMap,
    *,
    label_only: bool = False,
) -> dict[str, FamilyMatch]:
    """The same for a suspect whose labels mean something else. Probes whose class it does not have are left out."""
    payload, numbers = fingerprint.payload, {f.name: i for i, f in enumerate(fingerprint.manifest.families)}
    expected, given = labels.of_targets(payload.targets[drawn.index]), labels_of(outputs)
    found: dict[str, FamilyMatch] = {}
    for family in families:
        rows = np.nonzero((payload.family[drawn.index] == numbers[family.name]) & (expected >= 0))[0]
        if not len(rows):
            continue
        soft = None
        if labels.complete and not label_only and is_soft(outputs):
            soft = correlation(payload.responses[drawn.index[rows]], labels.aligned(outputs[rows]))
        matches = int((given[rows] == expected[rows]).sum())
        found[family.name] = FamilyMatch(matches=matches, queries=len(rows), correlation=soft)
    return found


def flags(
    fingerprint: Fingerprint, drawn: Draw, outputs: Floats, class_offset: int, labels: LabelMap | None
) -> list[tuple[int, bool]]:
    """(family index, whether the label is the owner's) of each drawn probe whose class the suspect has, in order."""
    payload = fingerprint.payload
    targets = payload.targets[drawn.index]
    if labels is None:
        expected, answered = targets, labels_of(outputs, class_offset)
    else:
        expected, answered = labels.of_targets(targets), labels_of(outputs)
    matches = answered == expected
    rows = np.arange(len(targets)) if labels is None else np.nonzero(expected >= 0)[0]
    return [(int(payload.family[drawn.index[i]]), bool(matches[i])) for i in rows]


def total(measured: Mapping[str, FamilyMatch]) -> float:
    """Match rate over all families."""
    return sum(m.matches for m in measured.values()) / max(1, sum(m.queries for m in measured.values()))
