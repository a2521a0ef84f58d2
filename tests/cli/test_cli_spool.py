"""Many results in little memory: what comes back is what went in, corrected."""

from __future__ import annotations

import datetime
import json

import pytest

from cli.audits import spool as module
from cli.audits.ignoring import Suppressed
from cli.audits.spool import Rows, Spool
from fingerprint.api.audit import correct
from fingerprint.api.recalled import RecalledResult
from fingerprint.api.results import FingerprintRef, Result, Suspect


def result(number: int) -> Result:
    """Of every ten one is derived; of every seven one is ignored; every third has answers."""
    derived = number % 10 == 0
    verdict: dict[str, object] = {
        "lineage": "derived" if derived else "unrelated", "integrity": "unknown", "reason": "",
        "total_p": 1e-9 if number % 20 == 0 else 0.009 if derived else 0.5,
    }  # fmt: skip
    answers = {"probes": [number], "labels": [1]} if number % 3 == 0 else None
    where = Suspect(f"m\udcff-{number}.onnx", f"{number:064x}", "onnx", "onnx"), FingerprintRef("f" * 64, "net")
    return Result(*where, "decided", cached=True, stored_verdict=verdict, settings_sha256="5" * 64, answers=answers)


def recalled(plain: Result) -> RecalledResult:
    answers = {} if plain.answers is None else {"answers": plain.answers}
    text = json.dumps(plain.to_dict() | answers, sort_keys=True, separators=(",", ":"))
    told = (plain.lineage, plain.integrity, plain.total_p)
    return RecalledResult(text, plain.suspect, plain.fingerprint, plain.status, plain.settings_sha256, told)


def accepted(found: Result) -> Suppressed | None:
    number = int(found.suspect.path.removesuffix(".onnx").rsplit("-", 1)[1])
    return Suppressed("looked at", datetime.date(2100, 1, 1)) if number % 7 == 0 else None


@pytest.mark.parametrize("text", [False, True])
def test_what_comes_back_is_what_went_in(text: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IN_MEMORY", 5)
    plain, spool = [result(number) for number in range(60)], Spool(accepted)
    for one in plain:
        spool.add(recalled(one) if text else one)
    final, spool.correction = correct(plain, 0.01)
    assert [one.lineage for one in final if one.lineage != "unrelated"].count("inconclusive") == 3
    assert list(spool) == final if not text else [one.to_dict() for one in spool] == [one.to_dict() for one in final]
    assert [one.answers for one in spool] == [one.answers for one in plain]
    expected = [
        one.to_dict() | ({} if accepted(one) is None else {"suppressed": accepted(one).to_dict()})  # type: ignore[union-attr]
        for one in final
    ]
    rows = Rows(spool)
    assert list(rows) == expected and rows[3:20:4] == expected[3:20:4]
    assert [list(row) for row in rows] == [list(row) for row in expected], "in the contract's order"
    assert len(list(spool.findings())) == 60 - spool.suppressed == 60 - 9
    spool.close()
