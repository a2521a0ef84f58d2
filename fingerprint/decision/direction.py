"""Direction: which of two related models was timestamped first.

Said only of a derived suspect, and only from two timestamps (RFC 3161) that were verified: one over the suspect's
files, one over the signed record, which names the owner's model by its digest. Each is an upper bound, for what existed
at a time may have existed long before. Checking tokens is the caller's: here, times are compared.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from fingerprint.frozen import dataclass

if TYPE_CHECKING:
    from fingerprint.decision.verdict import Direction, Lineage

ASSUMED_S = 1.0  # seconds: accuracy of a token that states none (what ETSI EN 319 421 demands of an authority)
NOT_DERIVED = "Only a derived suspect has one."
LIMIT = "A timestamp shows that a file existed by then, not when it was made or by whom: either model may be older."


@dataclass(frozen=True)
class Moment:
    """When an authority says that something existed.

    time: ISO 8601, UTC. accuracy_s: by how many seconds it may be wrong, None if not stated. authority: its name.
    """

    time: str
    accuracy_s: float | None
    authority: str


@dataclass(frozen=True)
class DirectionEvidence:
    """Verified timestamps of the suspect and of the signed record; and why the direction is unknown, where it is."""

    suspect: Moment | None
    fingerprint: Moment | None
    reason: str = ""


def judge(
    lineage: Lineage | str | None, suspect: Moment | None, fingerprint: Moment | None, lacking: str = ""
) -> tuple[Direction, DirectionEvidence]:
    """The direction between a suspect and a record, and what it rests on.

    Args:
        lineage: as it was decided.
        suspect: of the suspect's earliest verified timestamp.
        fingerprint: of the record's.
        lacking: why one of them is None.
    """
    if suspect is None or fingerprint is None:
        return "unknown", DirectionEvidence(suspect, fingerprint, lacking)
    if lineage != "derived":
        return "unknown", DirectionEvidence(suspect, fingerprint, NOT_DERIVED)
    gap, slack = seconds_between(fingerprint, suspect), _accuracy(suspect) + _accuracy(fingerprint)
    if abs(gap) <= slack:
        text = f"The timestamps are {abs(gap):g} s apart, which is within their accuracy ({slack:g} s)."
        return "unknown", DirectionEvidence(suspect, fingerprint, text)
    return "suspect-later" if gap > 0 else "suspect-earlier", DirectionEvidence(suspect, fingerprint)


def seconds_between(first: Moment, second: Moment) -> float:
    """Seconds from one to the other."""
    return (datetime.fromisoformat(second.time) - datetime.fromisoformat(first.time)).total_seconds()


def _accuracy(moment: Moment) -> float:
    return ASSUMED_S if moment.accuracy_s is None else moment.accuracy_s


def explained(direction: Direction, evidence: DirectionEvidence) -> str:
    """In plain words."""
    suspect, fingerprint = evidence.suspect, evidence.fingerprint
    if direction == "unknown" or suspect is None or fingerprint is None:
        return f"Which of the two came first is unknown. {evidence.reason}".strip()
    word = "later" if direction == "suspect-later" else "earlier"
    return (
        f"The suspect's timestamp is the {word} one: its file existed by {suspect.time} ({suspect.authority}), the "
        f"signed fingerprint by {fingerprint.time} ({fingerprint.authority}). {LIMIT}"
    )
