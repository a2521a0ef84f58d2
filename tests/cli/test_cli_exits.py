"""Exit-code arithmetic: 4 > 2 > 1 > 3 > 0, `--fail-on` at or above, `--expect` instead."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.exits import (
    ERROR,
    EVIDENCE,
    FOUND,
    OK,
    UNDECIDED,
    Expect,
    FailOn,
    Finding,
    by_expectation,
    by_fail_on,
    exit_code,
    worst,
)

LINEAGES = st.sampled_from([None, "derived", "unrelated", "inconclusive"])
INTEGRITIES = st.sampled_from(["intact", "altered", "unknown"])
FINDINGS = st.lists(
    st.builds(
        lambda suspect, lineage, integrity: Finding(suspect, lineage, integrity if lineage else None),
        st.sampled_from("abc"),
        LINEAGES,
        INTEGRITIES,
    ),
    max_size=8,
)
CODES = st.lists(st.sampled_from([OK, FOUND, ERROR, UNDECIDED, EVIDENCE]), max_size=6)


@given(CODES, CODES)
def test_worst_is_a_maximum(left: list[int], right: list[int]) -> None:
    assert worst(left + right) == worst([worst(left), worst(right)]) == worst(right + left)
    assert worst([]) == OK
    for first, second in zip([4, 2, 1, 3], [2, 1, 3, 0], strict=True):
        assert worst([first, second]) == worst([second, first]) == first


@given(FINDINGS, st.sampled_from(FailOn), st.booleans())
def test_fail_on(findings: list[Finding], fail_on: FailOn, partial: bool) -> None:
    order = [None, "inconclusive", "altered", "derived"]
    bar = order.index(fail_on.value)
    at_bar = any(bar <= order.index(w) for f in findings for w in (f.lineage, f.integrity) if w in order[1:])
    undecided = partial or any(f.lineage in (None, "inconclusive") for f in findings)
    assert exit_code(findings, fail_on, partial=partial) == (FOUND if at_bar else UNDECIDED if undecided else OK)


@given(FINDINGS, st.sampled_from(FailOn))
def test_a_lower_bar_never_finds_less(findings: list[Finding], fail_on: FailOn) -> None:
    if exit_code(findings, fail_on) == FOUND:
        assert exit_code(findings, FailOn.inconclusive) == FOUND


@given(FINDINGS, st.sampled_from(Expect), st.sampled_from(FailOn))
def test_expect_replaces_fail_on(findings: list[Finding], expect: Expect, fail_on: FailOn) -> None:
    code = exit_code(findings, fail_on, expect)
    assert code == exit_code(findings, FailOn.derived, expect)
    assert code in (OK, FOUND, UNDECIDED)
    if code == OK and expect is Expect.no_match:
        assert all(f.lineage == "unrelated" for f in findings)
    if code == OK and expect is Expect.match:
        for suspect in {f.suspect for f in findings}:
            own = [f for f in findings if f.suspect == suspect]
            assert any(f.lineage == "derived" and f.integrity != "altered" for f in own)


@given(FINDINGS)
def test_match_and_no_match_exclude_each_other(findings: list[Finding]) -> None:
    if findings:
        both = [exit_code(findings, FailOn.derived, e) for e in (Expect.match, Expect.no_match)]
        assert both != [OK, OK]


@pytest.mark.parametrize(
    ("lineage", "integrity", "match", "no_match", "intact"),
    [
        ("derived", "unknown", OK, FOUND, UNDECIDED),
        ("derived", "intact", OK, FOUND, OK),
        ("derived", "altered", FOUND, FOUND, FOUND),
        ("unrelated", "unknown", FOUND, OK, UNDECIDED),
        ("inconclusive", "unknown", UNDECIDED, UNDECIDED, UNDECIDED),
        (None, None, UNDECIDED, UNDECIDED, UNDECIDED),
    ],
)
def test_expectations(lineage: str | None, integrity: str | None, match: int, no_match: int, intact: int) -> None:
    found = [Finding("s", lineage, integrity)]
    assert by_expectation(found, Expect.match) == [match]
    assert by_expectation(found, Expect.no_match) == [no_match]
    assert by_expectation(found, Expect.intact) == [intact]


def test_one_fingerprint_is_enough_for_a_match() -> None:
    several = [Finding("s", "unrelated", "unknown"), Finding("s", "derived", "unknown"), Finding("s", None, None)]
    assert by_expectation(several, Expect.match) == [OK]
    assert by_expectation(several, Expect.no_match) == [FOUND]
    assert by_expectation([*several, Finding("t", "unrelated", "unknown")], Expect.match) == [OK, FOUND]


def test_undecided_is_3_even_where_inconclusive_fails() -> None:
    assert by_fail_on([Finding("s", None, None)], FailOn.inconclusive) == [UNDECIDED]
    assert by_fail_on([Finding("s", "inconclusive", "unknown")], FailOn.inconclusive) == [FOUND]
