"""Statistics of relations between probes: they compare a suspect with the owner without comparing their labels.

- `sample_correlation`: SAC (Guan et al., NeurIPS 2022), with soft outputs or labels alone.
- `decision_distance`: ModelDiff (Li et al., ISSTA 2021), over any pairs of probes.
- `composite_share`, `composite_thresholds`: composites that match as wholes, after IrisFP (CVPR 2026).
- `repeated_transitions`: label changes along trajectories, after ADV-TRA (NeurIPS 2024).

The first two need no common label space: the suspect's outputs may be permuted, renamed or of another length. All are
higher for a more related suspect and bounded by 1; what value stands out is for references to say.
"""

from __future__ import annotations

from functools import cache
from math import comb

import numpy as np
from numpy.typing import NDArray

from fingerprint.decision.statistics import centred_log_outputs
from fingerprint.model import Floats, Labels

Matches = NDArray[np.bool_]
INHERITED = np.linspace(0.25, 1.0, 16)  # probabilities of the owner's label, beyond chance, that a derivative may have
EQUAL = 1e-9  # differences of shares below this are rounding


def sample_correlation(owner: Floats, suspect: Floats) -> float | None:
    """1 - mean absolute difference of the pairwise correlation matrices of outputs (SAC).

    Args:
        owner: (N, K) outputs on N probes.
        suspect: (N, K') outputs on the same probes; K' may differ from K.

    Returns:
        In [-1, 1], 1 for equal relations; None for fewer than two probes.
    """
    _same_length(len(owner), len(suspect))
    return _closeness(_correlations(owner), _correlations(suspect)) if len(owner) > 1 else None


def sample_correlation_of_labels(owner: Labels, suspect: Labels) -> float | None:
    """The label-only form of SAC: two probes correlate if a model gives them one label.

    Args:
        owner, suspect: (N,) labels, each in a label space of its own.

    Returns:
        In [0, 1], 1 for equal partitions of the probes; None for fewer than two probes.
    """
    _same_length(len(owner), len(suspect))
    if len(owner) < 2:
        return None
    same = [(labels[:, None] == labels[None]).astype(np.float64) for labels in (owner, suspect)]
    return _closeness(same[0], same[1])


def decision_distance(owner: Floats, suspect: Floats, pairs: NDArray[np.int64]) -> float | None:
    """Cosine of the two models' decision-distance vectors (ModelDiff).

    The entry of a pair is the cosine distance between a model's outputs on its two probes.

    Args:
        owner: (N, K) outputs.
        suspect: (N, K') outputs on the same probes.
        pairs: (P, 2) indices into the probes: a seed and its adversarial example, or any other (`all_pairs`).

    Returns:
        In [0, 1]; None where a vector is zero (a model that answers all probes alike) or there is no pair.
    """
    _same_length(len(owner), len(suspect))
    vectors = [_distances(outputs, pairs) for outputs in (owner, suspect)]
    norm = float(np.linalg.norm(vectors[0]) * np.linalg.norm(vectors[1]))
    return float(np.clip(vectors[0] @ vectors[1] / norm, 0.0, 1.0)) if norm > 0 else None


def all_pairs(groups: Labels | None, count: int) -> NDArray[np.int64]:
    """(P, 2) pairs of probes: neighbours within each group, or of all `count` probes where there are no groups."""
    if groups is None:
        groups = np.zeros(count, np.int64)
    _same_length(len(groups), count)
    return _neighbours(groups)


def composite_share(matches: Matches, groups: Labels, thresholds: dict[int, int]) -> float | None:
    """Share of composites of which at least their threshold of members match.

    Args:
        matches: (N,) whether the suspect gives each probe its target label.
        groups: (N,) composite of each probe; -1 = none.
        thresholds: per composite, matches needed. Composites without one, or with fewer members asked than that
            (a draw of part of the probes), are left out.

    Returns:
        In [0, 1]; None where no composite can be judged.
    """
    judged = []
    for number, needed in thresholds.items():
        members = matches[groups == number]
        if len(members) >= max(1, needed):
            judged.append(bool(members.sum() >= needed))
    return float(np.mean(judged)) if judged else None


def composite_thresholds(
    derived: Matches | None, unrelated: Matches, groups: Labels, *, weights: NDArray[np.float64] | None = None
) -> dict[int, int]:
    """Per composite, the number of matches that tells derivatives from unrelated models best.

    The largest difference between the share of derivatives and that of unrelated models that reach it; of equals the
    highest number. A composite that tells nothing is left out. Models used here may not calibrate the same verdict.

    Args:
        derived: (D, N) matches of models known to be derived, such as compressed copies. None where there are none:
            then a derivative is taken to be an unrelated model that inherits. With a probability that is one of
            `INHERITED`, all alike, it matches where that one does not, at each probe.
        unrelated: (U, N) matches of models known to be unrelated.
        groups: (N,) composite of each probe; -1 = none.
        weights: (U,) what each unrelated model counts; None: all alike.
    """
    thresholds = {}
    for number in sorted(set(groups[groups >= 0].tolist())):
        rows = groups == number
        size, others = int(rows.sum()), unrelated[:, rows].sum(axis=1)
        if derived is None:
            ours = np.average(_inheriting(size)[others], axis=0, weights=weights)
        else:
            ours = _reached(derived[:, rows].sum(axis=1), size).mean(axis=0)
        gain = ours - np.average(_reached(others, size), axis=0, weights=weights)
        if gain.max() > EQUAL:
            thresholds[number] = 1 + int(np.nonzero(gain >= gain.max() - EQUAL)[0][-1])
    return thresholds


def _reached(counts: NDArray[np.int64], size: int) -> NDArray[np.bool_]:
    """Whether counts (M,) reach 1, 2 .. size: (M, size)."""
    return np.asarray(counts[:, None] >= np.arange(1, size + 1))


@cache
def _inheriting(size: int) -> NDArray[np.float64]:
    """How probably who inherits reaches 1 .. size matches, by how many there are without: (size + 1, size)."""
    found = np.zeros((size + 1, size))
    for without in range(size + 1):
        left = size - without
        more = np.arange(left + 1)
        ways = np.array([comb(left, m) for m in range(left + 1)], np.float64)
        chance = (ways * INHERITED[:, None] ** more * (1.0 - INHERITED[:, None]) ** (left - more)).mean(axis=0)
        found[without] = chance @ _reached(without + more, size)
    return found


def repeated_transitions(owner: Labels, suspect: Labels, groups: Labels) -> float | None:
    """Share of the steps between neighbours on a trajectory that the suspect labels as the owner does, both ends.

    Args:
        owner, suspect: (N,) labels in one label space, in walking order within each group.
        groups: (N,) trajectory of each probe; -1 = none.

    Returns:
        In [0, 1]; None where no group has two members. Adversarial training can push this below unrelated models.
    """
    _same_length(len(owner), len(suspect))
    steps = _neighbours(groups)
    if not len(steps):
        return None
    return float((owner[steps] == suspect[steps]).all(axis=1).mean())


def _neighbours(groups: Labels) -> NDArray[np.int64]:
    found = []
    for number in sorted(set(groups[groups >= 0].tolist())):
        members = np.nonzero(groups == number)[0]
        found += list(zip(members[:-1].tolist(), members[1:].tolist(), strict=True))
    return np.array(found, np.int64).reshape(len(found), 2)


def _correlations(outputs: Floats) -> NDArray[np.float64]:
    """(N, N) Pearson correlations of rows of centred log outputs; zero for a row without spread."""
    unit = _unit(outputs)
    return np.asarray(unit @ unit.T)


def _distances(outputs: Floats, pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    """(P,) cosine distances between the outputs of each pair, in [0, 2]."""
    unit = _unit(outputs)
    first, second = unit[pairs[:, 0]], unit[pairs[:, 1]]
    distance = 1.0 - (first * second).sum(axis=1)
    return np.asarray(np.where(np.abs(first - second).max(axis=1, initial=0.0) < 1e-9, 0.0, np.maximum(distance, 0.0)))


def _unit(outputs: Floats) -> NDArray[np.float64]:
    logs = centred_log_outputs(outputs)
    size = np.linalg.norm(logs, axis=1, keepdims=True)
    return np.asarray(np.divide(logs, size, out=np.zeros_like(logs), where=size > 1e-12))


def _closeness(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """1 - mean absolute difference off the diagonal."""
    count = len(first)
    differences = np.abs(first - second)[~np.eye(count, dtype=bool)]
    return float(max(-1.0, 1.0 - differences.mean()))  # not below by rounding


def _same_length(first: int, second: int) -> None:
    if first != second:
        raise ValueError(f"{first} and {second} answers can't be compared")
