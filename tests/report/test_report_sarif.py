"""SARIF: valid under the published schema, whatever a suspect is called, and its levels are those of the verdicts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_rows import row, verdict  # type: ignore[import-not-found]

from fingerprint.decision.correction import benjamini_hochberg
from fingerprint.report.interface import Summary
from fingerprint.report.sarif import SarifReport, uri

SCHEMA = json.loads((Path(__file__).parents[1] / "fixtures/schemas/sarif-2.1.0.json").read_text())
CHECK = jsonschema.Draft4Validator(SCHEMA, format_checker=jsonschema.Draft4Validator.FORMAT_CHECKER)
AUDIT = Summary(
    "audit",
    "20261122T101112-aabbccdd",
    vars(benjamini_hochberg([0.001, 0.3], 0.01)),
    partial=True,
    started="2026-11-22T10:11:12.000Z",
    finished="2026-11-22T10:12:12.000Z",
)


def made(rows: list[dict[str, Any]], summary: Summary | None = None) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(SarifReport().finish(rows, summary or Summary("verify")))
    CHECK.validate(document)
    (run,) = document["runs"]
    return dict(run)


def test_the_schema_refuses_what_is_wrong() -> None:
    for change in ({"level": "fatal"}, {"kind": "guilty"}, {"message": "text"}):
        document = json.loads(SarifReport().finish([row()], Summary("verify")))
        document["runs"][0]["results"][0].update(change)
        assert list(CHECK.iter_errors(document))


@pytest.mark.parametrize("summary", [Summary("verify"), AUDIT, Summary("audit")])
def test_valid(rows: list[dict[str, Any]], summary: Summary) -> None:
    run = made(rows, summary)
    assert len(run["results"]) == len(rows) and len(run["artifacts"]) == len(rows)
    assert made([], summary)["results"] == []
    assert made([row(suppressed={"reason": "ours", "expires": "2027-01-31"})], summary)["results"][0]["suppressions"]


def test_kinds_and_levels(rows: list[dict[str, Any]]) -> None:
    run = made(rows)
    found = [(r["ruleId"], r["kind"], r["level"]) for r in run["results"]]
    assert found == [
        ("derived", "fail", "error"),
        ("unrelated", "pass", "none"),
        ("inconclusive", "open", "none"),
        ("undecided", "open", "none"),
        ("derived", "fail", "error"),
        ("inconclusive", "open", "none"),
    ]
    rules = run["tool"]["driver"]["rules"]
    assert all(rules[r["ruleIndex"]]["id"] == r["ruleId"] for r in run["results"])
    assert "stolen" not in json.dumps(run)


def test_altered_is_a_finding_of_its_own() -> None:
    run = made(
        [
            row(verdict=verdict(integrity="altered")),
            row("inconclusive", verdict=verdict("inconclusive", integrity="altered")),
        ]
    )
    assert [r["ruleId"] for r in run["results"]] == ["derived", "altered", "altered"]
    assert len({r["partialFingerprints"]["suspectAndFingerprint/v1"] for r in run["results"]}) == 2 + 1 - 1


def test_the_message_states_the_error() -> None:
    (result,) = made([row()])["results"]
    assert "consistent with derivation from my-model, at error <= 0.005" in result["message"]["text"]


def test_partial_runs_and_what_was_not_examined(rows: list[dict[str, Any]]) -> None:
    (invocation,) = made(rows, AUDIT)["invocations"]
    assert invocation["executionSuccessful"] is False
    said = [n["message"]["text"] for n in invocation["toolExecutionNotifications"]]
    assert any("--allow-code opens it" in text for text in said) and any("cut short" in text for text in said)
    assert made(rows)["invocations"][0]["executionSuccessful"] is True


def test_a_model_in_an_archive_in_an_archive() -> None:
    run = made([row(path="apps/app.apk!/assets/more.zip!/model.tflite"), row(path="apps/app.apk!/b.tflite")])
    locations = [a["location"]["uri"] for a in run["artifacts"]]
    assert locations == ["apps/app.apk", "assets/more.zip", "model.tflite", "b.tflite"]
    assert [a.get("parentIndex") for a in run["artifacts"]] == [None, 0, 1, 0]
    assert "hashes" not in run["artifacts"][0] and run["artifacts"][2]["hashes"]["sha-256"] == "ab" * 32
    for result in run["results"]:
        assert result["locations"][0]["physicalLocation"]["artifactLocation"] == {"uri": "apps/app.apk", "index": 0}


def test_uris() -> None:
    assert uri("a b/ü#?.onnx") == "a%20b/%C3%BC%23%3F.onnx"
    assert uri("/srv/m.onnx") == "file:///srv/m.onnx"
    assert uri("https://host/v2/models/m?x=1") == "https://host/v2/models/m?x=1"
    assert uri("my_module:predict") == "my_module%3Apredict"
    assert uri("x\udcff\n\x1b") == "x%FF%0A%1B"


@given(st.text(st.characters(), min_size=1, max_size=40), st.text(max_size=40))
@settings(max_examples=60, deadline=None)
def test_any_name(path: str, reason: str) -> None:
    run = made([row(path=path, reason=reason), row(None, path=path, reason=reason)])
    text = json.dumps(run, ensure_ascii=False)
    assert "\x1b" not in text and "\u202e" not in run["results"][0]["message"]["text"]
    if "!/" not in path and not path.startswith(("http", "/")) and path.isprintable():
        assert unquote(run["artifacts"][0]["location"]["uri"]) == path


def test_a_rerun_has_the_same_identity() -> None:
    first, second = made([row()])["results"][0], made([row(path="moved.onnx", cached=True)])["results"][0]
    assert first["partialFingerprints"] == second["partialFingerprints"]
