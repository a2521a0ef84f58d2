"""Statistics of relations between probes, by their definitions and invariances."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fingerprint.decision.relations import (
    INHERITED,
    all_pairs,
    composite_share,
    composite_thresholds,
    decision_distance,
    repeated_transitions,
    sample_correlation,
    sample_correlation_of_labels,
)
from fingerprint.model import Floats


def outputs(count: int, classes: int, seed: int) -> Floats:
    """Random logits."""
    return np.random.default_rng(seed).normal(size=(count, classes)).astype(np.float32)


def softmax(logits: Floats) -> Floats:
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)


SIZES = st.tuples(st.integers(2, 12), st.integers(2, 6), st.integers(0, 999))


@given(SIZES)
def test_equal_relations_give_one_in_any_label_space(size: tuple[int, int, int]) -> None:
    """Permuted classes and probabilities instead of logits change nothing."""
    count, classes, seed = size
    ours = outputs(count, classes, seed)
    renamed = ours[:, np.random.default_rng(seed).permutation(classes)]
    pairs = np.array(list(itertools.combinations(range(count), 2)))
    for theirs in (ours, renamed, softmax(ours)):
        assert sample_correlation(ours, theirs) == pytest.approx(1.0, abs=1e-4)
        found = decision_distance(ours, theirs, pairs)
        assert found is None or found == pytest.approx(1.0, abs=1e-4)


@example((2, 2, 196), 2)  # below -1 by rounding
@given(SIZES, st.integers(2, 6))
def test_bounds_and_symmetry(size: tuple[int, int, int], other_classes: int) -> None:
    count, classes, seed = size
    ours, theirs = outputs(count, classes, seed), outputs(count, other_classes, seed + 1)
    pairs = all_pairs(None, count)
    correlation = sample_correlation(ours, theirs)
    assert correlation is not None
    assert -1.0 <= correlation <= 1.0
    assert correlation == pytest.approx(sample_correlation(theirs, ours))
    distance, back = decision_distance(ours, theirs, pairs), decision_distance(theirs, ours, pairs)
    assert (distance is None) == (back is None)
    assert distance is None or (0.0 <= distance <= 1.0 and distance == pytest.approx(back))


def test_a_noisy_copy_is_closer_than_a_stranger() -> None:
    ours = outputs(40, 10, 0)
    noisy, stranger = ours + 0.3 * outputs(40, 10, 1), outputs(40, 10, 2)
    pairs = all_pairs(None, 40)
    near, far = sample_correlation(ours, noisy), sample_correlation(ours, stranger)
    assert near is not None and far is not None and near > far + 0.2
    near, far = decision_distance(ours, noisy, pairs), decision_distance(ours, stranger, pairs)
    assert near is not None and far is not None and near > far + 0.05


def test_sample_correlation_by_hand() -> None:
    """Two probes answered oppositely (correlation -1) against two answered alike (+1): difference 2."""
    apart = np.array([[1.0, -1.0], [-1.0, 1.0]], np.float32)
    alike = np.array([[1.0, -1.0], [1.0, -1.0]], np.float32)
    assert sample_correlation(apart, alike) == pytest.approx(-1.0)
    assert sample_correlation(apart[:1], alike[:1]) is None


def test_labels_alone() -> None:
    """{0,1},{2} against {0},{1,2}: of three pairs one is treated alike."""
    assert sample_correlation_of_labels(np.array([5, 5, 7]), np.array([1, 2, 2])) == pytest.approx(1 / 3)
    assert sample_correlation_of_labels(np.array([5, 5, 7]), np.array([0, 0, 9])) == 1.0
    assert sample_correlation_of_labels(np.array([5]), np.array([0])) is None


def test_decision_distance_by_hand() -> None:
    """Vectors (2, 0) and (2, 2): cosine 1/sqrt(2)."""
    up, down = [1.0, -1.0], [-1.0, 1.0]
    ours = np.array([up, down, up, up], np.float32)
    theirs = np.array([up, down, up, down], np.float32)
    pairs = np.array([[0, 1], [2, 3]])
    assert decision_distance(ours, theirs, pairs) == pytest.approx(2**-0.5)
    assert decision_distance(ours, np.zeros((4, 2), np.float32), pairs) is None  # answers all alike
    assert decision_distance(ours, theirs, pairs[:0]) is None


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="compared"):
        sample_correlation(outputs(3, 2, 0), outputs(4, 2, 0))
    with pytest.raises(ValueError, match="compared"):
        repeated_transitions(np.zeros(3, np.int64), np.zeros(2, np.int64), np.zeros(3, np.int64))


def test_pairs() -> None:
    assert all_pairs(None, 3).tolist() == [[0, 1], [1, 2]]
    assert all_pairs(np.array([1, 0, 1, -1, 0, 1]), 6).tolist() == [[1, 4], [0, 2], [2, 5]]
    assert all_pairs(np.array([-1]), 1).shape == (0, 2)


def test_composites() -> None:
    groups = np.array([0, 0, 0, 1, 1, 1, -1])
    derived = np.array([[1, 1, 0, 1, 0, 0, 1], [1, 1, 1, 1, 1, 0, 0]], bool)
    unrelated = np.array([[1, 0, 0, 1, 1, 1, 0], [0, 0, 1, 1, 1, 0, 0]], bool)
    # composite 0: 2 matches separate fully. composite 1: unrelated models match more, so it tells nothing.
    thresholds = composite_thresholds(derived, unrelated, groups)
    assert thresholds == {0: 2}
    assert [composite_share(row, groups, thresholds) for row in derived] == [1.0, 1.0]
    assert [composite_share(row, groups, thresholds) for row in unrelated] == [0.0, 0.0]
    assert composite_share(derived[0], np.full(7, -1), thresholds) is None
    part = np.array([0, 6])  # one member was drawn: 2 matches can't be judged
    assert composite_share(derived[0][part], groups[part], thresholds) is None


def test_thresholds_without_a_derivative() -> None:
    """What an unrelated model would match if it inherited a quarter to all of its probes."""
    groups = np.repeat(np.arange(4), 4)
    never, twice, always = [0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1]
    unrelated = np.array([[*never, *twice, *always, *never], [*never, *twice, *always, *twice]], bool)
    # 0: one match is a sign already; 1: a third one is; 2 tells nothing; 3: by who counts for more
    assert composite_thresholds(None, unrelated, groups, weights=np.array([1.0, 0.0])) == {0: 1, 1: 3, 3: 1}
    assert composite_thresholds(None, unrelated, groups, weights=np.array([0.0, 1.0])) == {0: 1, 1: 3, 3: 3}
    doubled = composite_thresholds(None, unrelated[[0, 1, 1]], groups, weights=np.array([1.0, 0.5, 0.5]))
    assert doubled == composite_thresholds(None, unrelated, groups)


@given(st.integers(0, 999))
def test_without_a_derivative_thresholds_are_those_of_drawn_ones(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups, unrelated = np.repeat(np.arange(3), 4), rng.random((6, 12)) < rng.random(12)
    inherits = rng.random((400, len(INHERITED), 6, 12)) < INHERITED[:, None, None]
    derived = (unrelated | inherits).reshape(-1, 12)
    found = composite_thresholds(None, unrelated, groups)

    def gain(number: int, needed: int) -> float:
        rows = groups == number
        return float((derived[:, rows].sum(1) >= needed).mean() - (unrelated[:, rows].sum(1) >= needed).mean())

    for number in range(3):
        best = max(gain(number, needed) for needed in range(1, 5))
        assert gain(number, found[number]) > best - 0.03 if number in found else best < 0.03


@given(st.integers(0, 999))
def test_thresholds_are_the_best_there_are(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(3), 4)
    derived, unrelated = rng.random((5, 12)) < 0.7, rng.random((6, 12)) < 0.3
    for number, needed in composite_thresholds(derived, unrelated, groups).items():
        rows = groups == number

        def gain(t: int, rows: np.ndarray[tuple[int], np.dtype[np.bool_]] = rows) -> float:
            return float((derived[:, rows].sum(1) >= t).mean() - (unrelated[:, rows].sum(1) >= t).mean())

        assert gain(needed) == pytest.approx(max(gain(t) for t in range(1, 5))) and gain(needed) > 0


def test_transitions() -> None:
    owner, groups = np.array([1, 2, 3, 4, 4]), np.array([0, 0, 0, 1, 1])
    assert repeated_transitions(owner, owner, groups) == 1.0
    assert repeated_transitions(owner, np.array([1, 2, 9, 4, 4]), groups) == pytest.approx(2 / 3)
    assert repeated_transitions(owner, np.array([9, 2, 9, 4, 9]), groups) == 0.0
    assert repeated_transitions(owner, owner, np.arange(5)) is None
