"""Results of an earlier run that stay text until somebody reads them: an unchanged registry has as many as ever."""

from __future__ import annotations

import json
from typing import Any, Literal

from fingerprint.api.results import FingerprintRef, Result, Status, Suspect

ROW = ("suspect", "fingerprint", "status", "reason", "cached", "adaptation", "verdict")
_ANSWERS, _AFTER, _WORKINGS = ',"answers":{', '},"cached":', ',"workings":{'
_KEY, _SAID = '"cached":', ("false,", "true,")


class RecalledResult(Result):
    """A result as it was stored. What is counted and corrected of it is known; the rest is parsed when it is asked for.

    Args:
        text: the JSON of the row as `to_stored` made it, sorted and compact.
        suspect, fingerprint, status, settings_sha256: as in the row.
        told: lineage, integrity and total p-value of its verdict.
    """

    text: str
    told: tuple[str | None, str | None, float | None]

    def __init__(
        self,
        text: str,
        suspect: Suspect,
        fingerprint: FingerprintRef,
        status: Status,
        settings_sha256: str | None,
        told: tuple[str | None, str | None, float | None],
    ) -> None:
        vars(self).update(text=text, suspect=suspect, fingerprint=fingerprint, status=status, told=told)
        vars(self)["settings_sha256"] = settings_sha256

    def full(self) -> Result:
        """The same, parsed."""
        return Result.from_dict(json.loads(self.text), self.settings_sha256)

    @property
    def lineage(self) -> str | None:
        """See `Result.lineage`."""
        return self.told[0]

    @property
    def integrity(self) -> str | None:
        """See `Result.integrity`."""
        return self.told[1]

    @property
    def total_p(self) -> float | None:
        """See `Result.total_p`."""
        return self.told[2]

    @property
    def reason(self) -> str:
        """See `Result`."""
        return self.full().reason

    @property
    def cached(self) -> bool:
        """See `Result`."""
        return self.full().cached

    @property
    def adaptation(self) -> dict[str, object] | None:
        """See `Result`."""
        return self.full().adaptation

    @property
    def stored_verdict(self) -> dict[str, object] | None:
        """See `Result`."""
        return self.full().stored_verdict

    @property
    def answers(self) -> dict[str, list[int]] | None:
        """See `Result`."""
        return self.full().answers

    @property
    def workings(self) -> dict[str, object] | None:
        """See `Result`."""
        return self.full().workings

    def with_lineage(self, lineage: Literal["derived", "unrelated", "inconclusive"], reason: str) -> Result:
        """See `Result.with_lineage`."""
        return self.full().with_lineage(lineage, reason)

    def to_dict(self) -> dict[str, object]:
        """See `Result.to_dict`."""
        return row_of_text(self.text)


def row_of_text(text: str) -> dict[str, object]:
    """The row of the JSON contract that a stored text holds, in the order of `Result.to_dict`; without what is kept."""
    try:
        row = json.loads(_without_kept(text))
    except ValueError:  # what looked like their beginning or end was something else
        row = json.loads(text)
    return {name: row[name] for name in ROW}


def _without_kept(text: str) -> str:
    """The same without what no report shows, so that it need not be parsed: half of a row. It may be no JSON then.

    `answers` stands right before `cached`, and holds no object. A row has one `cached`: there is no other to mistake.
    """
    first = text.find(_ANSWERS)
    end = text.find(_AFTER, first) if first >= 0 else -1
    alone = end >= 0 and text.find("{", first + len(_ANSWERS), end) < 0 and text.find(_AFTER[2:], end + len(_AFTER)) < 0
    if alone:
        text = text[:first] + text[end + 1 :]
    last = text.rfind(_WORKINGS)
    return f"{text[:last]}}}" if last >= 0 else text


def as_cached(text: str) -> str:
    """The text of a row that says that it comes from an earlier run.

    Inside of a JSON string every quotation mark is escaped, so that the pattern can stand for a key only.
    """
    before, _, after = text.partition(_KEY)
    if _KEY not in after and after.startswith(_SAID):
        return text if after.startswith("true") else f"{before}{_KEY}true{after[5:]}"
    row: dict[str, Any] = json.loads(text)
    return json.dumps({**row, "cached": True}, sort_keys=True, separators=(",", ":"), allow_nan=False)
