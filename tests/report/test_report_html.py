"""The page as text: well-formed, self-contained, says what a verdict must say, and no name becomes markup."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from xml.etree import ElementTree

import html5lib
import numpy as np
import pytest
import report_pages  # type: ignore[import-not-found]
from hypothesis import given, settings
from hypothesis import strategies as st
from report_rows import row, verdict  # type: ignore[import-not-found]

from fingerprint.decision.verdict import LIMITS_TEXT
from fingerprint.report.html import HtmlReport
from fingerprint.report.html.plots import curve, strips
from fingerprint.report.html.recheck import commands
from fingerprint.report.html.report import FIRST, GALLERIES, SECTIONS
from fingerprint.report.interface import Summary

PAGES = {
    "one": report_pages.one_suspect(),
    "probes": report_pages.one_suspect(secrets=True),
    "audit": report_pages.audit(300, partial=True),
    "empty": HtmlReport().finish([], Summary("audit")),
}


def parsed(text: str) -> ElementTree.Element:
    """The tree; any parse error of the HTML standard fails."""
    tree: ElementTree.Element = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(text)
    return tree


def visible(tree: ElementTree.Element) -> str:
    skipped = {"script", "style"}

    def texts(element: ElementTree.Element) -> Iterator[str]:
        if element.tag not in skipped:
            yield element.text or ""
            for child in element:
                yield from texts(child)
                yield child.tail or ""

    return " ".join("".join(texts(tree)).split())


@pytest.mark.parametrize("name", PAGES)
def test_well_formed_and_reachable(name: str) -> None:
    tree = parsed(PAGES[name])
    assert tree.get("lang") == "en" and tree.find(".//title").text  # type: ignore[union-attr]
    ids = Counter(e.get("id") for e in tree.iter() if e.get("id"))
    assert not [i for i, count in ids.items() if count > 1]
    for element in tree.iter():
        for key in ("aria-labelledby", "href"):
            target = (element.get(key) or "").removeprefix("#")
            assert not target or target in ids, (element.tag, key, target)
        if element.tag == "img":
            assert element.get("alt")
        if element.tag == "th":
            assert element.get("scope") in ("col", "row")
    levels = [int(e.tag[1]) for e in tree.iter() if re.fullmatch("h[1-6]", str(e.tag))]
    assert levels.count(1) == 1 and all(b <= a + 1 for a, b in pairwise(levels))


@pytest.mark.parametrize("name", PAGES)
def test_nothing_comes_from_elsewhere(name: str) -> None:
    tree = parsed(PAGES[name])
    for element in tree.iter():
        for key, value in element.attrib.items():
            assert not str(key).startswith("on") and key != "style", (element.tag, key)
            if key in ("src", "href", "action", "data"):
                assert value.startswith(("#", "data:image/png;base64,")), value
    policy = next(e for e in tree.iter("meta") if e.get("http-equiv") == "Content-Security-Policy").get("content") or ""
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy
    assert "url(" not in PAGES[name] and "@import" not in PAGES[name]


def test_it_says_what_a_verdict_must_say() -> None:
    text = visible(parsed(PAGES["one"]))
    for part in (
        "Behaviour consistent with derivation from my-model, at error <= 0.005.",
        LIMITS_TEXT,
        "fitted, 12 reference models, 5 authors stated, 95 % confidence",
        "58 of 60",
        "12 unrelated reference models gave it on 4 % to 30 % (median 11 %).",
        "a model stands out above 47 %",
        "After 100 answers the bet that this is no stranger had multiplied its stake",
        "likely: quantize:int8; p: 0.83",
        "checked against the trusted keys",
        "8f" * 16,
        "sha256sum -- uploads/2026-11/resnet20-mobile-final.tflite",
        f"fingerprint verify uploads/2026-11/resnet20-mobile-final.tflite --against {'cd' * 32} --no-cache",
        "--alpha 0.01 --calibration auto",
        "this record proves nothing",
    ):
        assert part in text, part
    assert "stolen" not in text


def test_a_record_that_is_not_at_hand_was_not_checked() -> None:
    text = visible(parsed(HtmlReport().finish([row()], Summary("verify"))))
    assert "so it was not checked" in text and "checked against" not in text
    assert "Not recorded in a database" in text and "report 2" not in text


def test_probes_only_when_asked() -> None:
    assert not list(parsed(PAGES["one"]).iter("img")) and "data:image" not in PAGES["one"]
    tree = parsed(PAGES["probes"])
    assert len(list(tree.iter("img"))) == 60
    text = visible(tree)
    assert "this report shows probes" in text and "40 more are left out here" in text
    assert text.count("differs") == 6 and text.count("suspect not asked") == 0


def test_a_probe_tells_the_weight_change_it_is_certified_for() -> None:
    assert "certified" not in visible(parsed(PAGES["probes"])).lower()
    view = report_pages.record(secrets=True)
    assert view.payload is not None
    radius = np.full(len(view.payload.targets), np.nan, np.float32)
    radius[:3] = (0.0, 0.05, 0.4)
    view = replace(view, payload=replace(view.payload, certified_radius=radius))
    summary = Summary("verify", records={"cd" * 32: view})
    text = visible(parsed(HtmlReport().finish([row(verdict=report_pages.full_verdict())], summary)))
    assert [text.count(f"certified {value}") for value in ("0.00", "0.05", "0.40")] == [1, 1, 1]
    assert text.count("certified 0") == 3 and "relative to each tensor's RMS" in text


def test_labels_that_mean_something_else_are_no_match() -> None:
    view = report_pages.record(secrets=True)
    answers = {("models/suspect.onnx", "cd" * 32): {"probes": list(range(100)), "labels": [0] * 100}}
    summary = Summary("verify", records={"cd" * 32: view}, answers=answers)
    text = visible(parsed(HtmlReport().finish([row(verdict=report_pages.full_verdict())], summary)))
    assert "suspect 0" in text and "differs" not in text


def test_an_audit_tells_findings_first() -> None:
    tree = parsed(PAGES["audit"])
    articles = list(tree.iter("article"))
    kinds = [(a.get("class") or "").split()[1] for a in articles]
    assert len(articles) == SECTIONS and kinds[:45] == ["derived"] * 15 + ["inconclusive"] * 15 + ["undecided"] * 15
    lines = tree.findall(".//table[@id='results']/tbody/tr")
    assert len(lines) == FIRST
    text = visible(tree)
    assert "Partial:" in text and "The first 200 of 300 results" in text and "False discovery rate <= 0.01" in text
    data = json.loads(next(e for e in tree.iter("script") if e.get("id") == "data").text or "")
    assert len(data["rows"]) == 300 and data["sections"] == SECTIONS
    assert GALLERIES < SECTIONS < FIRST


def test_an_empty_audit() -> None:
    assert "there was no model to examine" in visible(parsed(PAGES["empty"]))


NASTY = st.sampled_from(
    ["</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "\"'><svg onload=alert(1)>", "{{ 7 * 7 }}",
     "{% raw %}", "<!--", "]]>", "javascript:alert(1)", "&amp;", "\u2028", "\x00", "\u202e", "</style>", "\udcff",
     "`${1}`"]
)  # fmt: skip


@given(st.lists(NASTY | st.text(max_size=8), min_size=1, max_size=4).map("".join))
@settings(max_examples=60, deadline=None)
def test_hostile_names_stay_text(name: str) -> None:
    hostile = row(
        path=name,
        reason=name,
        fingerprint={"id": None, "name": name},
        suspect={"path": name, "sha256": "ab" * 32, "format": name, "runtime": name},
        adaptation={name: {name: name}},
        verdict=verdict(reason=name, decided_by=name) | {"later": {name: name}},
    )
    harmless = HtmlReport().finish(
        [row(adaptation={"a": {"b": "c"}}, verdict=verdict() | {"later": {"a": "b"}})] * 2, Summary("audit")
    )
    made = HtmlReport().finish(
        [hostile, row(adaptation={"a": {"b": "c"}}, verdict=verdict() | {"later": {"a": "b"}})], Summary("audit")
    )
    expected, found = (Counter(e.tag for e in parsed(text).iter()) for text in (harmless, made))
    assert set(found) == set(expected)
    assert found["script"] == expected["script"] and found["a"] == expected["a"]
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
    assert " ".join(shown.split()) in visible(parsed(made))
    data = json.loads(next(e for e in parsed(made).iter("script") if e.get("id") == "data").text or "")
    assert shown in [r["cells"][0] for r in data["rows"]]


def test_recheck_commands_can_be_copied() -> None:
    summary = Summary(
        "verify", run="r", parameters={"alpha": 0.05, "label_only": True, "repeat": 3, "data": "my images/"}
    )
    lines = [command for _, command in commands(row(path="a b; rm -rf x.onnx"), summary)]
    assert lines[0] == "sha256sum -- 'a b; rm -rf x.onnx'"
    assert (
        lines[2].startswith("fingerprint verify 'a b; rm -rf x.onnx' --against ")
        and "--label-only --repeat 3" in lines[2]
    )
    assert "--data 'my images/'" in lines[2] and lines[3] == "fingerprint report r -f html"
    nested = [command for _, command in commands(row(path="app.apk!/m.tflite"), Summary("audit"))]
    assert nested == ["fingerprint store check"]
    assert "\n" not in "".join(c for _, c in commands(row(path="a\nrm -rf /"), Summary("verify")))


def test_strips() -> None:
    found = strips(report_pages.full_verdict(), report_pages.record(secrets=False).manifest)
    assert [s.family for s in found] == ["characteristic", "natural"]
    first = found[0]
    assert len(first.references) == 12 and len(set(first.references)) == 12
    assert first.bound is not None and max(x for x, _ in first.references) < first.bound < first.suspect
    assert all(0 < y < 80 and 0 < x < 420 for x, y in first.references)


@pytest.mark.parametrize("evidence", [None, [], [[1, 0.5]], "no", [["a", "b"], [1, 2, 3]], [[1, True], {"queries": 2}]])
def test_no_curve_without_evidence(evidence: object) -> None:
    assert curve({"evidence": evidence}) is None


def test_curve() -> None:
    for pairs in ([[1, -1.0], [50, 3.0]], [{"queries": 1, "log10_wealth": -1.0}, {"queries": 50, "log10_wealth": 3.0}]):
        made = curve({"evidence": pairs})
        assert made is not None and made.points.split()[0].startswith("14.0,") and made.last[0] == 406.0
        assert "After 50 answers" in made.words and "stake 1,000-fold; at its highest 1,000-fold" in made.words
