"""The checker on directions: they follow from the timestamps stated, and those from the tokens in the pack."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest
from made_tokens import Maker

from store.checker import direction, timestamps
from store.checker.check import Check

MAKER = Maker()
SUSPECT, RECORD = b"a suspect's file", b"a signed fingerprint"
IDENTITY = hashlib.sha256(RECORD).hexdigest()
FIRST, LAST = "20261127120000Z", "20261128120000Z"


def moment(time: str, accuracy: int | None = None) -> dict[str, object]:
    day = f"{time[:4]}-{time[4:6]}-{time[6:8]}"
    return {"time": f"{day}T12:00:00Z", "accuracy_s": accuracy, "authority": "CN=authority"}


def dated(suspect: str = LAST, record: str = FIRST, said: str = "suspect-later", **verdict: Any) -> dict[str, Any]:  # noqa: ANN401
    """A row whose suspect has a timestamp."""
    shown = {"suspect": moment(suspect), "fingerprint": moment(record), "reason": ""}
    return {
        "suspect": {"path": "s", "sha256": hashlib.sha256(SUSPECT).hexdigest()},
        "fingerprint": {"id": IDENTITY},
        "verdict": {"lineage": "derived", "direction": said, "direction_evidence": shown, **verdict},
        "workings": {"timestamp": base64.b64encode(MAKER.at(suspect).answer(SUSPECT)).decode()},
    }


def checked(row: dict[str, Any], *stamps: bytes, authorities: bool = True) -> Check:
    """The lines on a row, in a pack with timestamps over the fingerprint."""
    pack = {f"envelopes/{IDENTITY}.json": RECORD}
    pack |= {f"timestamps/{IDENTITY}.{i}.tsr": stamp for i, stamp in enumerate(stamps)}
    check = Check(pack | ({"authorities/root.pem": MAKER.root_pem()} if authorities else {}), {})
    check.attempt(direction.check, check, row, "s")
    return check


@pytest.mark.parametrize(("suspect", "record", "said"), [(LAST, FIRST, "later"), (FIRST, LAST, "earlier")])
def test_what_the_tokens_show(suspect: str, record: str, said: str) -> None:
    stamps = [MAKER.answer(b"of something else"), MAKER.at(record).answer(RECORD)]
    check = checked(dated(suspect, record, f"suspect-{said}"), *stamps)
    assert not check.failed
    assert check.lines[0].startswith(f"  ok      s: suspect-{said}, by timestamps of ")
    assert "not when it was made or by whom" in check.lines[1]


def test_what_is_not_here_is_as_stated() -> None:
    stamp = MAKER.at(FIRST).answer(RECORD)
    bare = {**dated(), "workings": None}
    cases = {
        "of the suspect can't": checked(bare, stamp),
        "of the fingerprint can't": checked(dated(), Maker().answer(RECORD)),
        "of the suspect and of the fingerprint can't": checked(dated(), stamp, authorities=False),
    }
    for text, check in cases.items():
        assert not check.failed, check.lines
        assert "direction is as stated" in check.lines[0] and text in check.lines[0]


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (dated(said="suspect-earlier"), "does not follow"),
        (dated(FIRST, FIRST), "does not follow"),
        (dated(lineage="inconclusive"), "does not follow"),
        (dated(direction_evidence=None), "two timestamps"),
        (dated(direction_evidence={"suspect": moment(LAST), "fingerprint": None}), "two timestamps"),
        ({**dated(), "workings": dated("20261126120000Z")["workings"]}, "another time than the verdict"),
        ({**dated(), "suspect": {"path": "s", "sha256": IDENTITY}}, "over other bytes"),
    ],
)
def test_what_contradicts_is_wrong(row: dict[str, Any], text: str) -> None:
    check = checked(row, MAKER.at(FIRST).answer(RECORD))
    assert check.failed == 1 and text in check.lines[0], check.lines


def test_rows_without_a_direction_are_not_looked_at() -> None:
    for row in (dated(said="unknown"), {"verdict": {"lineage": "derived"}}):
        assert checked(row).lines == []


def test_accuracy_and_fractions_are_read_as_the_tool_does() -> None:
    tool = pytest.importorskip("store.timestamps")
    pytest.importorskip("rfc3161_client")
    sha256 = hashlib.sha256(SUSPECT).hexdigest()
    for made in (MAKER, MAKER.at("20261128120000.25Z"), MAKER.at(LAST, 5), MAKER.at(LAST, 0)):
        response = made.answer(SUSPECT)
        stamp, found = tool.verify_digest(sha256, response, [made.root]), None
        found = timestamps.check_digest(response, sha256, [made.root])
        assert abs((found[0] - stamp.time).total_seconds()) < 1
        assert found[1:] == ("CN=authority", made.accuracy) and stamp.accuracy_s == made.accuracy
