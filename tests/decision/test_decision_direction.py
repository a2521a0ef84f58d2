"""Who came first: only from two timestamps, only of a derived suspect, and never within their accuracy."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from fingerprint.api.results import FingerprintRef, Result, Suspect
from fingerprint.decision.direction import LIMIT, NOT_DERIVED, Moment, judge
from fingerprint.decision.verdict import LIMITS_TEXT, Verdict, explain

FIRST = Moment("2026-11-01T00:00:00Z", None, "CN=one")
LAST = Moment("2026-11-02T00:00:00Z", 1.0, "CN=two")
DERIVED = Verdict("derived", 0.01, 1e-4, 1.0, 1.0, 30, "label-match", None, total_p=1e-4)
RESULT = Result(
    Suspect("s", "ab" * 32), FingerprintRef("cd" * 32, "o"), "decided", verdict=DERIVED, settings_sha256="x"
)


def test_the_later_timestamp_decides() -> None:
    assert judge("derived", LAST, FIRST)[0] == "suspect-later"
    assert judge("derived", FIRST, LAST)[0] == "suspect-earlier"


@pytest.mark.parametrize(
    ("seconds", "accuracy", "direction"),
    [
        (2, None, "unknown"),  # one second is assumed of either
        (3, None, "suspect-later"),
        (3, 2.0, "unknown"),
        (4, 2.0, "suspect-later"),
        (2, 0.5, "suspect-later"),
        (59, 60.0, "unknown"),
    ],
)
def test_overlapping_times_are_unknown(seconds: int, accuracy: float | None, direction: str) -> None:
    suspect = Moment(f"2026-11-01T00:00:{seconds:02}Z", accuracy, "")
    found, evidence = judge("derived", suspect, FIRST)
    assert found == direction
    assert ("within their accuracy" in evidence.reason) == (direction == "unknown")


@pytest.mark.parametrize("lineage", ["unrelated", "inconclusive", None])
def test_only_a_derived_suspect_has_one(lineage: str | None) -> None:
    assert judge(lineage, LAST, FIRST)[0] == "unknown"


@pytest.mark.parametrize(("suspect", "fingerprint"), [(LAST, None), (None, FIRST), (None, None)])
def test_one_timestamp_says_nothing(suspect: Moment | None, fingerprint: Moment | None) -> None:
    direction, evidence = judge("derived", suspect, fingerprint, "there is none")
    assert (direction, evidence.reason) == ("unknown", "there is none")
    said = replace(DERIVED, direction=direction, direction_evidence=evidence)
    assert "Which of the two came first is unknown. there is none" in explain(said)


def test_a_verdict_says_what_a_timestamp_shows() -> None:
    for decided_by in ("label-match", "digest"):
        direction, evidence = judge("derived", FIRST, LAST)
        told = explain(replace(DERIVED, decided_by=decided_by, direction=direction, direction_evidence=evidence))
        assert "The suspect's timestamp is the earlier one" in told
        assert LIMIT in told and FIRST.time in told and LAST.authority in told
    assert "not when it was made or by whom" in LIMITS_TEXT
    assert "timestamp" not in explain(DERIVED)  # none was given
    assert "does not show who came first" in explain(DERIVED)


@pytest.mark.parametrize("stored", [False, True])
def test_what_falls_in_the_correction_has_no_direction(stored: bool) -> None:
    result = RESULT
    if stored:
        row = json.loads(json.dumps(DERIVED.to_dict()))
        result = replace(RESULT, verdict=None, stored_verdict=row, cached=True)
    dated = result.with_direction(*judge("derived", LAST, FIRST), b"token")
    verdict = dated.to_dict()["verdict"]
    assert isinstance(verdict, dict)
    assert verdict["direction"] == "suspect-later"
    assert verdict["direction_evidence"]["suspect"]["authority"] == "CN=two"
    assert "timestamp is the later one" in verdict["explanation"]
    assert dated.settings_sha256 is None  # no other run takes it over
    assert dated.to_stored()["workings"] == {"timestamp": "dG9rZW4="}
    fallen = dated.with_lineage("inconclusive", "too many tests").to_dict()["verdict"]
    assert isinstance(fallen, dict)
    assert (fallen["direction"], fallen["direction_evidence"]["reason"]) == ("unknown", NOT_DERIVED)
    assert "later one" not in fallen["explanation"]
