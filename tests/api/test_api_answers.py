"""Drawing probes, asking them in one pass, comparing answers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_records import OUTPUTS, fingerprint

from fingerprint.api.answers import Draw, _shares, compare, draw, total
from fingerprint.errors import DegenerateModel
from fingerprint.record import FamilyMatch


@given(st.lists(st.integers(1, 30), min_size=1, max_size=5), st.integers(1, 160))
def test_shares_are_proportional_and_add_up(counts: list[int], budget: int) -> None:
    budget = min(budget, sum(counts))
    shares = _shares(counts, budget)
    assert sum(shares) == budget
    for count, share in zip(counts, shares, strict=True):
        assert abs(share - budget * count / sum(counts)) < 1
        assert 0 <= share <= count


@given(st.lists(st.integers(1, 12), min_size=1, max_size=4), st.integers(1, 60))
def test_a_draw_is_without_replacement_from_every_family(counts: list[int], budget: int) -> None:
    record = fingerprint(tuple(counts), clean=0)
    drawn = draw(record, budget).index
    assert len(set(drawn.tolist())) == len(drawn) == min(budget, sum(counts))
    assert (drawn >= 0).all()
    assert (drawn < sum(counts)).all()
    found = np.bincount(record.payload.family[drawn], minlength=len(counts)).tolist()
    assert found == _shares(counts, min(budget, sum(counts)))


def test_draws_are_uniform_and_nobodys_to_foresee() -> None:
    record = fingerprint((6, 4), clean=0)
    hits, first = np.zeros(10), np.zeros(10)
    for _ in range(3000):
        np.random.seed(0)
        index = draw(record, 5).index
        hits[index] += 1
        first[index[0]] += 1
    assert hits / 3000 == pytest.approx(np.full(10, 0.5), abs=0.06)
    assert first / 3000 == pytest.approx(np.full(10, 0.1), abs=0.04)  # the order is random too


def test_all_probes_are_asked_in_their_order() -> None:
    record = fingerprint((3, 2), clean=0)
    for budget in (None, 5, 6, 1000):
        assert draw(record, budget).index.tolist() == [0, 1, 2, 3, 4]


def test_answers_are_compared_probe_by_probe() -> None:
    record = fingerprint((4, 3), clean=0)
    payload, families = record.payload, record.manifest.families
    right = np.eye(OUTPUTS, dtype=np.float32)[payload.targets]
    right[[1, 5]] = np.roll(right[[1, 5]], 1, axis=1)  # one wrong answer in each family
    everything = Draw(np.arange(7))
    found = compare(families, payload, everything, right, 0)
    assert {k: (m.matches, m.queries) for k, m in found.items()} == {"family-0": (3, 4), "family-1": (2, 3)}
    some = Draw(np.array([5, 1, 0]))
    found = compare(families, payload, some, right[some.index], 0)
    assert {k: (m.matches, m.queries) for k, m in found.items()} == {"family-0": (1, 2), "family-1": (0, 1)}
    only = Draw(np.array([0, 2]))
    assert set(compare(families, payload, only, right[only.index], 0)) == {"family-0"}
    shifted = np.concatenate([np.zeros((7, 1), np.float32), right], axis=1)
    assert compare(families, payload, everything, shifted, 1)["family-0"].matches == 3


def test_soft_answers_and_label_only() -> None:
    record = fingerprint((4, 3), clean=0)
    everything = Draw(np.arange(7))
    found = compare(record.manifest.families, record.payload, everything, record.payload.responses, 0)
    assert found["family-1"].correlation == pytest.approx(1.0)
    blunt = compare(record.manifest.families, record.payload, everything, record.payload.responses, 0, label_only=True)
    assert blunt["family-1"].correlation is None


@pytest.mark.parametrize("shape", [(7,), (7, 2, 3), (7, 0)])
def test_answers_that_are_no_vectors(shape: tuple[int, ...]) -> None:
    record = fingerprint((4, 3), clean=0)
    with pytest.raises(DegenerateModel):
        compare(record.manifest.families, record.payload, Draw(np.arange(7)), np.zeros(shape, np.float32), 0)


def test_total_rate() -> None:
    matches = {"a": FamilyMatch(matches=3, queries=4), "b": FamilyMatch(matches=0, queries=6)}
    assert total(matches) == 0.3
    assert total({}) == 0.0
