"""What a verdict says in words: the sentences that all formats for people share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from fingerprint.report.interface import Row
from fingerprint.report.text import percent, plural

Kind: TypeAlias = Literal["derived", "altered", "inconclusive", "undecided", "unrelated"]

MEANINGS: dict[Kind, str] = {
    "derived": "Behaviour consistent with derivation from a fingerprinted model, at the error that the verdict states.",
    "altered": "The function of a model of the same lineage was changed beyond what was allowed.",
    "inconclusive": "No statement is possible at this error level; the reason says why.",
    "undecided": "The suspect could not be examined; the reason says why.",
    "unrelated": "It answers like an unrelated model, and a listed transformation of the owner would have been found.",
}
ORDER: tuple[Kind, ...] = tuple(MEANINGS)  # what a reader looks for first


def kind(row: Row) -> Kind:
    """The one word that a row is counted and sorted under."""
    verdict = row["verdict"]
    if verdict is None:
        return "undecided"
    if verdict["lineage"] == "derived":
        return "derived"
    if verdict["integrity"] == "altered":
        return "altered"
    return "unrelated" if verdict["lineage"] == "unrelated" else "inconclusive"


def headline(row: Row) -> str:
    """The verdict in one sentence, with its error level."""
    verdict, name = row["verdict"], row["fingerprint"]["name"]
    if verdict is None:
        return f"Not decided ({row['status']})."
    return f"{_lineage(verdict, name)}{_integrity(verdict)}"


def _lineage(verdict: Mapping[str, Any], name: str) -> str:
    if verdict["decided_by"] == "digest":
        return f"The file is byte for byte the released model {name}."
    level = f"{verdict['error']:.3g}"
    if verdict["lineage"] == "derived":
        return f"Behaviour consistent with derivation from {name}, at error <= {level}."
    if verdict["lineage"] == "unrelated":
        return f"It answers like a model unrelated to {name}; tested at error <= {level}."
    if verdict["calibration"] is None:
        return f"No statement about {name} is possible: nothing calibrates this fingerprint."
    return f"It can't be told whether it derives from {name}, at error <= {level}."


def _integrity(verdict: Mapping[str, Any]) -> str:
    return {
        "altered": " Its function was altered.",
        "intact": "" if verdict["decided_by"] == "digest" else " Its function is intact.",
    }.get(verdict["integrity"], "")


def error(level: float) -> str:
    """An error level as a number and as odds: `0.005 (1 in 200)`."""
    return f"{level:.3g} (1 in {1 / level:,.0f})" if 0.0 < level < 1.0 else f"{level:.3g}"


def expected(used: Mapping[str, Any]) -> str:
    """What the correction of an audit means for whoever relies on its findings."""
    return f"Of everything that is reported here as derived, {percent(used['level'])} at most is expected to be wrong."


def moment(time: str) -> str:
    """An ISO 8601 time in UTC, as people write it: `2026-11-23 09:30:00 UTC`."""
    return f"{time[:10]} {time[11:19]} UTC" if time.endswith("Z") and time[10:11] == "T" else time


def why(row: Row) -> str:
    """The paragraph and the reasons that the row gives, each once."""
    verdict: Mapping[str, Any] = row["verdict"] or {}
    parts: list[str] = []
    for text in (verdict.get("explanation"), row["reason"], verdict.get("reason")):
        if text and not any(str(text) in part for part in parts):
            parts.append(str(text))
    return " ".join([*parts, suppressed(row)]).strip()


def suppressed(row: Row) -> str:
    """That an ignore file accepts the finding, why, and until when; "" where none does."""
    found = row.get("suppressed")
    return f"Suppressed until {found['expires']}: {found['reason']}" if found else ""


def correction(used: Mapping[str, Any]) -> str:
    """What was controlled over all tests of an audit."""
    stand = "1 stands" if used["discoveries"] == 1 else f"{used['discoveries']} stand"
    return (
        f"False discovery rate <= {used['level']:g} by {used['method']} over {plural(used['tests'], 'test')}: {stand}."
    )


def limits(rows: Sequence[Row]) -> str:
    """What the verdicts do not say, or "" where there are none."""
    return next((str(row["verdict"]["does_not_say"]) for row in rows if (row["verdict"] or {}).get("does_not_say")), "")


def counted(rows: Sequence[Row]) -> dict[Kind, int]:
    """How many rows are of each kind, in the order in which a reader looks for them."""
    found = dict.fromkeys(ORDER, 0)
    for row in rows:
        found[kind(row)] += 1
    return found
