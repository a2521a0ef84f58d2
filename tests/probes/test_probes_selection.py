"""Selection by Uniqueness Score, with balanced targets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fingerprint.errors import TransformError, UsageError
from fingerprint.probes.characteristic import CharacteristicFamily
from fingerprint.probes.natural import NaturalFamily
from fingerprint.probes.registry import family
from fingerprint.probes.selection import RECORDED_COPIES, SELECTION_COPIES, select, select_groups, uniqueness
from fingerprint.transforms.derive import parse_how
from fingerprint.transforms.interface import WeightTransform


def test_uniqueness_by_hand() -> None:
    kept = np.array([[True, True, False], [True, False, False], [True, True, False], [True, False, False]])
    nets = [np.array([True, False, False]), np.array([True, True, False])]
    assert uniqueness(kept, nets).tolist() == [1.0 - 1.0, 0.5 - 0.5, 0.0]
    assert uniqueness(kept, []).tolist() == [1.0, 0.5, 0.0]


@given(st.integers(1, 4), st.integers(0, 3), st.integers(1, 9), st.integers(0, 99))
def test_uniqueness_is_robustness_minus_transfer(copies: int, nets: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    kept = rng.random((copies, count)) < 0.5
    transferred = [rng.random(count) < 0.5 for _ in range(nets)]
    for i, score in enumerate(uniqueness(kept, transferred)):
        transfer = sum(bool(t[i]) for t in transferred) / nets if nets else 0.0
        assert score == pytest.approx(sum(bool(k) for k in kept[:, i]) / copies - transfer)


CHOICES = st.integers(1, 25).flatmap(
    lambda n: st.tuples(
        st.lists(st.sampled_from([-1.0, 0.0, 0.5, 1.0]), min_size=n, max_size=n),
        st.lists(st.integers(0, 4), min_size=n, max_size=n),
        st.integers(1, n + 3),
        st.permutations(range(n)),
    )
)


def by_definition(scores: list[float], targets: list[int], classes: int, count: int, order: list[int]) -> list[int]:
    """Walk from the best down, skipping a target that has its share; then fill up from the best skipped."""
    ranked = sorted(range(len(scores)), key=lambda i: (-scores[i], order.index(i)))
    most, taken, skipped = max(2, -(-count // classes)), [], []
    for i in ranked:
        full = sum(targets[j] == targets[i] for j in taken) >= most
        (skipped if full else taken).append(i)
    return sorted([*taken, *skipped][:count])


@given(CHOICES)
def test_select(choice: tuple[list[float], list[int], int, list[int]]) -> None:
    scores, targets, count, order = choice
    found = select(np.array(scores), np.array(targets), 5, count, np.array(order)).tolist()
    assert found == by_definition(scores, targets, 5, count, order)
    assert len(set(found)) == min(count, len(scores))


def test_the_best_come_first_and_ties_by_the_given_order() -> None:
    scores, targets = np.array([0.1, 0.9, 0.9, 0.5, 0.9]), np.arange(5)
    assert select(scores, targets, 5, 2, np.arange(5)).tolist() == [1, 2]
    assert select(scores, targets, 5, 2, np.array([4, 3, 2, 1, 0])).tolist() == [2, 4]
    assert select(scores, targets, 5, 4, np.arange(5)).tolist() == [1, 2, 3, 4]


def test_one_class_does_not_take_all_places() -> None:
    scores = np.concatenate([np.full(20, 1.0), np.full(20, 0.2)])
    targets = np.array([3] * 20 + [i % 10 for i in range(20)])
    chosen = targets[select(scores, targets, 10, 20, np.arange(40))]
    assert (chosen == 3).sum() == 2


def test_copies_are_parsed_and_apart() -> None:
    """What selects is not what the record states; all are weight transformations, as `create` needs."""
    assert not set(SELECTION_COPIES) & set(RECORDED_COPIES)
    for how in SELECTION_COPIES + RECORDED_COPIES:
        (step,) = parse_how(how)
        assert isinstance(step, WeightTransform)
    with pytest.raises(TransformError):
        parse_how("prune:magnitude:2")


def test_families_by_name() -> None:
    assert isinstance(family("characteristic"), CharacteristicFamily)
    assert isinstance(family("natural"), NaturalFamily)
    with pytest.raises(UsageError, match="no-such") as caught:
        family("no-such")
    assert "characteristic" in caught.value.remedy
    assert "natural" in caught.value.remedy


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40), st.integers(1, 40), st.integers(0, 2**31))
def test_groups_stay_whole_and_the_best_that_fit_are_taken(numbers: list[int], count: int, seed: int) -> None:
    groups, rng = np.array(numbers), np.random.default_rng(seed)
    scores, order = rng.random(len(groups)), rng.permutation(len(groups))
    taken = select_groups(scores, groups, count, order)
    assert (np.diff(taken) > 0).all()
    assert 0 < len(taken) <= count
    sizes = {g: int((groups == g).sum()) for g in set(numbers)}
    chosen = {g: int((groups[taken] == g).sum()) for g in set(groups[taken].tolist())}
    merit = {g: float(scores[groups == g].mean()) for g in sizes}
    if min(sizes.values()) > count:  # nothing fits: a part of the best
        assert list(chosen) == [max(merit, key=merit.__getitem__)]
        return
    assert all(chosen[g] == sizes[g] for g in chosen)
    for left in set(sizes) - set(chosen):  # whatever was left out did not fit beside the better ones
        better = sum(sizes[g] for g in chosen if merit[g] > merit[left])
        assert better + sizes[left] > count
