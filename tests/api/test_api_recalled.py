"""Results that stay text: they say what a parsed one says."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fingerprint.api.audit import correct
from fingerprint.api.recalled import RecalledResult, as_cached, row_of_text
from fingerprint.api.results import FingerprintRef, Result, Suspect

VERDICT = {"lineage": "derived", "integrity": "altered", "total_p": 0.02, "reason": "", "error": 0.05}


def compact(row: dict[str, object]) -> str:
    return json.dumps(row, sort_keys=True, separators=(",", ":"))


def recalled(plain: Result, **more: object) -> RecalledResult:
    told = (plain.lineage, plain.integrity, plain.total_p)
    text = compact(plain.to_dict() | more)
    return RecalledResult(text, plain.suspect, plain.fingerprint, plain.status, plain.settings_sha256, told)


def result(verdict: dict[str, object] | None = VERDICT, reason: str = "") -> Result:
    status = "unreadable" if verdict is None else "decided"
    where = Suspect("a\udcff.onnx", "a" * 64, "onnx", "onnx"), FingerprintRef("b" * 64, "net")
    return Result(*where, status, reason, cached=True, stored_verdict=verdict, settings_sha256="c" * 64)  # type: ignore[arg-type]


@pytest.mark.parametrize("plain", [result(), result(None, "It is cut.")])
def test_it_says_what_a_parsed_one_says(plain: Result) -> None:
    found = recalled(plain)
    for name in (*Result.__dataclass_fields__, "lineage", "integrity", "total_p"):
        assert getattr(found, name) == getattr(plain, name), name
    assert found.full() == plain
    assert list(found.to_dict().items()) == list(plain.to_dict().items())


def test_answers_are_kept_and_stand_in_no_row() -> None:
    answers = {"probes": [1], "labels": [2]}
    found = recalled(result(), answers=answers)
    assert found.answers == answers
    assert found.to_dict() == result().to_dict()


KEPT = [{}, {"answers": {"labels": [1, -1], "probes": [0, 3]}}, {"answers": {}}, {"answers": {"a": {"b": 1}}}]
TRAPS = [
    {},
    {"answers": {"l": [1]}, "cached": False},
    {"workings": {"a": {}}},
    {"a": ',"workings":{', "b": '},"cached":'},
]


@pytest.mark.parametrize(
    "kept", [*KEPT, {"workings": {"steps": {"a": 1}}}, {"workings": {"a": 1, "workings": {"b": 2}}}]
)
@pytest.mark.parametrize("trap", TRAPS)
def test_what_is_kept_is_left_out_whatever_else_a_row_holds(kept: dict[str, object], trap: dict[str, object]) -> None:
    row = result().to_dict() | {"adaptation": trap, "verdict": VERDICT | {"cached_": trap}}
    assert row_of_text(compact(row | kept)) == row
    row = row | {"verdict": None}
    assert row_of_text(compact(row | {**KEPT[1], **kept})) == row


def test_it_is_corrected_like_any_other() -> None:
    final, correction = correct([recalled(result()), *[result(VERDICT | {"total_p": 0.9})] * 9], 0.05)
    assert (correction.tests, final[0].lineage, final[0].integrity) == (10, "inconclusive", "unknown")
    verdict = final[0].to_dict()["verdict"]
    assert isinstance(verdict, dict) and "10 tests" in verdict["reason"]


@given(st.booleans(), st.text(), st.sampled_from(['"cached":false', '"cached":true', '\\"cached":false', ""]))
def test_cached_is_said_whatever_else_a_row_holds(cached: bool, author: str, trap: str) -> None:
    row = result().to_dict() | {"cached": cached, "adaptation": {"author": author + trap, trap: trap}}
    assert as_cached(compact(row)) == compact(row | {"cached": True})
    nested = row | {"adaptation": {"cached": False}}
    assert as_cached(compact(nested)) == compact(nested | {"cached": True})
