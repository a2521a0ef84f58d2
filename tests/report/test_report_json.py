"""The JSON contract: every document that a report writes is valid under the published schema."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import jsonschema
import pytest
from report_rows import row, verdict  # type: ignore[import-not-found]

from fingerprint.api.results import SCHEMA_VERSION as RESULTS_VERSION
from fingerprint.api.results import FingerprintRef, Result, Suspect
from fingerprint.decision.correction import benjamini_hochberg
from fingerprint.report.interface import Summary
from fingerprint.report.json import SCHEMA_VERSION, JsonReport, dumps
from fingerprint.report.jsonl import JsonlReport

SCHEMA = json.loads(files("fingerprint.report").joinpath("schema/results.v1.json").read_text())
AUDIT = Summary("audit", "20261122T101112-aabbccdd", vars(benjamini_hochberg([0.001, 0.3], 0.01)), partial=True)


def validate(document: object, part: str | None = None) -> None:
    schema = SCHEMA if part is None else {"$ref": f"#/$defs/{part}", "$defs": SCHEMA["$defs"]}
    jsonschema.Draft202012Validator(schema).validate(document)


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["properties"]["schema_version"]["const"] == SCHEMA_VERSION == RESULTS_VERSION


@pytest.mark.parametrize("summary", [Summary("verify"), AUDIT, Summary("audit")])
def test_documents_are_valid(rows: list[dict[str, Any]], summary: Summary) -> None:
    document = json.loads(JsonReport().finish(rows, summary))
    validate(document)
    assert len(document["results"]) == len(rows)


def test_verify_has_no_audit_fields(rows: list[dict[str, Any]]) -> None:
    assert set(json.loads(JsonReport().finish(rows, Summary("verify")))) == {"schema_version", "results"}
    audit = json.loads(JsonReport().finish(rows, AUDIT))
    assert set(audit) == {"schema_version", "results", "run", "correction", "partial"}
    assert audit["correction"]["tests"] == 2


def test_golden_row() -> None:
    """What scripts read: these paths stay."""
    (found,) = json.loads(JsonReport().finish([row()], Summary("verify")))["results"]
    assert found["suspect"] == {"path": "models/suspect.onnx", "sha256": "ab" * 32, "format": "onnx", "runtime": "onnx"}
    assert found["fingerprint"] == {"id": "cd" * 32, "name": "my-model"}
    assert (found["status"], found["reason"], found["cached"]) == ("decided", "", False)
    kept = ("lineage", "integrity", "direction", "error", "p_value", "score", "match_rate", "queries", "decided_by")
    assert {k: found["verdict"][k] for k in kept} == {
        "lineage": "derived",
        "integrity": "unknown",
        "direction": "unknown",
        "error": 0.005,
        "p_value": 2.3e-5,
        "score": 0.81,
        "match_rate": 0.98,
        "queries": 100,
        "decided_by": "label-match on characteristic probes",
    }
    assert found["verdict"]["calibration"] == {
        "kind": "fitted",
        "n": 12,
        "authors": 3,
        "unstated": 4,
        "confidence": 0.95,
        "bound": 0.47,
        "nearer": 0.5,
    }


@pytest.mark.parametrize(
    "broken",
    [
        row(status="maybe"),
        row(None, verdict=verdict()),
        row(verdict=None),
        row(suspect={"path": "x"}),
        row(verdict={**verdict(), "lineage": "stolen"}),
        row(verdict={**verdict(), "match_rate": 1.5}),
    ],
)
def test_the_schema_refuses(broken: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        validate({"schema_version": 1, "results": [broken]})


def test_a_real_result_is_valid() -> None:
    result = Result(Suspect("a"), FingerprintRef(None, "n"), "unreadable", "empty")
    validate(result.to_dict(), "row")


def test_jsonl_of_verify(rows: list[dict[str, Any]]) -> None:
    report = JsonlReport()
    lines = [report.stream(r, final=True) for r in rows] + [report.finish(rows, Summary("verify"))]
    parsed = [json.loads(line) for line in "".join(lines).splitlines()]
    for line in parsed:
        validate(line, "line")
    assert len(parsed) == len(rows) + 1
    assert not any(line["provisional"] for line in parsed[:-1])
    assert parsed[-1]["summary"] == {"results": 6, "derived": 2, "unrelated": 1, "inconclusive": 2, "undecided": 1}


def test_jsonl_of_audit_repeats_rows_as_final(rows: list[dict[str, Any]]) -> None:
    report = JsonlReport()
    text = "".join(report.stream(r, final=False) for r in rows) + report.finish(rows, AUDIT)
    parsed = [json.loads(line) for line in text.splitlines()]
    for line in parsed:
        validate(line, "line")
    assert [line.get("provisional") for line in parsed] == [True] * 6 + [False] * 6 + [None]
    assert parsed[-1]["partial"] is True and parsed[-1]["run"] == AUDIT.run


def test_numbers_that_json_lacks_and_hostile_names() -> None:
    assert json.loads(dumps({"a": float("nan"), "b": [float("inf"), 1.0]})) == {"a": None, "b": [None, 1.0]}
    text = JsonReport().finish([row(path="a\x1b[31m\udcff\u202e.onnx")], Summary("verify"))
    assert text.isascii() and json.loads(text)["results"][0]["suspect"]["path"] == "a\x1b[31m\udcff\u202e.onnx"
