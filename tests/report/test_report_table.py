"""The table: readable at 80 characters, says what a verdict must say, and passes no escape sequence through."""

from __future__ import annotations

from typing import Any

import pytest
from report_rows import row  # type: ignore[import-not-found]

from fingerprint.decision.correction import benjamini_hochberg
from fingerprint.decision.verdict import LIMITS_TEXT
from fingerprint.errors import UsageError
from fingerprint.report.interface import Page, Summary
from fingerprint.report.registry import BUILT_IN, report_class
from fingerprint.report.table import TableReport
from fingerprint.report.text import percent, plural, printable


def shown(
    rows: list[dict[str, Any]],
    summary: Summary | None = None,
    *,
    width: int = 80,
    color: bool = False,
    verbose: bool = False,
) -> str:
    return TableReport(Page(width, color, verbose)).finish(rows, summary or Summary("verify"))


@pytest.mark.parametrize("width", [60, 80, 120])
def test_it_fits(rows: list[dict[str, Any]], width: int) -> None:
    text = shown([*rows, row(path="x" * 300)], width=width, verbose=True)
    assert max(map(len, text.splitlines())) <= width
    assert "\x1b" not in text


def test_it_says_what_a_verdict_must_say() -> None:
    words = " ".join(shown([row()], width=80).split())
    for part in ("derived", "error <= 0.005", "label-match on characteristic probes", "n = 12", "3 authors"):
        assert part in words, part
    assert "consistent with derivation" in words  # the paragraph
    assert LIMITS_TEXT in words


def test_many_rows_are_not_explained_unless_asked(rows: list[dict[str, Any]]) -> None:
    assert "consistent with derivation" not in shown(rows)
    assert "consistent with derivation" in shown(rows, verbose=True)
    assert "6 results: 2 derived, 1 unrelated, 2 inconclusive, 1 undecided" in shown(rows)


def test_undecided_cached_and_recognised(rows: list[dict[str, Any]]) -> None:
    text = " ".join(shown(rows, width=120).split())
    assert "unsupported" in text and "--allow-code opens it" in text
    assert "stored verdict" in text
    assert "the released file itself" in text and "0 queries" in text


def test_audit_foot() -> None:
    correction = vars(benjamini_hochberg([0.001, 0.3], 0.01))
    text = shown([row()], Summary("audit", "run", correction, partial=True))
    assert "PARTIAL" in text and "benjamini-hochberg over 2 tests: 1 stand" in text
    assert "0 results" in shown([], Summary("audit"))


def test_hostile_names_cannot_steer_the_terminal() -> None:
    text = shown([row(path="\x1b]0;owned\x07\r[bold]x[/bold]\u202e.onnx")], color=True)
    assert not {"\x07", "\r", "\u202e"} & set(text)
    assert "]0;owned\\x07" in text
    assert "[bold]" in text


def test_color_only_when_asked() -> None:
    assert "\x1b[" in shown([row()], color=True)
    assert "\x1b[" not in shown([row()])


def test_text() -> None:
    assert printable("a\x1b\u202eb\n", keep="\n") == "a\\x1b\\u202eb\n"
    assert printable("naïve 模型 \udcff") == "naïve 模型 \\udcff"
    assert [percent(v) for v in (0.0, 1.0, 0.5, 0.996, 0.9999, 0.004, 0.0001)] == [
        "0 %", "100 %", "50 %", "99.6 %", "> 99.9 %", "0.4 %", "< 0.1 %",
    ]  # fmt: skip
    assert (plural(1, "model"), plural(2, "query", "queries")) == ("1 model", "2 queries")


def test_formats_by_name() -> None:
    assert {report_class(name).name for name in BUILT_IN} == set(BUILT_IN)
    with pytest.raises(UsageError, match="no report format 'pdf'") as caught:
        report_class("pdf")
    assert "jsonl" in caught.value.remedy


def test_entry_points_and_built_in_list_agree() -> None:
    from importlib.metadata import entry_points

    found = {p.name: p.value for p in entry_points(group="fingerprint.reports") if p.value.startswith("fingerprint.")}
    assert found == {name: f"{module}:{attribute}" for name, (module, attribute) in BUILT_IN.items()}
