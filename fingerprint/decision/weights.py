"""What two models' weights have in common, where both files are open: from their summaries (`runtimes.sketch`).

Said beside a verdict, as a statement of its own: weights accuse nobody (`api.weights` says what they take back).
`weight_pairs` says what the p-value is. It does not exclude two networks that began at one public base, or from one
seed of one script.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from fingerprint.decision.weight_pairs import GRID, LEVEL, ZEROS, Pair, matrices, merge, pairs_of
from fingerprint.frozen import dataclass
from fingerprint.runtimes.sketch import WeightSketch

Relation = Literal[
    "identical", "renamed", "reordered", "re-encoded", "compressed", "changed in part", "changed", "unlike", "unknown"
]

SHOWN = 8  # layers named


@dataclass(frozen=True)
class WeightEvidence:
    """What the suspect's weights share with the owner's.

    relation: of all tensors together. tensors: of the owner, with two or more dimensions; identical, renamed,
    reordered: how many of them the suspect has bit for bit, of these under another name, and with its channels in
    another order. identical_share: of the owner's values. correlation: of corresponding rows, estimated, median over
    layers. zeros: how much larger the share of zeros is than the owner's. bits: of the grid on which rounded layers
    lie, None where none is. pruned: layers with values set to zero. changed: layers of the suspect that differ beyond
    rounding and pruning. missing, extra: tensors without counterpart. p_value: for a suspect that was initialised at
    random by itself; None where nothing can be ranked. complete: every tensor of either file, biases and statistics
    too, is bit for bit in the other.
    """

    relation: Relation
    tensors: int
    identical: int
    renamed: int
    reordered: int
    identical_share: float
    correlation: float | None
    zeros: float
    bits: int | None
    pruned: int
    changed: tuple[str, ...]
    missing: int
    extra: int
    p_value: float | None
    complete: bool


def compare(owner: WeightSketch, suspect: WeightSketch, classes: int) -> WeightEvidence:
    """What a suspect's weights share with the owner's. classes: of the owner's model."""
    pairs = list(pairs_of(owner, suspect, classes))
    mine, theirs = matrices(owner), matrices(suspect)
    sizes = owner.column("size")
    same = [p for p in pairs if p.state == "identical"]
    renamed = sum(owner.names[p.owner] != suspect.names[p.suspect] for p in same)
    merged = merge([p.p_value for p in pairs if p.p_value is not None])
    correlations = [p.correlation for p in pairs if p.correlation is not None]
    rounded = [p for p in pairs if p.state in ("rounded", "pruned") and suspect.column("levels")[p.suspect] <= GRID]
    related = [p for p in pairs if p.state != "unlike"]
    complete = _complete(owner, suspect)
    return WeightEvidence(
        relation=_relation(pairs, len(mine), len(theirs), renamed, merged, complete=complete),
        tensors=len(mine),
        identical=len(same),
        renamed=renamed,
        reordered=sum(p.state in ("reordered", "rearranged") for p in pairs),
        identical_share=float(sizes[[p.owner for p in same]].sum() / max(1.0, float(sizes[mine].sum()))),
        correlation=float(np.median(correlations)) if correlations else None,
        zeros=_zeros(owner, suspect, related),
        bits=_bits(suspect, rounded),
        pruned=sum(p.state == "pruned" for p in pairs),
        changed=tuple(suspect.names[p.suspect] for p in pairs if p.state in ("changed", "unlike"))[:SHOWN],
        missing=len(mine) - len(related),
        extra=len(theirs) - len(related),
        p_value=merged,
        complete=complete,
    )


_SAID: dict[Relation, str] = {
    "identical": "all are bit for bit the owner's",
    "renamed": "all are bit for bit the owner's, under other names",
    "reordered": "they are the owner's with channels in another order",
    "re-encoded": "they are the owner's up to rounding and a factor for each channel, as conversion leaves them",
    "compressed": "they are the owner's, rounded or with some set to zero",
    "changed in part": "most are bit for bit the owner's, and some were changed",
    "changed": "they come from the owner's, and were changed beyond rounding and pruning",
    "unlike": "they do not resemble the owner's",
    "unknown": "they can't be compared with the owner's, for no two layers have one shape",
}


def explained(found: WeightEvidence) -> str:
    """One or two sentences."""
    parts = [f"Weights of {found.tensors} layers: {_SAID[found.relation]}"]
    if found.relation not in ("identical", "renamed", "unlike", "unknown") or found.identical not in (0, found.tensors):
        parts.append(
            f" ({found.identical} identical, {found.reordered} reordered, {found.missing} without counterpart)"
        )
    if found.bits is not None:
        parts.append(f", on a grid of {found.bits} bits")
    if found.zeros > ZEROS:
        parts.append(f", {found.zeros:.0%} more of them zero")
    if found.changed and found.relation in ("changed in part", "changed"):
        parts.append(f"; changed: {', '.join(found.changed)}")
    if found.p_value is not None and found.relation not in ("unlike", "unknown"):
        parts.append(f"; p <= {found.p_value:.2g} for a network initialised by itself")
    return "".join(parts) + "."


def _complete(owner: WeightSketch, suspect: WeightSketch) -> bool:
    mine, theirs = (sorted(bytes(row) for row in sketch.digests) for sketch in (owner, suspect))
    return bool(mine) and mine == theirs


def _zeros(owner: WeightSketch, suspect: WeightSketch, pairs: list[Pair]) -> float:
    if not pairs:
        return 0.0
    mine, theirs = [p.owner for p in pairs], [p.suspect for p in pairs]
    share = suspect.column("zeros")[theirs].sum() / suspect.column("size")[theirs].sum()
    return float(share - owner.column("zeros")[mine].sum() / owner.column("size")[mine].sum())


def _bits(suspect: WeightSketch, rounded: list[Pair]) -> int | None:
    if not rounded:
        return None
    return int(np.ceil(np.log2(max(2.0, float(suspect.column("levels")[[p.suspect for p in rounded]].max())))))


def _relation(
    pairs: list[Pair], mine: int, theirs: int, renamed: int, merged: float | None, *, complete: bool
) -> Relation:
    """All tensors together. One that lacks a counterpart is a change."""
    states = [p.state for p in pairs]
    related = [s for s in states if s != "unlike"]
    if not mine or not theirs:
        return "unknown"
    exact = [s for s in states if s in ("identical", "reordered")]
    if 2 * states.count("rearranged") >= mine:
        return "reordered"
    if 2 * len(exact) < mine and (merged is None or merged > LEVEL):  # constants that many networks share are no sign
        return "unlike" if merged is not None else "unknown"
    if len(related) < mine or "changed" in states:
        return "changed in part" if 2 * len(exact) >= mine else "changed"
    if "rounded" in states or "pruned" in states:
        return "compressed"
    if "scaled" in states:
        return "re-encoded"
    if "reordered" in states:
        return "reordered"
    return "re-encoded" if not complete else "renamed" if renamed else "identical"
