"""A finding that an ignore file accepts is shown in every format, with its reason and expiry."""

from __future__ import annotations

import json
import re

import pytest
from report_rows import row  # type: ignore[import-not-found]

from fingerprint.report.interface import Page, Summary
from fingerprint.report.registry import BUILT_IN, report_class

IGNORED = row(suppressed={"reason": "our own mirror <b>", "expires": "2027-01-31"})


@pytest.mark.parametrize("name", sorted(set(BUILT_IN) - {"parquet", "cyclonedx"}))
def test_reason_and_expiry_are_shown(name: str) -> None:
    made = report_class(name)(Page(120)).finish([IGNORED, row()], Summary("audit", correction=None))
    if name == "jsonl":
        made = report_class(name)().stream(IGNORED, final=True)
    assert isinstance(made, str) and "our own mirror" in made and "2027-01-31" in made.replace("\\", "")
    assert bool(re.search(r"(?<!\\)<b>", made)) is (name not in ("html", "markdown"))


def test_sarif_suppresses_only_what_is_ignored() -> None:
    made = json.loads(str(report_class("sarif")().finish([IGNORED, row()], Summary("audit"))))
    first, second = made["runs"][0]["results"]
    assert first["suppressions"][0]["status"] == "accepted" and "suppressions" not in second
