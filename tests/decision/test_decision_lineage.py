"""The lineage test: every branch of what it may say. Its stated error: `test_decision_lineage_error`."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_records import manifest, match, references

from fingerprint.decision.distributions import hypergeometric_tail
from fingerprint.decision.lineage import LABEL_SHARE, POWER_NEEDED, LineageTest, Settings, choose_calibration
from fingerprint.decision.verdict import LIMITS_TEXT, Verdict, explain, undecided
from fingerprint.record import FamilyMatch, Manifest

C = "characteristic"
STRONG = [{C: m} for m in (100, 99, 98)]  # copies that are easy to find
FIELDS = {
    "lineage", "integrity", "direction", "error", "p_value", "score", "match_rate", "queries", "decided_by",
    "calibration",
}  # fmt: skip


def with_references(matches: Sequence[int], **rest: object) -> Manifest:
    return manifest(references=references([{C: int(m)} for m in matches], 100), **rest)  # type: ignore[arg-type]


def one(matches: int, queries: int = 100, correlation: float | None = None) -> dict[str, FamilyMatch]:
    return {C: match(matches, queries, correlation)}


STRANGERS = [20, 22, 18, 25, 15, 21, 19, 23, 17, 20, 24, 16, 22, 18, 20]


# -- which calibration -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "alpha", "asked", "declared", "kind"),
    [
        (0, 0.01, "auto", None, None),
        (0, 0.01, "conformal", None, None),
        (0, 0.01, "fitted", None, None),
        (0, 0.01, "auto", 0.3, None),  # a declared bound counts only on request
        (0, 0.01, "declared", 0.3, "declared"),
        (50, 0.01, "declared", None, None),
        (6, 0.01, "auto", None, None),
        (6, 0.01, "conformal", None, "conformal"),
        (7, 0.01, "auto", None, "fitted"),
        (198, 0.01, "auto", None, "fitted"),
        (199, 0.01, "auto", None, "conformal"),
        (199, 0.01, "fitted", None, "fitted"),
        (38, 0.05, "auto", None, "fitted"),
        (39, 0.05, "auto", None, "conformal"),
        (3, 0.5, "auto", None, "conformal"),
    ],
)
def test_choice_of_calibration(n: int, alpha: float, asked: str, declared: float | None, kind: str | None) -> None:
    record = with_references([20] * n, declared_bound=declared)
    found, why = choose_calibration(record, Settings(alpha, asked))  # type: ignore[arg-type]
    assert found == kind
    assert bool(why) == (kind is None)


def test_why_there_is_no_calibration() -> None:
    assert "At least 7 reference" in choose_calibration(manifest(), Settings())[1]
    assert "3 more reference" in choose_calibration(with_references([20] * 4), Settings())[1]
    assert "--calibration declared" in choose_calibration(manifest(declared_bound=0.2), Settings())[1]
    assert "no bound" in choose_calibration(manifest(), Settings(calibration="declared"))[1]


def test_families_share_alpha_when_conformal_is_chosen() -> None:
    """Two families have half of alpha each, so twice as many references are needed."""
    weights = {C: 0.5, "natural": 0.5}
    for n, kind in ((199, "fitted"), (399, "conformal")):
        matches = references([dict.fromkeys(weights, 10)] * n, 100)
        assert choose_calibration(manifest(families=weights, references=matches), Settings(0.01))[0] == kind


# -- what it says ----------------------------------------------------------------------------------------------------


def test_derived() -> None:
    verdict = LineageTest(with_references(STRANGERS, copies=STRONG), Settings(0.01)).decide(one(97), 101)
    assert verdict.lineage == "derived"
    assert verdict.reason == ""
    assert verdict.p_value is not None
    assert verdict.p_value <= 0.005
    assert verdict.total_p is not None
    assert verdict.total_p == pytest.approx(verdict.p_value)
    assert (verdict.queries, verdict.match_rate) == (101, 0.97)
    assert verdict.decided_by == "label-match on characteristic probes"
    assert verdict.error == pytest.approx(0.01)  # all probes answered: all of it is between models
    used = verdict.calibration
    assert used is not None
    assert (used.kind, used.n, used.authors, used.unstated, used.confidence) == ("fitted", 15, 0, 15, 0.95)
    assert used.bound is not None
    assert 0.25 < used.bound < 0.9
    (family,) = verdict.families
    assert (family.name, family.matches, family.queries, family.bound) == (C, 97, 100, used.bound)


def test_derived_begins_above_the_bound_and_nearer_to_the_copies() -> None:
    for alpha in (0.0001, 0.01, 0.05):
        test = LineageTest(with_references(STRANGERS, copies=STRONG), Settings(alpha))
        bound = test.decide(one(0), 100).calibration.bound  # type: ignore[union-attr]
        if bound is None:
            assert test.decide(one(100), 100).lineage == "inconclusive"
            continue
        most = max(round(bound * 100), math.ceil(test.least(C) * 100) - 1)
        assert test.decide(one(most), 100).lineage != "derived"
        assert test.decide(one(most + 1), 100).lineage == "derived"


def test_a_stranger_that_stands_out_is_not_accused() -> None:
    """References by three authors that happen to resemble each other, copies that match fully, a match of a third."""
    rates = [11, 12, 11, 12, 10, 13, 11, 12, 13, 10, 12, 11]
    authors = [*["one"] * 10, "two", "three"]
    made = references([{C: m} for m in rates], 100)
    stated = tuple(r.model_copy(update={"author": a}) for r, a in zip(made, authors, strict=True))
    record = manifest(references=stated, copies=[{C: 100}] * 3)
    test = LineageTest(record, Settings(0.01))
    verdict = test.decide(one(33), 100)
    assert verdict.total_p is not None and verdict.total_p <= 0.01
    assert test.least(C) == pytest.approx(0.13 + 0.75 * 0.87)
    assert verdict.lineage == "inconclusive"
    assert "less than the owner's transformed copies" in verdict.reason
    assert test.decide(one(78), 100).lineage == "inconclusive", "as a net of the owner's own recipe may match"
    derived = test.decide(one(79), 100)
    assert derived.lineage == "derived"
    assert derived.calibration is not None and derived.calibration.nearer == 0.75


def test_weak_copies_do_not_lower_what_is_needed_below_the_strangers() -> None:
    record = manifest(references=references([{C: 40}] * 10, 100), copies=[{C: 10}] * 3)
    assert LineageTest(record, Settings(0.01)).least(C) == pytest.approx(0.4)
    none = manifest(references=references([{C: 40}] * 10, 100), copies=[])
    assert LineageTest(none, Settings(0.01)).least(C) == pytest.approx(0.85)


def test_unrelated() -> None:
    verdict = LineageTest(with_references(STRANGERS, copies=STRONG), Settings(0.01)).decide(one(20), 100)
    assert verdict.lineage == "unrelated"
    assert verdict.power == 1.0


@pytest.mark.parametrize(
    ("copies", "agreements", "lineage"),
    [
        ([100, 99], None, "unrelated"),
        ([100, 30], None, "inconclusive"),  # one listed copy would hardly be found
        ([100, 30], [1.0, 0.49], "unrelated"),  # but that one is broken: it is not the owner's function any more
        ([100, 30], [1.0, 0.5], "inconclusive"),
        ([], None, "inconclusive"),  # power was never measured
        ([100, 99], [0.1, 0.2], "inconclusive"),
    ],
)
def test_unrelated_needs_power(copies: list[int], agreements: list[float] | None, lineage: str) -> None:
    record = with_references(STRANGERS, copies=[{C: c} for c in copies], agreements=agreements)
    verdict = LineageTest(record, Settings(0.01)).decide(one(18), 100)
    assert verdict.lineage == lineage
    if lineage == "unrelated":
        assert verdict.power is not None
        assert verdict.power >= POWER_NEEDED
    else:
        assert "power" in verdict.reason
        assert verdict.power is None or verdict.power < POWER_NEEDED


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 100), st.integers(0, 100), st.integers(1, 100))
def test_unrelated_is_said_only_with_power_and_below_every_copy(matches: int, copy: int, asked: int) -> None:
    record = with_references(STRANGERS, copies=[{C: copy}])
    found = min(matches, asked)
    verdict = LineageTest(record, Settings(0.01)).decide(one(found, asked), asked)
    if verdict.lineage == "unrelated":
        assert verdict.power is not None
        assert verdict.power >= POWER_NEEDED
        assert hypergeometric_tail(found + 1, 100, copy, asked) >= 0.99  # such a copy would almost surely give more


def test_power_is_the_chance_to_find_the_weakest_copy() -> None:
    test = LineageTest(with_references(STRANGERS, copies=[{C: 90}, {C: 100}]), Settings(0.01))
    verdicts = [test.decide(one(k, 30), 30) for k in range(31)]
    fewest = min(k for k, v in enumerate(verdicts) if v.lineage == "derived")
    assert verdicts[0].power == pytest.approx(hypergeometric_tail(fewest, 100, 90, 30))
    assert test.decide(one(0, 3), 3).power == 0.0  # three probes can never decide


def test_a_likely_find_is_not_enough_for_unrelated() -> None:
    """Some power, less than 95 %: a copy could have been missed."""
    powers = []
    for copy in range(50, 90, 2):
        test = LineageTest(with_references(STRANGERS, copies=[{C: copy}]), Settings(0.01))
        verdict = test.decide(one(0, 30), 30)
        assert verdict.power is not None
        powers.append(verdict.power)
        assert (verdict.lineage == "unrelated") == (verdict.power >= 0.95)
    assert any(0.85 < power < 0.95 for power in powers)


def test_in_between_is_inconclusive() -> None:
    """Too few matches for `derived`, but as few as a copy may well give when only some probes are asked."""
    for copy in range(50, 100):
        test = LineageTest(with_references(STRANGERS, copies=[{C: copy}]), Settings(0.01))
        verdicts = [test.decide(one(k, 30), 30) for k in range(31)]
        power = verdicts[0].power
        if power is not None and POWER_NEEDED <= power < 0.99:
            break
    fewest = min(k for k, v in enumerate(verdicts) if v.lineage == "derived")
    assert verdicts[fewest - 1].lineage == "inconclusive"
    assert "more than unrelated models" in verdicts[fewest - 1].reason
    assert verdicts[0].lineage == "unrelated"


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 100), st.integers(1, 100), st.sampled_from(["auto", "fitted", "conformal", "declared"]))
def test_without_calibration_nothing_is_concluded(matches: int, asked: int, kind: str) -> None:
    test = LineageTest(manifest(copies=STRONG), Settings(0.05, kind))  # type: ignore[arg-type]
    verdict = test.decide(one(min(matches, asked), asked, 0.99), asked)
    assert verdict.lineage == "inconclusive"
    assert (verdict.calibration, verdict.p_value, verdict.total_p, verdict.power) == (None, None, None, None)
    assert verdict.decided_by == "nothing"
    assert verdict.reason
    assert "can't be better than inconclusive" in explain(verdict)


@given(st.integers(0, 100))
def test_another_label_space_is_never_unrelated(matches: int) -> None:
    test = _strangers_test()
    verdict = test.decide(one(matches), 100, same_labels=False)
    assert verdict.lineage in ("derived", "inconclusive")
    assert (verdict.lineage == "derived") == (test.decide(one(matches), 100).lineage == "derived")
    if verdict.lineage == "inconclusive":
        assert "label space" in verdict.reason


@cache
def _strangers_test() -> LineageTest:
    return LineageTest(with_references(STRANGERS, copies=STRONG), Settings(0.01))


def test_nothing_asked_says_nothing() -> None:
    verdict = LineageTest(with_references(STRANGERS, copies=STRONG), Settings(0.01)).decide({}, 0)
    assert (verdict.lineage, verdict.match_rate, verdict.families) == ("inconclusive", 0.0, ())


@given(st.integers(0, 99))
def test_score_grows_with_the_match(matches: int) -> None:
    test = _strangers_test()
    less, more = test.decide(one(matches), 100), test.decide(one(matches + 1), 100)
    assert less.score < more.score
    assert less.total_p is not None
    assert more.total_p is not None
    assert less.total_p >= more.total_p
    usual = sum(STRANGERS) / len(STRANGERS) / 100
    assert less.score == pytest.approx(matches / 100 - usual)


def test_score_ranks_a_student_above_a_stranger_of_the_recipe_and_a_copy_above_both() -> None:
    """Of the first family counts what no reference matches: a stranger that matches some of it is no student."""
    record = manifest(
        families={"a": 0.5, "b": 0.5}, references=references([{"a": 30, "b": 10}, {"a": 5, "b": 20}], 100)
    )
    test = LineageTest(record, Settings(0.01))

    def score(first: int, second: int) -> float:
        return test.decide({"a": match(first, 100), "b": match(second, 100)}, 200).score

    stranger, student, copy, faint = score(30, 15), score(8, 35), score(90, 90), score(0, 15)
    assert stranger == faint == pytest.approx(0.0)  # 15 is what references match of the second family
    assert stranger < student < copy
    assert copy == pytest.approx(0.5 * (0.6 / 0.7) + 0.5 * (0.9 - 0.15))
    everything = manifest(families={"a": 0.5, "b": 0.5}, references=references([{"a": 100, "b": 10}], 100))
    assert LineageTest(everything, Settings()).decide({"a": match(100, 100)}, 100).score == 0.0


def test_score_without_references_is_above_chance() -> None:
    verdict = LineageTest(manifest(), Settings()).decide(one(50), 100)
    assert verdict.score == pytest.approx(0.5 - 1 / 6)


def test_authors_are_counted() -> None:
    authors = ["a", "a", "b", None, "b", "c", None, "a"]
    record = manifest(references=references([{C: 20}] * 8, 100, authors=authors))
    used = LineageTest(record, Settings()).decide(one(20), 100).calibration
    assert used is not None
    assert (used.n, used.authors, used.unstated) == (8, 3, 2)


# -- soft outputs ----------------------------------------------------------------------------------------------------


def soft_record(n: int = 15) -> Manifest:
    soft = [{C: 0.2 + 0.03 * math.sin(i)} for i in range(n)]
    return manifest(references=references([{C: 18 + i % 6} for i in range(n)], 100, soft), copies=STRONG)


def test_soft_outputs_decide_where_labels_do_not() -> None:
    test = LineageTest(soft_record(), Settings(0.01))
    found = test.decide(one(20, correlation=0.95), 100)
    assert found.lineage == "derived"
    assert found.decided_by == "log-output-correlation on characteristic probes"
    assert test.decide(one(20, correlation=0.2), 100).lineage == "unrelated"
    assert test.decide(one(20), 100).lineage == "unrelated"
    only = LineageTest(soft_record(), Settings(0.01, label_only=True))
    assert only.decide(one(20, correlation=0.95), 100).lineage == "unrelated"


def test_a_correlation_is_asked_for_half_of_the_way_to_the_copies() -> None:
    """Copies lie near 1 whatever was done to them: three quarters of the way would lose those pruned by half."""
    record = soft_record()
    copies = tuple(c.model_copy(update={"families": one(100, correlation=0.98)}) for c in record.copies)
    test = LineageTest(record.model_copy(update={"copies": copies}), Settings(0.01))
    highest = max(c for r in record.references if (c := r.families[C].correlation) is not None)
    half = (highest + 0.98) / 2
    assert test.decide(one(20, correlation=half + 0.001), 100).lineage == "derived"
    assert test.decide(one(20, correlation=half - 0.001), 100).lineage != "derived"


@pytest.mark.parametrize("correlation", [0.2, 0.3, 0.34, 0.36, 0.38, 0.4, 0.45, 0.6])
def test_a_soft_test_has_a_fifth_of_alpha(correlation: float) -> None:
    test = LineageTest(soft_record(), Settings(0.01))
    verdict = test.decide(one(5, correlation=correlation), 100)
    assert verdict.p_value is not None
    assert verdict.total_p == pytest.approx(min(1.0, verdict.p_value / 0.2))
    assert (verdict.lineage == "derived") == (verdict.p_value <= 0.01 * 0.2)


def test_soft_outputs_need_all_probes_and_all_references() -> None:
    """A correlation over some of the probes is another statistic than the one that was calibrated."""
    test = LineageTest(soft_record(), Settings(0.01))
    assert test.decide(one(20, 99, 0.99), 99).decided_by.startswith("label-match")
    gaps = soft_record()
    silent = gaps.references[0].model_copy(update={"families": {C: match(20, 100)}})
    record = gaps.model_copy(update={"references": (silent, *gaps.references[1:])})
    assert LineageTest(record, Settings(0.01)).decide(one(20, correlation=0.99), 100).lineage != "derived"


def test_shares_of_alpha_add_up() -> None:
    """With soft outputs the label test has 80 % of the family's share; without, all of it."""
    test = LineageTest(soft_record(), Settings(0.01))
    both, labels = test.decide(one(60, correlation=-1.0), 100), test.decide(one(60), 100)
    assert both.total_p == pytest.approx(labels.total_p / LABEL_SHARE)  # type: ignore[operator]
    assert both.error == pytest.approx(labels.error) == pytest.approx(0.01)


@pytest.mark.parametrize("n", [199, 350, 498])
def test_references_too_few_for_a_soft_rank_do_not_weaken_the_label_test(n: int) -> None:
    """A share of alpha for a rank test that nobody can pass would be wasted: with 199 references, all of it."""
    verdict = LineageTest(soft_record(n), Settings(0.01)).decide(one(100, correlation=0.999), 100)
    assert verdict.calibration is not None
    assert verdict.calibration.kind == "conformal"
    assert verdict.lineage == "derived"
    assert verdict.total_p == pytest.approx(1 / (n + 1))


def test_enough_references_for_a_soft_rank() -> None:
    verdict = LineageTest(soft_record(499), Settings(0.01)).decide(one(20, correlation=0.999), 100)
    assert verdict.lineage == "derived"
    assert verdict.decided_by.startswith("log-output-correlation")


def test_power_counts_the_share_that_the_label_test_has() -> None:
    """The label test beside a soft one has 80 % of alpha: its power is that of the smaller level."""
    for copy in range(30, 50, 2):
        record = soft_record().model_copy(update={"copies": manifest(copies=[{C: copy}]).copies})
        soft, plain = LineageTest(record, Settings(0.01)), LineageTest(record, Settings(0.008, label_only=True))
        assert soft.decide(one(20, correlation=0.2), 100).power == plain.decide(one(20), 100).power


def test_two_families_one_asked() -> None:
    weights = {C: 0.5, "natural": 0.5}
    matches = references([{C: 20, "natural": 40}] * 15, 100)
    copies = [dict.fromkeys(weights, 100)]
    test = LineageTest(manifest(families=weights, references=matches, copies=copies), Settings(0.01))
    both = test.decide({C: match(20, 100), "natural": match(95, 100)}, 200)
    assert both.lineage == "derived"
    assert both.decided_by == "label-match on natural probes"
    assert both.match_rate == pytest.approx(115 / 200)
    assert both.error == pytest.approx(0.01)
    alone = test.decide(one(20), 100)
    assert alone.error == pytest.approx(0.005)
    assert [f.name for f in alone.families] == [C]


# -- verdicts --------------------------------------------------------------------------------------------------------


def every_verdict() -> dict[str, Verdict]:
    strangers = _strangers_test()
    conformal = LineageTest(with_references([20] * 40, copies=STRONG), Settings(0.05))
    declared = LineageTest(manifest(declared_bound=0.25), Settings(0.01, "declared"))
    return {
        "derived, fitted": strangers.decide(one(99), 100),
        "unrelated, fitted": strangers.decide(one(20), 100),
        "inconclusive, fitted": LineageTest(with_references(STRANGERS), Settings(0.01)).decide(one(20), 100),
        "derived, conformal": conformal.decide(one(99), 100),
        "unrelated, conformal": conformal.decide(one(10), 100),
        "derived, declared": declared.decide(one(80, 90), 90),
        "inconclusive, none": LineageTest(manifest(), Settings(0.01)).decide(one(99), 100),
        "derived, digest": strangers.recognised(),
    }


@pytest.mark.parametrize("name", every_verdict())
def test_verdicts_as_json(name: str) -> None:
    verdict = every_verdict()[name]
    assert verdict.lineage == name.split(",", maxsplit=1)[0]
    row = json.loads(json.dumps(verdict.to_dict(), allow_nan=False))
    assert set(row) >= FIELDS
    assert row["integrity"] == "unknown" if verdict.decided_by != "digest" else "intact"
    assert row["direction"] == "unknown"
    assert row["does_not_say"] == LIMITS_TEXT
    assert row["explanation"] == explain(verdict)
    if row["calibration"] is not None:
        assert set(row["calibration"]) >= {"kind", "n", "authors", "confidence", "bound"}


@pytest.mark.parametrize("name", every_verdict())
def test_every_explanation_names_its_level_and_calibration(name: str) -> None:
    verdict = every_verdict()[name]
    text = explain(verdict)
    kind = name.split(", ")[1]
    if kind in ("conformal", "fitted", "declared"):
        assert f"{verdict.error:g}" in text
        assert kind in text
        assert f"{verdict.queries} inputs" in text
        assert verdict.calibration is not None
        assert f"{verdict.calibration.n} unrelated reference" in text or kind == "declared"
    assert "stolen" not in text
    assert text == text.strip()
    assert ".." not in text
    assert "  " not in text
    unsaid = {"derived": "does not show who", "unrelated": "such as distillation", "inconclusive": "neither for nor"}
    assert unsaid[verdict.lineage] in text.rsplit(". ", 1)[1]


def test_an_explanation_claims_no_probe_that_was_not_judged() -> None:
    """A suspect whose input could not be settled matched nothing, and the record may well be calibrated."""
    text = explain(undecided(0.01, 640, "No input setting fits."))
    assert text.startswith("No answer to a probe was judged. The suspect answered 640 inputs. No input setting fits.")
    assert "%" not in text
    assert "calibrates" not in text
    assert "inputs" not in explain(undecided(0.01, 0, "No probe could be asked."))


def test_a_budget_that_ended_first_is_told() -> None:
    early = LineageTest(with_references(STRANGERS), Settings(0.01)).decide(one(3, 3), 3)
    assert (early.lineage, early.match_rate) == ("inconclusive", 1.0)
    assert early.reason.startswith("It was not clear after 3 of 100 probes.")
    whole = LineageTest(with_references(STRANGERS), Settings(0.01)).decide(one(20), 100)
    assert "not clear" not in whole.reason


def test_what_is_within_reach_is_told_for_the_calibration_that_was_asked_for() -> None:
    ranked = LineageTest(with_references(STRANGERS), Settings(0.01, "conformal")).decide(one(100), 100)
    n = len(STRANGERS)
    assert ranked.lineage == "inconclusive"
    assert f"reach an error of {1 / (n + 1):.2g} (conformal)" in ranked.reason
    assert f"would take {99 - n} more references by rank alone" in ranked.reason
    undeclared = LineageTest(with_references(STRANGERS), Settings(0.01, "declared")).decide(one(100), 100)
    assert "--declare-bound" in undeclared.reason


@pytest.mark.parametrize("name", every_verdict())
def test_a_verdict_has_no_truth_value(name: str) -> None:
    verdict = every_verdict()[name]
    with pytest.raises(TypeError, match="truth value"):
        bool(verdict)
    with pytest.raises(TypeError):
        assert not verdict


def test_recognised_by_digest() -> None:
    verdict = _strangers_test().recognised()
    assert (verdict.lineage, verdict.integrity, verdict.queries) == ("derived", "intact", 0)
    assert (verdict.error, verdict.total_p, verdict.match_rate, verdict.decided_by) == (0.0, 0.0, 1.0, "digest")
    assert verdict.score >= _strangers_test().decide(one(100), 100).score
    assert "byte for byte" in explain(verdict)
