"""Step by step: the same error at any stopping time, few answers, and an honest `unrelated`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from test_decision_lineage import STRANGERS, STRONG, C, manifest, references, with_references

from fingerprint.decision.betting import NEARNESS
from fingerprint.decision.lineage import LineageTest, Settings
from fingerprint.decision.sequential import SequentialTest
from fingerprint.decision.verdict import Verdict
from fingerprint.record import FamilyMatch, Manifest


def run(
    record: Manifest, answers: Sequence[bool], asked: int | None = None, alpha: float = 0.01
) -> tuple[Verdict, int]:
    """Answer until it is clear: the verdict and the number of answers."""
    test = SequentialTest(LineageTest(record, Settings(alpha)), {C: asked or len(answers)})
    used = 0
    for answer in answers[: asked or len(answers)]:
        test.add(C, bool(answer))
        used += 1
        if test.clear:
            break
    found = {C: FamilyMatch(matches=sum(answers[:used]), queries=used)}
    return test.decide(found, used), used


def order(matches: int, seed: int, count: int = 100) -> list[bool]:
    return [bool(x) for x in np.random.default_rng(seed).permutation(np.arange(count) < matches)]


RECORD = with_references(STRANGERS, copies=STRONG)


def test_a_copy_is_found_in_a_few_answers() -> None:
    verdict, used = run(RECORD, order(100, 1))
    assert verdict.lineage == "derived"
    assert used <= 15
    assert verdict.total_p is not None
    assert verdict.total_p <= 0.01
    assert verdict.error == pytest.approx(0.01)
    assert verdict.calibration is not None
    assert verdict.calibration.bound is not None


def test_a_stranger_is_let_go_in_a_few_answers() -> None:
    verdict, used = run(RECORD, order(15, 2))
    assert verdict.lineage == "unrelated"
    assert used <= 20
    assert verdict.total_p is not None
    assert verdict.total_p > 0.01


def test_one_mismatch_does_not_let_a_tuned_copy_go() -> None:
    """Every listed copy matches on all probes, this one on 94, and asked all at once it is derived."""
    record = with_references(STRANGERS, copies=[{C: 100}] * 3)
    whole = LineageTest(record, Settings(0.01)).decide({C: FamilyMatch(matches=94, queries=100)}, 100)
    assert whole.lineage == "derived"
    assert [run(record, order(94, seed))[0].lineage for seed in range(20)] == ["derived"] * 20
    strangers = [run(record, order(20, seed)) for seed in range(20)]
    assert [verdict.lineage for verdict, _ in strangers] == ["unrelated"] * 20
    assert max(used for _, used in strangers) <= 25


@pytest.mark.parametrize("matches", [98, 60, 15])
@pytest.mark.parametrize("seed", range(5))
def test_no_question_is_asked_in_vain(matches: int, seed: int) -> None:
    """It is never clear before the answer that was said to be the soonest, and may be with that one."""
    answers = order(matches, seed)
    test = SequentialTest(LineageTest(RECORD, Settings(0.01)), {C: len(answers)})
    used = 0
    while not test.clear and used < len(answers):
        soonest = test.soonest([C] * (len(answers) - used))
        assert 1 <= soonest <= len(answers) - used
        for answer in answers[used : used + soonest]:
            assert not test.clear
            test.add(C, answer)
        used += soonest


def test_probes_of_other_families_are_counted() -> None:
    test = SequentialTest(LineageTest(RECORD, Settings(0.01)), {C: 100})
    soonest = test.soonest([C] * 100)
    assert 1 < soonest < 20
    assert test.soonest(["another", *[C] * 99]) == soonest + 1
    assert test.soonest(["another"] * 7) == 7


def test_the_evidence_is_the_wealth_answer_by_answer() -> None:
    test = SequentialTest(LineageTest(RECORD, Settings(0.01)), {C: 100})
    for _ in range(12):
        test.add(C, True)
    curve = test.evidence()
    assert [n for n, _ in curve] == list(range(1, 13))
    assert all(b > a for (_, a), (_, b) in pairwise(curve))
    assert SequentialTest(LineageTest(RECORD, Settings(0.01)), {C: 100}).evidence() == ()


def test_without_calibration_it_is_never_clear() -> None:
    test = SequentialTest(LineageTest(manifest(), Settings(0.01)), {C: 100})
    for _ in range(50):
        test.add(C, True)
        assert not test.clear
    assert test.decide({C: FamilyMatch(matches=50, queries=50)}, 50).lineage == "inconclusive"


def test_too_few_questions_allow_no_unrelated() -> None:
    """Five questions at most: a copy would not have been found either, and that is said."""
    verdict, _ = run(RECORD, order(0, 3), asked=5)
    assert verdict.lineage == "inconclusive"


def test_a_copy_that_is_nearer_to_the_strangers_would_not_be_found() -> None:
    """It wins the bets, and `derived` asks for more matches than it has: no `unrelated` while it is listed."""
    record = with_references(STRANGERS, copies=[*STRONG, {C: 50}])
    test = SequentialTest(LineageTest(record, Settings(0.01)), {C: 100})
    assert test.least(C) > 0.6
    for answer in order(50, 4):
        test.add(C, answer)
    weak = test.decide({C: FamilyMatch(matches=50, queries=100)}, 100)
    assert weak.total_p is not None and weak.total_p <= 0.01 and weak.lineage == "inconclusive"
    verdict, _ = run(record, order(8, 5))
    assert verdict.power is not None and verdict.power < 0.2 and verdict.lineage == "inconclusive"


@pytest.mark.parametrize("matches", [70, 75, 79])
def test_a_rival_is_hardly_ever_taken_for_a_copy_by_its_first_answers(matches: int) -> None:
    """Of all its probes fewer match than `derived` asks for, and a few answers may all match."""
    like_it = [{C: matches}] * 2
    test = SequentialTest(LineageTest(with_references(STRANGERS, copies=[*STRONG, *like_it]), Settings(0.01)), {C: 100})
    assert matches < test.least(C) * 100
    accused = test.decide({}, 0).power  # of the weakest copy: the share of 400 orders in which it is ever derived
    assert accused is not None and accused <= NEARNESS + 3 * (NEARNESS * (1 - NEARNESS) / 400) ** 0.5


def test_declared_bounds_spend_all_of_alpha_within() -> None:
    record = manifest(copies=STRONG).model_copy(update={"declared_bound": 0.2})
    test = SequentialTest(LineageTest(record, Settings(0.01, "declared")), {C: 100})
    used = 0
    while not test.clear:
        test.add(C, True)
        used += 1
    assert used <= 11  # 4 for the bound; the others that it is nearer to the copies
    assert test.decide({C: FamilyMatch(matches=used, queries=used)}, used).lineage == "derived"


@pytest.mark.parametrize("alpha", [0.05])
def test_strangers_are_accused_no_more_often_than_stated(alpha: float) -> None:
    """References and suspects from one population, looked at after every answer."""
    rng = np.random.default_rng(11)
    accused, trials = 0, 150
    for block in range(15):
        rates = rng.beta(4, 16, 15)
        record = manifest(
            references=references([{C: int(m)} for m in rng.binomial(100, rates)], 100), copies=STRONG
        )  # fmt: skip
        for k in range(trials // 15):
            matches = rng.binomial(100, rng.beta(4, 16))
            verdict, _ = run(record, order(int(matches), 1000 * block + k), alpha=alpha)
            accused += verdict.lineage == "derived"
    assert accused / trials <= alpha + 3 * (alpha * (1 - alpha) / trials) ** 0.5
