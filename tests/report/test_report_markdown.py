"""Markdown, rendered by a real parser: what a suspect is called stays text."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from report_rows import row, verdict  # type: ignore[import-not-found]

from fingerprint.decision.correction import benjamini_hochberg
from fingerprint.decision.verdict import LIMITS_TEXT
from fingerprint.report.interface import Summary
from fingerprint.report.markdown import DETAILED, MarkdownReport, escape

PARSER = MarkdownIt("commonmark", {"html": True}).enable("table").enable("strikethrough")


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.cells: list[str] = []
        self.text = ""
        self._cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs
        if tag == "td":
            self.cells.append("")
            self._cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag == "td":
            self._cell = False

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._cell:
            self.cells[-1] += data


def rendered(rows: list[dict[str, Any]], summary: Summary | None = None) -> _Page:
    return _Page(PARSER.render(MarkdownReport().finish(rows, summary or Summary("verify"))))


def test_it_says_what_a_verdict_must_say() -> None:
    page = rendered([row()])
    text = " ".join(page.text.split())
    for part in ("consistent with derivation from my-model, at error <= 0.005", "fitted, n = 12", LIMITS_TEXT):
        assert part in text, part
    assert page.cells[:4] == ["models/suspect.onnx", "my-model", "derived", "unknown"]
    assert page.cells[4:8] == ["98 %", "2.3e-05", "0.005", "fitted, n = 12"]


def test_findings_come_first(rows: list[dict[str, Any]]) -> None:
    page = rendered(rows)
    assert page.cells[2:48:8] == ["derived", "derived", "inconclusive", "inconclusive", "unsupported", "unrelated"]
    assert "6 results: 2 derived, 2 inconclusive, 1 undecided, 1 unrelated." in page.text


def test_audit_head(rows: list[dict[str, Any]]) -> None:
    correction = vars(benjamini_hochberg([0.001, 0.3], 0.01))
    text = rendered(rows, Summary("audit", "20261122T101112-aabbccdd", correction, partial=True)).text
    assert "PARTIAL" in text and "benjamini-hochberg over 2 tests: 1 stands" in text and "aabbccdd" in text


def test_many_findings_are_not_all_explained() -> None:
    text = MarkdownReport().finish([row(path=f"m{i}") for i in range(DETAILED + 5)], Summary("audit"))
    assert text.count("\n## m") == DETAILED and "5 more findings are in the table only." in text


NASTY = st.sampled_from(
    ["<script>alert(1)</script>", "[x](javascript:1)", "![i](http://h/p)", "a|b", "`code`", "**b**", "# h",
     "\n\n# new", "@everyone", "#1", "http://host/", "www.host.org", "a_b_c", "~~s~~", "&lt;", "\\", "\u202e",
     "\x1b[31m", "- item", "$x$"]
)  # fmt: skip


@given(st.lists(NASTY | st.text(max_size=10), min_size=1, max_size=4).map("".join))
@settings(max_examples=150, deadline=None)
def test_hostile_names_stay_text(name: str) -> None:
    page = rendered([row(path=name, reason=name, fingerprint={"id": None, "name": name}, verdict=verdict(reason=name))])
    allowed = {"h1", "h2", "p", "strong", "table", "thead", "tbody", "tr", "th", "td", "ul", "li", "code"}
    assert page.tags <= allowed
    assert {key for key, _ in page.attributes} <= {"style"}  # the alignment of columns
    visible = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
    assert page.cells[0].strip() == visible.strip()
    assert len(page.cells) == 8 + 5


def test_nothing_is_linked_by_a_service() -> None:
    shown = escape("@team fixes #12 see https://host/x www.host.org SHA")
    assert "@<!-- -->team" in shown and not re.search(r"(?<!\\)#|[^\\]://|www\.", shown)
