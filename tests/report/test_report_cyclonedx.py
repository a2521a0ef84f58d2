"""CycloneDX: valid under the official schema, and an ancestor only where the direction is proven."""

from __future__ import annotations

import json
from typing import Any

import pytest
import report_pages  # type: ignore[import-not-found]
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from hypothesis import given, settings
from hypothesis import strategies as st
from report_rows import row, verdict  # type: ignore[import-not-found]

from fingerprint.decision.correction import benjamini_hochberg
from fingerprint.report.cyclonedx import CycloneDxReport
from fingerprint.report.interface import Summary

CHECK = JsonStrictValidator(SchemaVersion.V1_6)
RECORDS = {"cd" * 32: report_pages.record(secrets=False)}


def made(rows: list[dict[str, Any]], summary: Summary | None = None) -> dict[str, Any]:
    text = CycloneDxReport().finish(rows, summary or Summary("verify", records=RECORDS))
    problem = CHECK.validate_str(text)
    assert problem is None, problem
    document: dict[str, Any] = json.loads(text)
    return document


def test_valid(rows: list[dict[str, Any]]) -> None:
    correction = vars(benjamini_hochberg([0.001, 0.3], 0.01))
    summary = Summary(
        "audit", "20261123T093000-1a2b3c4d", correction, started="2026-11-23T09:30:00.000Z", records=RECORDS
    )
    document = made(rows, summary)
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    assert len(document["components"]) == len(rows)
    assert {c["type"] for c in document["components"]} == {"machine-learning-model"}
    assert document["metadata"]["timestamp"].startswith("2026-11-23T09:30:00")
    assert made(rows, summary)["serialNumber"] == document["serialNumber"]
    assert "components" not in made([])


def test_the_schema_refuses_what_is_wrong() -> None:
    document = made([row()])
    document["components"][0]["type"] = "stolen goods"
    assert CHECK.validate_str(json.dumps(document)) is not None


@pytest.mark.parametrize(
    ("direction", "relation"),
    [("unknown", "variants"), ("suspect-later", "ancestors"), ("suspect-earlier", "descendants")],
)
def test_an_ancestor_is_named_only_where_it_is_proven(direction: str, relation: str) -> None:
    (component,) = made([row(verdict=verdict(direction=direction))])["components"]
    pedigree = component["pedigree"]
    assert set(pedigree) == {relation, "notes"}
    (owner,) = pedigree[relation]
    assert owner["name"] == "my-model"
    assert owner["hashes"] == [{"alg": "SHA-256", "content": RECORDS["cd" * 32].manifest.owner.sha256}]
    assert "consistent with derivation from my-model, at error <= 0.005" in pedigree["notes"]
    assert "stolen" not in json.dumps(component)


@pytest.mark.parametrize("lineage", ["unrelated", "inconclusive", None])
def test_no_pedigree_without_lineage(lineage: str | None) -> None:
    (component,) = made([row(lineage)])["components"]
    assert "pedigree" not in component
    assert component["hashes"] == [{"alg": "SHA-256", "content": "ab" * 32}]


def test_one_component_for_a_suspect_against_several_fingerprints() -> None:
    rows = [row(), row("unrelated", fingerprint={"id": "ef" * 32, "name": "other"})]
    (component,) = made(rows)["components"]
    names = {p["name"] for p in component["properties"]}
    assert {"dnn-fingerprint:verdict:my-model", "dnn-fingerprint:verdict:other"} <= names
    assert len(component["pedigree"]["variants"]) == 1


@given(st.text(st.characters(), min_size=1, max_size=20))
@settings(max_examples=25, deadline=None)
def test_any_name(name: str) -> None:
    suspect = {"path": name, "sha256": None, "format": None, "runtime": None}
    document = made([row(suspect=suspect, reason=name, fingerprint={"id": None, "name": name})])
    assert len(document["components"]) == 1
