"""The combination: strong evidence is kept, references calibrate, matched negatives do not pass."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from fingerprint.bench.combine import (
    Chance,
    Cohort,
    Evidence,
    Null,
    beyond_highest,
    combined,
    frequencies,
    inheritance,
    mixture,
    normalised_mixture,
    root_of_squares,
    surprise,
)
from fingerprint.bench.panel import Panel

PROBES, CLASSES, REFERENCES = 100, 10, 12


class World:
    """Models that answer a family's probes with the owner's label at a given rate, else as strangers do."""

    def __init__(self, seed: int, rate: float = 0.2) -> None:
        self.rng = np.random.default_rng(seed)
        self.targets = self.rng.integers(0, CLASSES, PROBES)
        self.usual = self.rng.integers(0, CLASSES, PROBES)  # what most strangers say
        self.rate = rate

    def model(self, match: float, usual: float = 0.5) -> NDArray[np.int64]:
        labels = self.rng.integers(0, CLASSES, PROBES)
        labels = np.where(self.rng.random(PROBES) < usual, self.usual, labels)
        return np.where(self.rng.random(PROBES) < match, self.targets, labels)

    def panel(self, suspects: list[float], usual: float = 0.5) -> Panel:
        labels = [self.model(self.rate) for _ in range(REFERENCES)] + [self.model(s, usual) for s in suspects]
        responses = np.eye(CLASSES, dtype=np.float32)[self.targets]
        return Panel("family", self.targets, responses, np.stack(labels), None, np.full(PROBES, -1))


def cohort(suspects: int) -> Cohort:
    authors = [f"author-{i // 2}" for i in range(REFERENCES)] + [f"suspect-{i}" for i in range(suspects)]
    return Cohort(np.arange(REFERENCES), np.array(authors), np.arange(REFERENCES + suspects).astype(str))


EVIDENCE = [mixture, normalised_mixture, surprise]


@pytest.mark.parametrize("evidence", EVIDENCE)
@pytest.mark.parametrize("seed", range(5))
def test_one_certain_family_is_not_averaged_away(seed: int, evidence: Evidence) -> None:
    certain, blind = World(seed).panel([1.0, 0.2]), World(seed + 100).panel([0.1, 0.2])
    alone = root_of_squares([certain], cohort(2), evidence)[REFERENCES]
    both = root_of_squares([certain, blind, blind, blind], cohort(2), evidence)
    assert both[REFERENCES] == pytest.approx(alone, rel=0.05)
    assert both[REFERENCES] > 2 * both[REFERENCES + 1]


@pytest.mark.parametrize("evidence", EVIDENCE)
@pytest.mark.parametrize("seed", range(5))
def test_weak_evidence_of_two_families_adds_up(seed: int, evidence: Evidence) -> None:
    first, second = World(seed).panel([0.5]), World(seed + 100).panel([0.5])
    one, other, both = (
        root_of_squares(p, cohort(1), evidence)[REFERENCES] for p in ([first], [second], [first, second])
    )
    assert both > max(one, other)


def test_a_match_counts_by_how_rare_it_is_among_references() -> None:
    matches = np.array([True, False, False, False])
    rare, common = np.array([0.02, 0.5, 0.5, 0.5]), np.array([0.9, 0.5, 0.5, 0.5])
    assert Chance(rare).signed_root(matches) > 1.0 > Chance(common).signed_root(matches)


def test_matching_less_than_strangers_counts_against() -> None:
    chance = np.full(50, 0.5)
    ordered = [float(Chance(chance).signed_root(np.arange(50) < n)) for n in range(0, 51, 5)]
    assert ordered[0] < ordered[1] < 0 < ordered[-1]
    assert ordered == sorted(ordered)


@pytest.mark.parametrize("seed", range(3))
def test_of_independent_probes_it_is_a_normal_deviate(seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = Chance(np.full(100, 0.2)).signed_root(rng.random((4000, 100)) < 0.2)
    assert abs(found.mean()) < 0.15
    assert 0.8 < found.std() < 1.2
    assert (found > 2.0).mean() < 0.04


def test_frequencies_are_smoothed_shares() -> None:
    labels = np.zeros((20, 2), np.int64)
    labels[:, 1] = np.arange(20) % 10
    found = frequencies(labels, np.ones(20), 10)
    assert np.allclose(found.sum(axis=1), 1.0)
    assert found[0, 0] > 0.8
    assert 0.0 < found[0, 1] < 0.05
    assert found[1, 0] == pytest.approx(0.1)


@pytest.mark.parametrize("evidence", EVIDENCE)
def test_references_are_measured_without_their_own_author(evidence: Evidence) -> None:
    """An author's second model must not make the first one look usual."""
    panel = World(5).panel([0.2])
    twins, apart = panel.labels.copy(), panel.labels.copy()
    twins[1] = twins[0]  # the two models of author-0
    apart[1] = (apart[0] + 1) % CLASSES
    found = [evidence(replace(panel, labels=labels), cohort(1))[0] for labels in (twins, apart)]
    assert found[0] == pytest.approx(found[1])


@pytest.mark.parametrize("evidence", EVIDENCE)
def test_suspects_do_not_calibrate(evidence: Evidence) -> None:
    panel = World(6).panel([1.0, 0.3, 0.9])
    few = replace(panel, labels=panel.labels[: REFERENCES + 2])
    every = root_of_squares([panel], cohort(3), evidence)[: REFERENCES + 2]
    assert np.allclose(every, root_of_squares([few], cohort(2), evidence))


def test_references_that_all_agree_still_have_a_spread() -> None:
    null = Null.of(np.array([2.0] * REFERENCES + [3.5]), cohort(1))
    assert (null.middle, null.spread) == (2.0, 1.0)
    assert null.z(np.array([3.5])) == pytest.approx(1.5)


@pytest.mark.parametrize("seed", range(5))
def test_a_certain_family_survives_blind_ones(seed: int) -> None:
    certain, blind = World(seed).panel([1.0, 0.2]), World(seed + 100).panel([0.1, 0.2])
    alone = combined([certain], cohort(2))[REFERENCES]
    both = combined([certain, blind, blind, blind], cohort(2))
    assert both[REFERENCES] > alone - 3 * np.log(2) - 1e-9
    assert both[REFERENCES] > 10 > both[REFERENCES + 1]


@pytest.mark.parametrize("seed", range(5))
def test_what_stands_out_less_than_a_derivative_would_is_no_candidate(seed: int) -> None:
    """A stranger that is odd in a family where derivatives match wholly, against a student in a weak one."""
    sharp, weak = World(seed, rate=0.05), World(seed + 50, rate=0.45)
    odd = [sharp.panel([0.15, 0.05]), weak.panel([0.45, 0.75])]  # the first suspect is the stranger
    score = combined(odd, cohort(2))
    assert score[REFERENCES + 1] > score[REFERENCES]


def test_what_references_match_of_a_sure_family_counts_for_nothing() -> None:
    """The first suspect resembles the owner's recipe, as a reference does; then a student and a copy."""
    sure, other = World(1, rate=0.2).panel([0.1, 0.05, 0.9]), World(2, rate=0.2).panel([0.2, 0.5, 0.3])
    score, rate = beyond_highest([sure, other], cohort(3))[REFERENCES:], other.matches.mean(axis=1)[REFERENCES:]
    assert score[2] > score[1] > score[0]
    highest = sure.matches.mean(axis=1)[:REFERENCES].max()
    gained = np.maximum(sure.matches.mean(axis=1)[REFERENCES:] - highest, 0.0) / (1.0 - highest)
    assert gained[2] > 0.5 and gained[1] == 0.0
    assert score == pytest.approx(rate + gained)
    assert beyond_highest([other], cohort(3))[REFERENCES:] == pytest.approx(rate)


def test_a_suspects_author_does_not_choose_its_references() -> None:
    """Whoever made it: nobody knows of a suspect. Only references are measured without their author's models."""
    panel, known = World(4).panel([0.6, 0.3]), cohort(2)
    same = replace(known, authors=np.array([*known.authors[:REFERENCES], known.authors[0], known.authors[1]]))
    for evidence in EVIDENCE:
        assert evidence(panel, same)[REFERENCES:] == pytest.approx(evidence(panel, known)[REFERENCES:])


def test_the_bayes_factor_is_bounded_below_and_rises_with_the_match() -> None:
    panel = World(9).panel([0.0, 0.3, 0.5, 0.7, 1.0])
    found = inheritance(panel, cohort(5))
    assert (found >= np.log(0.5) - 1e-9).all()
    assert np.all(np.diff(found[REFERENCES:]) > 0)


def test_a_draw_of_probes_keeps_groups_whole() -> None:
    panel = replace(World(7).panel([0.2]), groups=np.repeat(np.arange(PROBES // 5), 5))
    found = panel.some(33, np.random.default_rng(0))
    assert len(found.targets) == 30
    assert all((found.groups == number).sum() == 5 for number in set(found.groups.tolist()))
    assert panel.some(PROBES, np.random.default_rng(0)) is panel


@pytest.mark.parametrize("evidence", EVIDENCE)
def test_a_cluster_counts_as_one_model(evidence: Evidence) -> None:
    """A stranger's copies change nothing, however many there are."""
    panel = World(8).panel([0.9])
    copies = replace(panel, labels=np.concatenate([panel.labels[:1], panel.labels[:1], panel.labels]))
    once = cohort(1)
    thrice = Cohort(
        np.arange(REFERENCES + 2),
        np.concatenate([once.authors[:1], once.authors[:1], once.authors]),
        np.concatenate([once.clusters[:1], once.clusters[:1], once.clusters]),
    )
    found = root_of_squares([panel], once, evidence), root_of_squares([copies], thrice, evidence)
    assert np.allclose(found[0], found[1][2:])


def test_references_by_one_author_alone_still_calibrate() -> None:
    """Nobody else is left to measure them by, so they are measured by chance."""
    panel, alone = World(11).panel([1.0, 0.2]), cohort(2)
    authors = np.where(np.arange(REFERENCES + 2) < REFERENCES, "one", alone.authors)
    found = combined([panel], replace(alone, authors=authors))
    assert np.isfinite(found).all()
    assert found[REFERENCES] > found[REFERENCES + 1]
