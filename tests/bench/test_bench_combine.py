"""The combination: strong evidence is kept, references calibrate, matched negatives do not pass."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from fingerprint.bench.combine import Cohort, combined, evidence, standardise, surprises
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
    return Cohort(np.arange(REFERENCES), np.array(authors))


@pytest.mark.parametrize("seed", range(5))
def test_one_certain_family_is_not_averaged_away(seed: int) -> None:
    certain, blind = World(seed).panel([1.0, 0.2]), World(seed + 100).panel([0.1, 0.2])
    alone = combined([certain], cohort(2))[REFERENCES]
    both = combined([certain, blind, blind, blind], cohort(2))
    assert both[REFERENCES] == pytest.approx(alone, rel=0.05)
    assert both[REFERENCES] > 2 * both[REFERENCES + 1]


@pytest.mark.parametrize("seed", range(5))
def test_weak_evidence_of_two_families_adds_up(seed: int) -> None:
    first, second = World(seed).panel([0.5]), World(seed + 100).panel([0.5])
    one, other, both = (combined(p, cohort(1))[REFERENCES] for p in ([first], [second], [first, second]))
    assert both > max(one, other)


def test_an_inaccurate_stranger_gets_no_credit() -> None:
    """It agrees less with everybody: neither owner nor references."""
    panel = World(3).panel([0.2], usual=0.0)
    score = combined([panel], cohort(1))
    assert abs(score[REFERENCES]) < 3


def test_a_label_that_references_give_as_well_counts_for_little() -> None:
    labels = np.zeros((20, 2), np.int64)
    labels[:, 1] = np.arange(20) % 10
    weights = surprises(labels, 10)
    assert weights[0, 0] < 0.3
    assert weights[1, 0] > 2.0
    assert np.allclose(np.exp(-weights).sum(axis=1), 1.0)


def test_references_are_measured_without_their_own_author() -> None:
    """An author's second model must not make the first one look usual."""
    world = World(5)
    panel = world.panel([0.2])
    labels = panel.labels.copy()
    labels[1] = labels[0]  # the two models of author-0 are twins
    twins = Panel("family", panel.targets, panel.responses, labels, None, panel.groups)
    changed = labels.copy()
    changed[1] = (labels[0] + 1) % CLASSES
    apart = Panel("family", panel.targets, panel.responses, changed, None, panel.groups)
    assert evidence(twins, cohort(1))[0] == pytest.approx(evidence(apart, cohort(1))[0])


def test_suspects_do_not_calibrate() -> None:
    panel = World(6).panel([1.0, 0.3, 0.9])
    few = Panel("family", panel.targets, panel.responses, panel.labels[: REFERENCES + 2], None, panel.groups)
    assert np.allclose(combined([panel], cohort(3))[: REFERENCES + 2], combined([few], cohort(2)))


def test_a_family_on_which_all_references_agree_has_a_spread() -> None:
    values = np.array([0.0] * REFERENCES + [0.5])
    assert np.isfinite(standardise(values, cohort(1), PROBES)).all()
