"""Control sets: the rank is a valid p-value, and with references the larger one decides. Reach in words."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_records import manifest, match, references

from fingerprint.decision.claims import hopeless, recorded_transfer, transfer
from fingerprint.decision.controls import control_p, unasked, with_controls
from fingerprint.decision.lineage import LineageTest, Settings
from fingerprint.decision.reach import MADE, MADE_AUTHOR, more_authors, reach
from fingerprint.decision.verdict import Verdict, explain, undecided
from fingerprint.record import Control, Manifest, Reference


def by_references(lineage: str = "derived", p: float = 0.001) -> Verdict:
    test = LineageTest(
        manifest(references=references([{"characteristic": 10 + i % 5} for i in range(12)], 100)), Settings()
    )
    found = test.decide({"characteristic": match(100, 100)}, 100)
    return replace(found, lineage=lineage, p_value=p, total_p=p)  # type: ignore[arg-type]


def with_control_sets(base: Manifest, count: int) -> Manifest:
    each = Control(owner_sha256="0" * 64, author=None, probes_sha256="1" * 64)
    return base.model_copy(update={"controls": (each,) * count})


# -- the rank --------------------------------------------------------------------------------------------------------


@given(st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_rank(count: int, seed: int) -> None:
    rates = np.random.default_rng(seed).integers(0, 5, count) / 4  # ties are usual
    for true in (0.0, 0.5, 1.0, 1.1):
        p = control_p(true, rates.tolist())
        assert p == (1 + sum(r >= true for r in rates)) / (count + 1)
    assert control_p(2.0, rates.tolist()) == 1 / (count + 1)


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.2])
def test_an_unrelated_suspect_is_accused_at_most_as_often_as_stated(alpha: float) -> None:
    """Suspects that differ in how much they match anybody's probes: what a test over models would have to know."""
    rng = np.random.default_rng(1)
    accused, runs = 0, 4000
    for _ in range(runs):
        easy = rng.beta(1, 4)
        matches = rng.binomial(40, easy, 20) / 40
        accused += control_p(float(matches[0]), matches[1:].tolist()) <= alpha
    assert accused / runs <= alpha + 2 * np.sqrt(alpha / runs)


def test_control_sets_alone_calibrate() -> None:
    nothing = undecided(0.05, 100, "No references.")
    found = with_controls(nothing, 0.9, [0.1] * 19, 0.05)
    assert (found.lineage, found.p_value, found.total_p) == ("derived", 0.05, 0.05)
    assert found.calibration is not None
    assert found.calibration.kind == "controls"
    assert "19 control sets" in explain(found)
    few = with_controls(nothing, 0.9, [0.1] * 10, 0.05)
    assert few.lineage == "inconclusive"
    assert "10 control sets reach an error of 0.091 at best; 0.05 would take 9 more" in few.reason
    never_unrelated = with_controls(nothing, 0.1, [0.1] * 30, 0.05)
    assert never_unrelated.lineage == "inconclusive"


def test_with_references_the_larger_p_decides() -> None:
    agreed = with_controls(by_references(), 0.9, [0.2] * 99, 0.01)
    assert (agreed.lineage, agreed.p_value) == ("derived", 0.01)
    taken = with_controls(by_references(), 0.9, [0.2] * 98 + [0.95], 0.01)
    assert (taken.lineage, taken.p_value, taken.total_p) == ("inconclusive", 0.02, 0.02)
    assert "matches other owners' probes too" in taken.reason
    kept = with_controls(by_references("unrelated", 0.6), 0.1, [0.05] * 99, 0.01)
    assert (kept.lineage, kept.p_value) == ("unrelated", 0.6)


def test_where_they_can_not_be_asked_nothing_is_derived() -> None:
    assert unasked(by_references(), "why").lineage == "inconclusive"
    assert unasked(by_references("unrelated"), "why") == by_references("unrelated")


# -- reach -----------------------------------------------------------------------------------------------------------


def stranger_counts(count: int, mean: float, spread: float, seed: int = 0) -> list[dict[str, int]]:
    rates = np.clip(np.random.default_rng(seed).normal(mean, spread, count), 0, 1)
    return [{"characteristic": int(r * 100)} for r in rates]


def test_reach_is_what_the_test_does() -> None:
    """A full match is derived exactly where the sentence says that the level is reached."""
    for seed in range(12):
        found = references(stranger_counts(8, 0.4 + 0.05 * (seed % 4), 0.12, seed), 100)
        made = manifest(references=found)
        level = reach(made, 0.01).level
        assert level is not None
        for alpha in (level * 0.98, min(0.5, level * 1.02)):
            test = LineageTest(made, Settings(alpha, "fitted", label_only=True))
            verdict = test.decide({"characteristic": match(100, 100)}, 100)
            assert (verdict.lineage == "derived") == (alpha >= level), (seed, alpha, level)


def test_more_authors_suffice() -> None:
    made = manifest(
        references=references(stranger_counts(7, 0.65, 0.12), 100, authors=["a", "a", "a", "b", "b", "b", "b"])
    )
    said = reach(made, 0.01)
    assert not said.reached
    more = more_authors(made, 0.01)
    assert more is not None
    assert f"about {more} more author" in said.sentence
    assert more == 1
    usual = int(np.mean([r.families["characteristic"].matches for r in made.references]))
    added = [{"characteristic": usual}]
    counts = [{"characteristic": r.families["characteristic"].matches} for r in made.references] + added
    authors = [*(r.author for r in made.references), *(f"x{i}" for i in range(more))]
    assert reach(manifest(references=references(counts, 100, authors=authors)), 0.01).reached


def test_reach_in_words() -> None:
    nothing = reach(manifest(), 0.01)
    assert nothing.level is None
    assert "No references: no error level can be stated" in nothing.sentence
    assert "at least 7 more references, by two or more authors" in nothing.sentence
    assert "99 more control sets" in nothing.sentence
    some = reach(with_control_sets(manifest(), 19), 0.05)
    assert (some.level, some.by, some.reached) == (0.05, "controls", True)
    assert reach(with_control_sets(manifest(), 19), 0.01).sentence.endswith("80 more control sets.")
    both = with_control_sets(manifest(references=references(stranger_counts(12, 0.1, 0.02), 100)), 4)
    assert reach(both, 0.01).level == 0.2  # the larger p decides


def made_ones(count: int) -> tuple[Reference, ...]:
    found = references(stranger_counts(count, 0.1, 0.03), 100, authors=[MADE_AUTHOR] * count)
    return tuple(r.model_copy(update={"origin": MADE}) for r in found)


def test_made_references_are_one_author() -> None:
    alone = manifest(references=made_ones(30))
    assert reach(alone, 0.01).level is None
    assert "all made here, so one author" in reach(alone, 0.01).sentence
    verdict = LineageTest(alone, Settings()).decide({"characteristic": match(100, 100)}, 100)
    assert verdict.lineage == "inconclusive"
    assert "--calibration conformal" in verdict.reason
    others = references(stranger_counts(3, 0.15, 0.03, 1), 100, authors=["a", "b", "c"])
    mixed = manifest(references=(*made_ones(30), *others))
    assert LineageTest(mixed, Settings()).decide({"characteristic": match(100, 100)}, 100).lineage == "derived"


def test_made_references_are_never_ranked_unless_asked() -> None:
    many = manifest(references=made_ones(250))
    full = {"characteristic": match(100, 100)}
    assert LineageTest(many, Settings(0.01)).decide(full, 100).lineage == "inconclusive"
    asked = LineageTest(many, Settings(0.01, "conformal")).decide(full, 100)
    assert asked.lineage == "derived"
    assert asked.calibration is not None
    assert (asked.calibration.n, asked.calibration.authors) == (250, 1)
    others = references(stranger_counts(200, 0.2, 0.03), 100)
    mixed = LineageTest(manifest(references=(*made_ones(250), *others)), Settings(0.01)).decide(full, 100)
    assert mixed.calibration is not None
    assert (mixed.calibration.kind, mixed.calibration.n) == ("conformal", 200)


# -- probes that match everybody -------------------------------------------------------------------------------------


def test_too_many_matching_models_are_seen() -> None:
    def found(*rates: float) -> bool:
        return transfer([{"f": match(int(100 * r), 100)} for r in rates], 0.55).too_many

    assert not found()
    assert not found(*[0.3] * 10)
    assert not found(0.9, *[0.3] * 9)  # one of ten may by chance
    assert found(0.9, 0.8, 0.7, *[0.3] * 7)
    assert found(0.9, 0.9)


def test_a_record_is_judged_by_how_its_copies_match() -> None:
    strangers = references(stranger_counts(10, 0.7, 0.05), 100)
    hard = manifest(references=strangers, copies=[{"characteristic": 98}])
    assert not recorded_transfer(hard).too_many  # below its copies: it can still tell them apart
    weak = manifest(references=strangers, copies=[{"characteristic": 60}])
    assert recorded_transfer(weak).too_many


def test_hopeless_is_where_no_more_references_would_help() -> None:
    assert not hopeless(manifest(references=references(stranger_counts(10, 0.3, 0.1), 100)))
    assert hopeless(manifest(references=references(stranger_counts(10, 0.93, 0.06), 100)))
    one = references(stranger_counts(10, 0.93, 0.06), 100, authors=["a"] * 10)
    assert not hopeless(manifest(references=one))  # one author says nothing of others
