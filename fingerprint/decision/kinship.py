"""Kinship without theft: what a suspect shares with a public ancestor of the owner's model does not count against it.

Two models made from one public base match in part. Probes that the ancestor itself answers as the owner does are left
out. On the rest, the suspect must stand out among strangers and, where there are some, among innocent kin: nets made
from the same ancestor and not from the owner's model. The larger p decides, so that neither error level suffers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fingerprint.decision.distributions import binomial_tail
from fingerprint.decision.null import MINIMUM_FITTED, ConformalNull, MatchNull, Null
from fingerprint.decision.verdict import Kinship, Verdict
from fingerprint.frozen import dataclass
from fingerprint.model import Labels


@dataclass(frozen=True)
class KinshipData:
    """What is known on the n probes that were asked; labels are common ones, or the suspect's where it has others.

    targets, answers (n,): the owner's labels and the suspect's. ancestors (A, n) with their names; kin (J, n);
    references (R, n) or None where the record does not hold them, with their authors; declared: bound on the match rate
    of strangers, or None.
    """

    targets: Labels
    answers: Labels
    names: tuple[str, ...]
    ancestors: NDArray[np.int64]
    kin: NDArray[np.int64]
    references: NDArray[np.int64] | None
    authors: tuple[str | None, ...]
    declared: float | None = None

    @property
    def counted(self) -> NDArray[np.bool_]:
        """Probes (n,) that no ancestor answers as the owner does."""
        return np.asarray(~(self.ancestors == self.targets).any(axis=0))


def kinship(data: KinshipData, alpha: float) -> Kinship:
    """What the suspect shares with the ancestors, and how it stands out in the rest."""
    rows = data.counted
    count = int(rows.sum())
    matches = int((data.answers == data.targets)[rows].sum())
    among = [1.0] if not count else [_strangers(data, matches, rows), *_kin(data, matches, rows)]
    return Kinship(
        shares=tuple(name for i, name in enumerate(data.names) if _shares(data, i) <= alpha),
        counted=count,
        matches=matches,
        p_value=max(among),
        kin=len(data.kin),
    )


def kinship_counts(data: KinshipData) -> dict[str, object]:
    """The counts that `kinship` rests on, for somebody who computes it again.

    Of the probes that count: how many there are, matches, and those of each reference (None: they can't be compared)
    and of each kin. By ancestor: how many of its answers are known, and how many of these the suspect and each
    reference give.
    """
    rows, references = data.counted, data.references
    found: list[dict[str, object]] = []
    for ancestor in data.ancestors:
        known = ancestor >= 0
        among = [] if references is None else ((references == ancestor) & known).sum(axis=1).tolist()
        agreed = int(((data.answers == ancestor) & known).sum())
        found.append({"known": int(known.sum()), "agreed": agreed, "references": among})
    return {
        "counted": int(rows.sum()),
        "matches": int((data.answers == data.targets)[rows].sum()),
        "references": None if references is None else ((references == data.targets) & rows).sum(axis=1).tolist(),
        "kin": ((data.kin == data.targets) & rows).sum(axis=1).tolist(),
        "ancestors": found,
    }


def with_kinship(verdict: Verdict, found: Kinship, names: Sequence[str], alpha: float) -> Verdict:
    """The verdict where only what lies beyond the ancestors counts."""
    told = replace(verdict, kinship=found)
    base = ", ".join(found.shares or names)
    said = f"It shares the base {base}." if found.shares else ""
    if verdict.lineage != "derived":
        return replace(told, reason=f"{verdict.reason} {said}".strip())
    told = replace(
        told,
        p_value=found.p_value if verdict.p_value is None else max(verdict.p_value, found.p_value),
        total_p=found.p_value if verdict.total_p is None else max(verdict.total_p, found.p_value),
    )
    if found.p_value <= alpha:
        rest = f"{found.matches} of the {found.counted} probes that the base does not explain"
        more = f"Beyond it, it gives the owner's label on {rest} (p = {found.p_value:.2g})."
        return replace(told, reason=f"{verdict.reason} {said} {more}".strip() if said else verdict.reason)
    why = (
        f"It shares the base {base}: probes that the base answers in the same way do not count, and on the other "
        f"{found.counted} it gives the owner's label on {found.matches}, as "
        + (f"other models made from that base may (p = {found.p_value:.2g}, {found.kin} innocent kin)" if found.kin
           else f"unrelated models may (p = {found.p_value:.2g})")
        + ". Kinship is not theft."
    )  # fmt: skip
    return replace(told, lineage="inconclusive", reason=why)


def _strangers(data: KinshipData, matches: int, rows: NDArray[np.bool_]) -> float:
    """P-value of the matches beyond the ancestors among the references; 1 where they can't be compared."""
    if data.references is None or not len(data.references):
        return 1.0 if data.declared is None else binomial_tail(matches, int(rows.sum()), data.declared)
    counts = ((data.references == data.targets) & rows).sum(axis=1)
    return _null(counts.tolist(), int(rows.sum()), data.authors).tail(matches)


def _kin(data: KinshipData, matches: int, rows: NDArray[np.bool_]) -> list[float]:
    """The same among innocent kin, each taken as made by another author: nobody made two of them alike."""
    if not len(data.kin):
        return []
    counts = ((data.kin == data.targets) & rows).sum(axis=1)
    return [_null(counts.tolist(), int(rows.sum()), [None] * len(counts)).tail(matches)]


def _shares(data: KinshipData, index: int) -> float:
    """P-value of the agreement with an ancestor among strangers; 1 where nothing calibrates it."""
    known = data.ancestors[index] >= 0
    if data.references is None or not len(data.references) or not known.any():
        return 1.0
    counts = ((data.references == data.ancestors[index]) & known).sum(axis=1)
    agreed = int(((data.answers == data.ancestors[index]) & known).sum())
    return _null(counts.tolist(), int(known.sum()), data.authors).tail(agreed)


def _null(counts: Sequence[int], probes: int, authors: Sequence[str | None]) -> Null:
    if len(counts) >= MINIMUM_FITTED:
        return MatchNull(counts, probes, authors)
    return ConformalNull(tuple(float(c) for c in counts))
