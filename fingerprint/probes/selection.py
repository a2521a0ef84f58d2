"""Selection: keep the candidates with the highest Uniqueness Score.

Uniqueness Score = robustness (mean match over compressed copies) - transferability (mean match over unrelated nets)
(Wang et al., IJCAI 2021). Copies used to select are not the ones whose match rate the record states, and nets used to
screen are never references that calibrate.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fingerprint.model import Labels

SELECTION_COPIES = (
    "prune:magnitude:0.4",
    "prune:magnitude:0.72",
    "quantize:int5",
    "quantize:int4:tensor",
)
RECORDED_COPIES = (
    "prune:magnitude:0.3",
    "prune:magnitude:0.5",
    "prune:magnitude:0.7",
    "quantize:int8",
    "quantize:int6",
    "quantize:int4",
)


def uniqueness(
    kept: NDArray[np.bool_], transferred: Sequence[NDArray[np.float64] | NDArray[np.bool_]]
) -> NDArray[np.float64]:
    """Uniqueness Score (N,) of each candidate.

    Args:
        kept: (copies, N) whether each compressed copy gives the candidate its target label.
        transferred: per screening net or model, (N,) whether it does, or how near it is to, from 0 to 1.
    """
    transfer = np.mean(transferred, axis=0) if len(transferred) else np.zeros(kept.shape[1])
    return np.asarray(kept.mean(axis=0) - transfer)


def select(
    scores: NDArray[np.float64], targets: Labels, classes: int, count: int, order: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Indices of the `count` best candidates, ascending; ties go to whoever comes first in `order` (a permutation).

    Targets stay balanced: heavily compressed copies, like strangers, favour a few classes on noise, so the best by
    score alone would pile up on those, and a model that always answers one class would match many.
    """
    ranked = order[np.argsort(-scores[order], kind="stable")]
    most = max(2, -(-count // classes))
    seen = np.zeros(classes, np.int64)
    first: list[int] = []
    rest: list[int] = []
    for index in ranked.tolist():
        seen[targets[index]] += 1
        (first if seen[targets[index]] <= most else rest).append(index)
    return np.sort(np.array([*first, *rest][:count], np.int64))


def select_groups(
    scores: NDArray[np.float64], groups: NDArray[np.int64], count: int, order: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Indices of the members of the best groups by mean score, at most `count`, ascending; groups stay whole.

    Ties go to the group whose first member comes first in `order` (a permutation). Where no group fits, the first
    `count` members of the best one.
    """
    members = {int(g): np.nonzero(groups == g)[0] for g in groups[order]}
    ranked = sorted(members.values(), key=lambda rows: -float(scores[rows].mean()))
    taken: list[int] = []
    for rows in ranked:
        if len(taken) + len(rows) <= count:
            taken += rows.tolist()
    return np.sort(np.array(taken or ranked[0][:count].tolist() if ranked else [], np.int64))
